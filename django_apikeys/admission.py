"""Through the door in one step, for frameworks that have no steps of their own.

The key is verified, ``request.auth`` and ``request.user`` are set, and its limits are
counted. All of it blocks, so that an async face goes to a thread once.
"""

from __future__ import annotations

from asyncio import CancelledError, Event, get_running_loop
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from django_apikeys import limits
from django_apikeys.answers import follow
from django_apikeys.caching import never_store
from django_apikeys.exceptions import NotAuthenticated, Refused
from django_apikeys.users import LazyUser, request_user
from django_apikeys.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from django.http import HttpRequest

    from django_apikeys.keys.grants import Grant


def admit(
    request: HttpRequest, required_scopes: Collection[str] | None, *, units: int | None = None
) -> Grant:
    """Return the Grant of the key of *request*, which acts for its owner from now on.

    required_scopes: as ``verify`` takes them. units: of the quota; None: no limits are
    asked.
    Raises Refused.
    """
    answer = follow(request)
    try:
        grant = verify(request, required_scopes=required_scopes)
        answer.to_a_key = True
        never_store(request)
        _act_for(request, grant)
        if units is not None:
            limits.spend(request, grant, units, timezone.now())
    except NotAuthenticated:
        raise  # another credential may be let in
    except Refused as refused:
        answer.refused = refused
        roll_back()
        raise
    return grant


async def aadmit(
    request: HttpRequest, required_scopes: Collection[str] | None, *, units: int | None = None
) -> Grant:
    """Return what ``admit`` does. All of it is one step in one thread: that of the database."""
    return await _in_a_thread(partial(admit, request, required_scopes, units=units))


async def _in_a_thread(step: Callable[[], Grant]) -> Grant:
    loop, ended, has_begun = get_running_loop(), Event(), False

    def run() -> Grant:
        nonlocal has_begun
        has_begun = True
        try:
            return step()
        finally:
            loop.call_soon_threadsafe(ended.set)

    try:
        return await sync_to_async(run, thread_sensitive=True)()
    except CancelledError:
        # The client went away. A thread that has begun is not stopped: what it notes of
        # the key is there for the middleware to count once it has ended.
        if has_begun:
            await ended.wait()
        raise


def roll_back() -> None:
    """Undo the transaction of ATOMIC_REQUESTS, as an exception of the view would."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


def _act_for(request: Any, grant: Grant) -> None:
    user = request_user(grant)
    request.auth, request.user = grant, user

    async def auser() -> Any:
        # Else it is who has logged in with the session beside the key.
        if isinstance(user, LazyUser):
            await sync_to_async(lambda: grant.owner)()
        return user

    request.auser = auser
