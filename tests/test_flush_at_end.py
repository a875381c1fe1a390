"""What a process leaves behind when it ends: real ones, on a file of their own.

The database is a SQLite file also where DATABASE_URL names a server: what is looked at is
what a process does at its end, not what the database does.
"""

import signal
import sqlite3
import subprocess
import sys
import threading
from http.client import HTTPConnection

import pytest

from tests.conftest import bearer
from tests.example_project.children import ROOT, environment, free_port, python, wait_for

REQUESTS = 20
SECONDS = 60
SETTINGS = """
from tests.settings import *
ALLOWED_HOSTS = ["127.0.0.1"]
APIKEYS_USAGE_FLUSH_SECONDS = 3600
ours = "django_apikeys.middleware.APIKeyMiddleware"
MIDDLEWARE = [ours, *(name for name in MIDDLEWARE if name != ours)]
"""
BEGIN = """
import os, sys, uuid
import django
django.setup()
from datetime import UTC, datetime
from django_apikeys.conf import conf
from django_apikeys.batches import Hit

def count(key):
    at = datetime(2026, 5, 1, tzinfo=UTC)
    conf.usage_recorder.count(Hit(uuid.UUID(int=key), 1, "", at, "", "GET", "2xx"))

count(1)
"""
MAKE_KEY = """
import django
django.setup()
from django.contrib.auth import get_user_model
from django_apikeys import services
owner = get_user_model().objects.create(username="ann")
print(services.create_key(owner=owner, name="a key", scopes=["customers:read"]).secret)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Settings, and a database file with our tables: the variables of a process."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "ending_settings.py").write_text(SETTINGS)
    variables = {
        "DJANGO_SETTINGS_MODULE": "ending_settings",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "PYTHONUNBUFFERED": "1",
    }
    done = python("-m", "django", "migrate", **variables)
    assert done.returncode == 0, done.stderr
    return variables


@pytest.fixture(scope="module")
def secret(project):
    done = python("-c", MAKE_KEY, **project)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def stored(project):
    """Tell the requests of each key that are stored since the test began."""

    def rows():
        connection = sqlite3.connect(project["DATABASE_URL"].removeprefix("sqlite:///"))
        try:
            select = "SELECT key_id, requests FROM django_apikeys_apikeytotals"
            return {key.lstrip("0"): requests for key, requests in connection.execute(select)}
        finally:
            connection.close()

    before = rows()
    return lambda: {
        key: requests - before.get(key, 0)
        for key, requests in rows().items()
        if requests != before.get(key, 0)
    }


@pytest.mark.parametrize(
    ("end", "found"),
    [
        pytest.param("", {"1": 1}, id="at-the-end-of-its-script"),
        pytest.param("sys.exit(3)", {"1": 1}, id="by-exit"),
        pytest.param("raise RuntimeError", {"1": 1}, id="by-an-error"),
        pytest.param("os._exit(0)", {}, id="without-exit-handlers"),
        pytest.param("os.kill(os.getpid(), 9)", {}, id="killed"),
        pytest.param(
            "conf.usage_recorder.flush(); os.kill(os.getpid(), 9)", {"1": 1}, id="flushed"
        ),
    ],
)
def test_what_is_left_of_a_process_that_ends(project, stored, end, found):
    python("-c", f"{BEGIN}{end}", **project)

    assert stored() == found


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("sys.exit(0)", id="by-exit"),
        pytest.param("conf.usage_recorder.flush(); os._exit(0)", id="flushed"),
    ],
)
def test_forked_child_stores_its_own_counts_and_not_those_of_its_parent(project, stored, end):
    fork = f"""
child = os.fork()
if not child:
    count(2)
    count(2)
    {end}
os.waitpid(child, 0)
count(3)
"""
    done = python("-W", "ignore", "-c", BEGIN + fork, **project)

    assert done.returncode == 0, done.stderr
    assert stored() == {"1": 1, "2": 2, "3": 1}


def test_forked_child_that_counts_nothing_stores_nothing(project, stored):
    fork = "child = os.fork()\nif child: os.waitpid(child, 0)\n"

    python("-W", "ignore", "-c", BEGIN + fork, **project)

    assert stored() == {"1": 1}


@pytest.mark.parametrize(
    ("server", "kept"),
    [
        pytest.param(["gunicorn", "--workers", "2"], REQUESTS, id="gunicorn"),
        pytest.param(["gunicorn", "--workers", "2", "--preload"], REQUESTS, id="gunicorn-preload"),
        pytest.param(["gunicorn", "--threads", "4"], REQUESTS, id="gunicorn-threads"),
        pytest.param(["django", "runserver", "--noreload"], 0, id="runserver"),
    ],
)
def test_what_sigterm_leaves_of_a_server(project, secret, stored, server, kept):
    """gunicorn ends by Python's exit handlers; runserver does not."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    arguments = (
        ["gunicorn", "--bind", address, *server[1:], "django.core.wsgi:get_wsgi_application()"]
        if server[0] == "gunicorn"
        else [*server, "--skip-checks", address]
    )
    with subprocess.Popen(  # noqa: S603 - this very project
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        watchdog = threading.Timer(SECONDS, process.kill)
        watchdog.start()
        try:
            wait_for(port)
            statuses = [get(port, secret) for _ in range(REQUESTS)]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
            watchdog.cancel()

    assert statuses == [200] * REQUESTS
    assert sum(stored().values()) == kept


def get(port, secret):
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/customers/", headers=bearer(secret))
        return connection.getresponse().status
    finally:
        connection.close()
