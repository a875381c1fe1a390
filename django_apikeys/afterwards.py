"""What is written of a request that is refused, whose own transaction is rolled back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from asgiref.local import Local
from django.core.signals import request_finished
from django.db import router, transaction

from django_apikeys import logs
from django_apikeys.models import APIKey

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_waiting = Local()


def outside_transaction(name: Hashable, write: Callable[[], None]) -> None:
    """Call *write* now; within a transaction, once the request has been answered.

    Under ATOMIC_REQUESTS what is written at once would be rolled back with the refusal,
    and another connection would wait for this one. name: what is waiting under it already
    is not done twice. Never raises: the request is refused whatever comes of it.
    """
    try:
        with ExitStack() as stack:
            try:
                # Refused within another transaction, but not within that of a test case.
                durable = transaction.atomic(using=router.db_for_write(APIKey), durable=True)
                stack.enter_context(durable)
            except RuntimeError:
                _waiting.writes = {**getattr(_waiting, "writes", {}), name: write}
                return
            write()
    except Exception:  # noqa: BLE001 - as said
        _complain()


def write_what_waits(**kwargs: Any) -> None:
    """Do what waits. A receiver of ``request_finished``."""
    writes = getattr(_waiting, "writes", {})
    _waiting.writes = {}
    for write in writes.values():
        try:
            write()
        except Exception:  # noqa: BLE001 - nobody is left to tell
            _complain()
    if writes:
        transaction.get_connection(router.db_for_write(APIKey)).close_if_unusable_or_obsolete()


def _complain() -> None:
    logs.once_a_minute("afterwards", "What a refused API key did was not noted.", exc_info=True)


request_finished.connect(write_what_waits, dispatch_uid="django_apikeys.afterwards")
