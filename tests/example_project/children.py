"""Child processes: the project as it is started by hand."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANAGE = ROOT / "example_project" / "manage.py"
# What Python needs to start; the settings' own variables are left out.
INHERITED = ("PATH", "HOME", "TMPDIR", "TEMP", "SYSTEMROOT", "VIRTUAL_ENV")
SECRET_KEY = "fifty-characters-that-only-this-test-ever-sees-0123456789-abcdef"


def environment(variables):
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "PYTHONIOENCODING": "utf-8", **variables}


def python(*arguments, cwd=ROOT, **variables):
    """Return the finished process of Python with *arguments*."""
    return subprocess.run(  # noqa: S603 - this very project
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(variables),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def manage(*arguments, **variables):
    """Return the finished process of ``manage.py`` with *arguments*."""
    return python(MANAGE, *arguments, **variables)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    """Return when something listens at *port*; after a minute fail."""
    deadline = time.monotonic() + 60
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, f"Nothing listens at {port}."
            time.sleep(0.1)


@contextmanager
def started(*arguments, **variables):
    """The process of Python with *arguments*, which is ended afterwards."""
    with subprocess.Popen(  # noqa: S603 - this very project
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
