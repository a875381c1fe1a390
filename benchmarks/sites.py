"""The example project as a site of several processes, for benchmarks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


def workers_of(gunicorn: subprocess.Popen[bytes]) -> list[int]:
    done = subprocess.run(  # noqa: S603 - our own child
        ["ps", "-o", "pid=", "--ppid", str(gunicorn.pid)],  # noqa: S607 - wherever it is
        capture_output=True,
        check=False,  # it fails where there are none
    )
    return [int(pid) for pid in done.stdout.split()]


class Site:
    """The example project on a port of its own."""

    def __init__(self, workers: int, database_url: str, **environment: str) -> None:
        self.workers = workers
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = probe.getsockname()[1]
        self.environment = {
            **os.environ,
            "DJANGO_DEBUG": "0",
            "DJANGO_SECRET_KEY": "a-key-of-fifty-characters-that-only-this-benchmark-uses",
            "DATABASE_URL": database_url,
            **environment,
        }

    def manage(self, *arguments: str) -> str:
        """Return what ``manage.py`` prints for *arguments*."""
        return subprocess.run(  # noqa: S603 - this very project
            [sys.executable, "example_project/manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        ).stdout

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The process of gunicorn, which is ended as an operator ends it."""
        arguments = ["--bind", f"{HOST}:{self.port}", "--workers", str(self.workers)]
        with subprocess.Popen(  # noqa: S603 - this very project
            [sys.executable, "-m", "gunicorn", *arguments, "example_project.wsgi"],
            cwd=ROOT,
            env=self.environment,
            stderr=subprocess.DEVNULL,
        ) as gunicorn:
            try:
                self._wait(gunicorn)
                yield gunicorn
            finally:
                gunicorn.terminate()

    def _wait(self, gunicorn: subprocess.Popen[bytes]) -> None:
        for _ in range(300):
            if len(workers_of(gunicorn)) == self.workers:
                with socket.socket() as probe:
                    if not probe.connect_ex((HOST, self.port)):
                        return
            time.sleep(0.1)
        raise SystemExit("gunicorn did not start.")
