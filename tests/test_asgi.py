"""The wrapper for ASGI servers, driven by the protocol as a server does it."""

import pytest
from asgiref.sync import async_to_sync

from django_apikeys.asgi import flush_at_shutdown
from django_apikeys.conf import conf


class Recorder:
    """Flushes, or fails to."""

    flushes = 0

    def flush(self):
        self.flushes += 1


class Failing(Recorder):
    def flush(self):
        super().flush()
        raise ConnectionError


@pytest.fixture(params=["Recorder", "Failing"])
def recorder(request, settings):
    settings.APIKEYS_USAGE_RECORDER = f"{__name__}.{request.param}"
    conf.usage_recorder.flushes = 0
    return conf.usage_recorder


def talk(application, scope, *received):
    """Return what *application* answers to what it has *received*."""
    incoming, sent = list(received), []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message["type"])

    async_to_sync(application)(scope, receive, send)
    return sent


async def echoing(scope, receive, send):
    await send({"type": f"{scope['type']}.{(await receive())['type']}"})


def test_usage_is_flushed_at_shutdown(recorder):
    """And the server goes down whether that worked or not."""
    sent = talk(
        flush_at_shutdown(echoing),
        {"type": "lifespan"},
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    )

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert recorder.flushes == 1


def test_all_else_is_passed_on(recorder):
    sent = talk(flush_at_shutdown(echoing), {"type": "http"}, {"type": "http.request"})

    assert sent == ["http.http.request"]
    assert recorder.flushes == 0
