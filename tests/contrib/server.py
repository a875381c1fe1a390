"""A Redis for tests, and a wire to it that can be cut."""

import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
import redis

URL = os.environ.get("APIKEYS_TEST_REDIS") or os.environ.get("REDIS_URL")


def without_redis(reason):
    """Skip; where a Redis was promised by the environment, fail."""
    if URL:
        pytest.fail(reason)
    pytest.skip(f"{reason} With APIKEYS_TEST_REDIS or REDIS_URL set, this fails instead.")


def url():
    """Return where Redis answers."""
    found = URL or "redis://127.0.0.1:6379/7"
    try:
        redis.Redis.from_url(found, socket_connect_timeout=1).ping()
    except redis.RedisError as error:
        without_redis(f"No Redis answers at {found}: {error}.")
    return found


class Wire:
    """Carries bytes to Redis and back, as a network does.

    Set ``mode`` to "hung" (nothing arrives), "answers lost" (Redis is asked, and nobody
    hears what it says), "down" (connections are refused), "up".
    """

    def __init__(self, target):
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port or 6379)
        self.mode = "up"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self.asked = []  # what was sent to Redis, by trip
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()
        self.cut()

    def cut(self):
        """Close what is open."""
        for end in self._open:
            with suppress(OSError):
                end.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "down":
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._open += [near, far]
            threading.Thread(target=self._asked, args=(near, far), daemon=True).start()
            threading.Thread(target=self._answered, args=(far, near), daemon=True).start()

    def _asked(self, near, far):
        with suppress(OSError):
            while data := near.recv(65536):
                self.asked.append(data)
                if self.mode == "down":
                    near.shutdown(socket.SHUT_RDWR)
                if self.mode in ("up", "answers lost"):
                    far.sendall(data)

    def _answered(self, far, near):
        with suppress(OSError):
            while data := far.recv(65536):
                if self.mode == "up":
                    near.sendall(data)


@contextmanager
def own_server():
    """The process of a Redis of its own, without persistence, and its URL."""
    program = shutil.which("redis-server")
    if program is None:
        without_redis("There is no redis-server to start.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with started(program, port) as process:
        yield process, f"redis://127.0.0.1:{port}/0"


@contextmanager
def started(program, port):
    arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            client = redis.Redis(
                port=port,
                retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200),
                retry_on_error=[redis.ConnectionError],
            )
            client.ping()
            client.close()
            yield process
        finally:
            process.kill()
