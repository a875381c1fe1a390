"""For servers that end without Python's exit handlers: uvicorn, when it gets SIGTERM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connections

from django_apikeys import logs
from django_apikeys.conf import conf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Any, Any, Any], Awaitable[None]]


def flush_at_shutdown(application: Application) -> Application:
    """Return *application*, which stores the usage of keys when the server shuts down.

    In ``asgi.py``: ``application = flush_at_shutdown(get_asgi_application())``. It answers
    the protocol ``lifespan``, which Django itself does not know, and passes everything
    else on.
    """

    async def with_flush(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await application(scope, receive, send)

    return with_flush


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    # The server has answered all requests by now.
    await sync_to_async(_flush, thread_sensitive=False)()
    await send({"type": "lifespan.shutdown.complete"})


def _flush() -> None:
    try:
        conf.usage_recorder.flush()
    except Exception:  # noqa: BLE001 - the server ends in any case
        logs.logger.exception("The usage of API keys was lost: it could not be stored at the end.")
    finally:
        # Of this thread, and nobody else closes it.
        connections.close_all()
