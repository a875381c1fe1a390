"""What is done while the cache of the counters is down: it is left alone for a while."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

# After a failure the cache is left alone: each try would cost every request its timeout.
REST_SECONDS = 2.0


class CacheFailed(Exception):
    """The cache did not count. Its ``__cause__`` is what the client of the cache raised."""


@contextmanager
def cache_asked() -> Iterator[None]:
    """Raise CacheFailed for what the client of a cache raises: each has errors of its own.

    Nothing but calls of the cache stands in it: an error of the program is no outage.
    """
    try:
        yield
    except ImproperlyConfigured:
        raise
    except Exception as error:
        raise CacheFailed from error


class _Breaker:
    """Whether the cache is left alone for now, in this process."""

    def __init__(self) -> None:
        self._until = 0.0
        self._tripped_at = 0.0

    def ask(self) -> float | None:
        """Return the moment where the cache may be asked, else None.

        After a rest it may be by one, who finds out for all.
        """
        now = time.monotonic()
        if now < self._until:
            return None
        if self._until:
            self._until = now + REST_SECONDS
        return now

    def trip(self) -> None:
        self._tripped_at = time.monotonic()
        self._until = self._tripped_at + REST_SECONDS

    def answered(self, asked_at: float) -> None:
        # What was asked before the failure says nothing of the time after it.
        if self._until and asked_at > self._tripped_at:
            self.reset()

    def reset(self) -> None:
        self._until = 0.0


breaker = _Breaker()
