"""What the tests of limits have in common: a clock, and views that the cases call."""

from datetime import UTC, datetime
from uuid import UUID

import django_ratelimit.core

from django_apikeys.keys.grants import Grant

KEY_ID = UUID("5f1c3c5e-0000-4000-8000-000000000000")


class Clock:
    """Stands for the module ``time`` in django-ratelimit, which takes no time as an argument."""

    def __init__(self, now):
        self.now = now

    def time(self):
        return self.now


def stopped(monkeypatch, now):
    """Stop the clock of django-ratelimit at *now*, in seconds; return it."""
    clock = Clock(now)
    monkeypatch.setattr(django_ratelimit.core, "time", clock)
    return clock


def grant(**fields):
    """Return a Grant of a key of the owner 7."""
    return Grant(
        **{
            "key_id": KEY_ID,
            "public_id": "7Fq2Lm9XcT0a",
            "name": "a key",
            "environment": "live",
            "scopes": frozenset(),
            "owner_id": 7,
            "plan": None,
            "masked": "rak_live_7Fq2…WtB2",
            **fields,
        }
    )


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)
