"""A server of the story's own: an empty database, a free port, a child process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
MANAGE = str(Path(settings.BASE_DIR) / "manage.py")
SECONDS_TO_START = 60
SECONDS_TO_END = 10


class ServerFailed(Exception):
    """The server, or a command beside it, did not do what it was started for."""


class Server:
    """Where the site of the story is, and its command line.

    directory: an empty one, for the database and the log.
    """

    def __init__(self, directory: Path) -> None:
        self.port = _free_port()
        self.log = directory / "server.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "REDIS_URL"},
            "DATABASE_URL": f"sqlite:///{quote(str(directory / 'db.sqlite3'))}",
            "DJANGO_ALLOWED_HOSTS": HOST,
            "DJANGO_HTTPS": "0",
            "PYTHONIOENCODING": "utf-8",
        }

    def manage(self, *arguments: str) -> Any:
        """Return the JSON that ``manage.py`` prints for *arguments*.

        Raises ServerFailed where the command fails.
        """
        done = subprocess.run(  # noqa: S603 - this very project
            [sys.executable, MANAGE, *arguments],
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS_TO_START,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"manage.py {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The server answers while this lasts, and is ended whatever happens."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - this very project
                [sys.executable, MANAGE, "runserver", "--noreload", f"{HOST}:{self.port}"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                self._wait(process)
                yield
            finally:
                _end(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            time.sleep(0.1)
        raise ServerFailed(f"The server did not start: {self.log.read_text('utf-8').strip()}")


@contextmanager
def filled_server() -> Iterator[tuple[Server, dict[str, Any]]]:
    """A running server with the demo's data, and what the demo says of it."""
    with tempfile.TemporaryDirectory(prefix="apikeys-demo-") as directory:
        server = Server(Path(directory))
        facts = server.manage("demo", "--json")
        with server.running():
            yield server, facts


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
