"""The logger ``django_apikeys``; no record of it has a secret."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("django_apikeys")
_said_at: dict[str, float] = {}


def once_a_minute(subject: str, message: str, *args: object, exc_info: bool = False) -> None:
    """Log an error, unless one on *subject* was logged in the last minute by this process.

    What is wrong with the database or the settings is wrong for each request.
    """
    now = time.monotonic()
    if now - _said_at.get(subject, -60.0) >= 60:  # noqa: PLR2004 - seconds
        _said_at[subject] = now
        logger.error(message, *args, exc_info=exc_info)
