"""Requests of a key, as a flush stores them, without anybody making them."""

from datetime import UTC, datetime

from django_apikeys import batches, flushing


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def used(key, at, times=1, **fields):
    """Store *times* requests of *key* that were answered at *at*; return the Hit."""
    secret = key.current_secret
    values = {"route": "customers/", "method": "GET", "outcome": "2xx", **fields}
    hit = batches.Hit(key.pk, secret.pk, str(key.owner_id or ""), at, **values)
    batch = batches.Batch()
    for _ in range(times):
        batch.add(hit)
    flushing.apply(batch)
    return hit
