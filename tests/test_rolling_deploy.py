"""A rolling deploy: processes of different settings beside each other, on one database.

Each process is the real server with a settings file of its own. The database is a SQLite file
also where DATABASE_URL names a server: what is looked at is what the processes make of a digest.
"""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import pytest

from tests.conftest import bearer
from tests.example_project.children import ROOT, environment, python

SECONDS = 60
LOGIN = {"Authorization": "Basic " + b64encode(b"ann:password-of-ann").decode()}

# Peppers that stand for the deploys of a rotation, one after the other.
OLD = {"APIKEYS_PEPPERS": {"a": "the old text"}}
BOTH = {"APIKEYS_PEPPERS": {"a": "the old text", "b": "the new text"}}
LISTED = {**BOTH, "APIKEYS_PEPPER_CURRENT": "a"}
PROMOTED = {**BOTH, "APIKEYS_PEPPER_CURRENT": "b"}
NEW = {"APIKEYS_PEPPERS": {"b": "the new text"}}

# The same with SECRET_KEY: contract, section 1, has the id that is derived from the first.
DERIVED_OLD, DERIVED_NEW = "sk-b175a61f", "sk-c04b26ea"
KEY_OLD = {"SECRET_KEY": "secret-key-1"}
KEY_LISTED = {"SECRET_KEY": "secret-key-1", "SECRET_KEY_FALLBACKS": ["secret-key-2"]}
KEY_PROMOTED = {"SECRET_KEY": "secret-key-2", "SECRET_KEY_FALLBACKS": ["secret-key-1"]}
KEY_NEW = {"SECRET_KEY": "secret-key-2"}


class Process:
    """One process of the deploy. Each call is a connection of its own, by no proxy."""

    def __init__(self, popen, log):
        self._popen = popen
        self._log = log

    def wait_for_port(self):
        # It is printed once the server listens; where that ends, or is killed, so do the lines.
        line = next((line for line in self._popen.stdout if "http://" in line), "")
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, self._log.read_text(encoding="utf-8")
        self._port = int(found[1])

    def make_key(self):
        """Return the secret of a new key."""
        body = {"name": "a key", "scopes": ["customers:read"]}
        status, answer = self._call("POST", "/api/keys/", LOGIN, body)
        assert status == 201, answer
        return answer["secret"]

    def use(self, secret):
        """Return the status that *secret* is answered with and, of an error, the code."""
        status, answer = self._call("GET", "/customers/", bearer(secret))
        return (status, answer["code"]) if "code" in answer else status

    def errors(self):
        """Return what it logged of API keys."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith("An API key")]

    def _call(self, method, path, headers, body=None):
        connection = HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        try:
            headers = {"Content-Type": "application/json", **headers}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, json.load(response)
        finally:
            connection.close()


@contextmanager
def ended(popen):
    """End the process with the block, and after a minute in any case: nothing hangs on it."""
    watchdog = threading.Timer(SECONDS, popen.kill)
    watchdog.start()
    try:
        with popen:
            try:
                yield
            finally:
                popen.terminate()
    finally:
        watchdog.cancel()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A database file with our tables and a user."""
    file = tmp_path_factory.mktemp("migrated") / "db.sqlite3"
    user = ("--noinput", "--username", "ann", "--email", "ann@example.com")
    for command in (("migrate",), ("createsuperuser", *user)):
        done = python(
            *("-m", "django", *command),
            DJANGO_SETTINGS_MODULE="tests.settings",
            DJANGO_SUPERUSER_PASSWORD="password-of-ann",
            DATABASE_URL=f"sqlite:///{file}",
        )
        assert done.returncode == 0, done.stderr
    return file


@pytest.fixture
def database(migrated, tmp_path):
    return shutil.copy(migrated, tmp_path / "db.sqlite3")


@pytest.fixture
def deploy(database, tmp_path):
    """Start a process for each of *several* settings, beside those that run already."""
    processes = ExitStack()

    def start(settings):
        name = f"settings_{len(list(tmp_path.glob('*.py')))}"
        values = {"ALLOWED_HOSTS": ["127.0.0.1"], **settings}
        text = "".join(f"{setting} = {value!r}\n" for setting, value in values.items())
        (tmp_path / f"{name}.py").write_text(f"from tests.settings import *\n{text}")
        log = tmp_path / f"{name}.log"
        server = ("runserver", "--noreload", "--skip-checks", "127.0.0.1:0")
        with log.open("w") as stderr:
            popen = subprocess.Popen(  # noqa: S603 - this very project
                [sys.executable, "-m", "django", *server],
                cwd=ROOT,
                env=environment(
                    {
                        "DJANGO_SETTINGS_MODULE": name,
                        "DATABASE_URL": f"sqlite:///{database}",
                        "PYTHONPATH": str(tmp_path),
                        "PYTHONUNBUFFERED": "1",
                    }
                ),
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
            )
        processes.enter_context(ended(popen))
        return Process(popen, log)

    def deploy(*several):
        # All are starting before the first is waited for.
        started = [start(settings) for settings in several]
        for process in started:
            process.wait_for_port()
        return started

    with processes:
        yield deploy


@pytest.fixture
def pepper_of(database):
    """Tell which pepper the stored digest of a secret was made with."""

    def pepper_of(secret):
        connection = sqlite3.connect(database, timeout=SECONDS)
        try:
            select = "SELECT digest FROM django_apikeys_apikeysecret WHERE public_id = ?"
            return connection.execute(select, [secret.split("_")[2]]).fetchone()[0].split("$")[1]
        finally:
            connection.close()

    return pepper_of


def test_a_pepper_that_is_listed_first_and_then_promoted_locks_nobody_out(deploy, pepper_of):
    """In each deploy a key made by either process verifies in both, in any order."""
    old, listed, promoted = deploy(OLD, LISTED, PROMOTED)

    # The first deploy lists the new pepper.
    secrets = [old.make_key(), listed.make_key()]
    assert [process.use(secret) for process in (listed, old) for secret in secrets] == [200] * 4
    assert [pepper_of(secret) for secret in secrets] == ["a", "a"]

    # The second promotes it, process by process; whichever verifies rewrites to its own.
    secrets.append(promoted.make_key())
    assert pepper_of(secrets[2]) == "b"
    assert [promoted.use(secret) for secret in secrets] == [200] * 3
    assert [pepper_of(secret) for secret in secrets] == ["b", "b", "b"]
    assert [listed.use(secret) for secret in secrets] == [200] * 3
    assert [promoted.use(secret) for secret in secrets] == [200] * 3
    assert old.errors() + listed.errors() + promoted.errors() == []

    # The third removes the old one; all that was used since the second still verifies.
    (new,) = deploy(NEW)
    assert [new.use(secret) for secret in secrets] == [200] * 3


def test_a_pepper_that_is_promoted_at_once_locks_out_whoever_does_not_know_it(deploy, pepper_of):
    """The old process refuses what the new one rewrote, and says so once, without the secret."""
    old, new = deploy(OLD, PROMOTED)
    secret = old.make_key()
    assert (old.use(secret), pepper_of(secret)) == (200, "a")

    assert (new.use(secret), pepper_of(secret)) == (200, "b")

    assert [old.use(secret), old.use(secret)] == [(401, "invalid_key")] * 2
    assert new.use(secret) == 200
    assert new.errors() == []
    (error,) = old.errors()
    assert error.startswith(
        "An API key was refused because the pepper of its digest is not configured: hmac-sha256$b."
    )
    assert secret.split("_")[3] not in error


def test_a_process_that_rewrites_nothing_locks_no_old_key_out(deploy, pepper_of):
    """APIKEYS_REHASH = False keeps old digests; a new key is still made with the new pepper."""
    old, new = deploy(OLD, {**PROMOTED, "APIKEYS_REHASH": False})
    secret, of_new = old.make_key(), new.make_key()

    assert [process.use(secret) for process in (old, new, old, new)] == [200] * 4
    assert pepper_of(secret) == "a"
    assert old.errors() + new.errors() == []

    assert [new.use(of_new), old.use(of_new)] == [200, (401, "invalid_key")]
    assert pepper_of(of_new) == "b"


def test_a_secret_key_that_is_a_fallback_first_and_then_promoted_locks_nobody_out(
    deploy, pepper_of
):
    """A fresh install has no peppers of its own: its digests follow SECRET_KEY."""
    old, listed, promoted = deploy(KEY_OLD, KEY_LISTED, KEY_PROMOTED)

    secrets = [old.make_key(), listed.make_key()]
    assert [process.use(secret) for process in (listed, old) for secret in secrets] == [200] * 4
    assert [pepper_of(secret) for secret in secrets] == [DERIVED_OLD] * 2

    secrets.append(promoted.make_key())
    assert [promoted.use(secret) for secret in secrets] == [200] * 3
    assert [pepper_of(secret) for secret in secrets] == [DERIVED_NEW] * 3
    assert [listed.use(secret) for secret in secrets] == [200] * 3
    assert [promoted.use(secret) for secret in secrets] == [200] * 3
    assert old.errors() + listed.errors() + promoted.errors() == []


def test_a_secret_key_that_is_changed_at_once_locks_out_whoever_does_not_know_it(
    deploy, pepper_of
):
    """With the old one as a fallback no key is lost, but a process of before refuses those used.

    Unused, a key is lost with the fallback.
    """
    old, promoted, new = deploy(KEY_OLD, KEY_PROMOTED, KEY_NEW)
    secret, unused = old.make_key(), old.make_key()

    assert (promoted.use(secret), pepper_of(secret)) == (200, DERIVED_NEW)

    assert old.use(secret) == (401, "invalid_key")
    assert [process.use(secret) for process in (promoted, new)] == [200, 200]
    assert new.use(unused) == (401, "invalid_key")
    assert (promoted.use(unused), pepper_of(unused)) == (200, DERIVED_NEW)
    assert [len(process.errors()) for process in (old, promoted, new)] == [1, 0, 1]
