"""The example project behind gunicorn, on a database of its own."""

import json
import sqlite3
from contextlib import closing, contextmanager

from django.contrib.sessions.backends.db import SessionStore

from example_project.crm.demo.client import Client, bearer
from tests.example_project.children import SECRET_KEY, free_port, python, started, wait_for

HOST = "127.0.0.1"
PAGE = "/settings/api-keys/"


class Site:
    """A site that runs: what browsers and programs call, and what it has stored.

    keys: by name, the id and the secret of each key that it was filled with.
    """

    def __init__(self, directory, keys, port):
        self.directory, self.keys, self.port = directory, keys, port
        self.url = f"http://{HOST}:{port}"

    def page(self, key="", page=""):
        """Return the URL of the owner's page, or of a *page* of a key that it was filled with."""
        if not key:
            return f"{self.url}{PAGE}{page}"
        return f"{self.url}{PAGE}{self.keys[key]['id']}/{page}"

    def admin(self, page=""):
        return f"{self.url}/admin/django_apikeys/{page}"

    def call(self, secret, path="/api/v1/customers/"):
        """Return the status that a program is answered which sends *secret*."""
        return Client(HOST, self.port).call("GET", path, bearer(secret)).status

    def sessions(self):
        """Return what is in the sessions of everybody."""
        with closing(sqlite3.connect(self.directory / "db.sqlite3")) as database:
            rows = database.execute("SELECT session_data FROM django_session").fetchall()
        return [SessionStore().decode(text) for (text,) in rows]

    def stored(self):
        """Return every byte that the site has written: its database, and what it has logged."""
        return b"".join(path.read_bytes() for path in sorted(self.directory.iterdir()))


def variables_of(directory, **more):
    return {
        "DJANGO_SETTINGS_MODULE": "tests.browser.settings",
        "DJANGO_DEBUG": "0",
        "DJANGO_SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        **more,
    }


def filled(directory):
    """Make a database in *directory*, and return the facts of its keys."""
    done = python("-m", "tests.browser.fill", **variables_of(directory))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def running(directory, keys, **variables):
    """The site with the database in *directory*, which is ended afterwards."""
    port = free_port()
    log = directory / f"{port}.log"
    arguments = (
        *("-m", "gunicorn", "--bind", f"{HOST}:{port}", "--threads", "4"),
        *("--access-logfile", log, "--error-logfile", log, "--capture-output"),
        "example_project.wsgi",
    )
    with started(*arguments, **variables_of(directory, **variables)):
        wait_for(port)
        yield Site(directory, keys, port)
