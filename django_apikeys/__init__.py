"""API keys for Django projects: scoped, limited, expiring, audited."""

__version__ = "0.1.0"
