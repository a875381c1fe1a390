"""Customers, jobs, invoices, the price book and webhooks of organisations."""
