"""A small CRM of several organisations, guarded by API keys."""
