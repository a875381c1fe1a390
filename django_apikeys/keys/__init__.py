"""The key as a value: no database, no request, no settings."""
