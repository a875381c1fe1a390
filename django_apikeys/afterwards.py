"""What is noted of a secret, whatever becomes of the transaction of the request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished
from django.db import router, transaction

from django_apikeys import logs
from django_apikeys.models import APIKeySecret

if TYPE_CHECKING:
    from collections.abc import Callable

# As the connection whose transaction is waited for: under ASGI too a view and the end of its
# request share a thread, and no other context.
_waiting = threading.local()


def outside_transaction(subject: str, secret_id: int, write: Callable[[], None]) -> None:
    """Call *write* now; within a transaction, once the request has been answered.

    Under ATOMIC_REQUESTS what is written at once would be rolled back with a refusal, or with
    any answer of 400 and more, and its lock would be held until the view has answered. What
    waits for one secret under one *subject* is done once. Never raises.
    """
    connection: Any = transaction.get_connection(router.db_for_write(APIKeySecret))
    # As atomic(durable=True) sees it: the transaction of a test case is none.
    if all(block._from_testcase for block in connection.atomic_blocks):
        _done(subject, write)
        return
    writes = getattr(_waiting, "writes", {})
    _waiting.writes = {**writes, (subject, secret_id): write}


def write_what_waits(**kwargs: Any) -> None:
    """Do what waits. A receiver of ``request_finished``."""
    writes = getattr(_waiting, "writes", {})
    _waiting.writes = {}
    for (subject, _secret_id), write in writes.items():
        _done(subject, write)
    if writes:
        alias = router.db_for_write(APIKeySecret)
        transaction.get_connection(alias).close_if_unusable_or_obsolete()


def _done(subject: str, write: Callable[[], None]) -> None:
    try:
        write()
    except Exception:  # noqa: BLE001 - the request is answered as it is, whatever comes of it
        logs.once_a_minute(
            subject, f"The {subject} of an API key could not be noted.", exc_info=True
        )


request_finished.connect(write_what_waits, dispatch_uid="django_apikeys.afterwards")
