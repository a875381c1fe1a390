"""The project behind the servers that it is deployed with."""

import pytest

from example_project.crm.demo.client import Client
from tests.example_project.children import SECRET_KEY, free_port, python, started, wait_for


@pytest.fixture
def served(tmp_path):
    """Make a call to gunicorn under these variables."""

    def served(calls, **variables):
        port = free_port()
        arguments = ("-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "example_project.wsgi")
        with started(
            *arguments,
            DJANGO_DEBUG="0",
            DJANGO_SECRET_KEY=SECRET_KEY,
            DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}",
            **variables,
        ):
            wait_for(port)
            return [Client("127.0.0.1", port).call("GET", *call) for call in calls]

    return served


def test_debug_off_alone_serves_plain_http_static_files_included(served):
    answers = served(
        [
            ("/",),
            ("/static/site/site.css",),
            ("/static/admin/css/base.css",),
            ("/api/v1/customers/",),
            ("/nothing/",),
        ]
    )

    assert [answer.status for answer in answers] == [200, 200, 200, 401, 404]
    assert answers[1].headers["Content-Type"] == 'text/css; charset="utf-8"'


def test_https_redirects_but_what_came_to_the_proxy_by_https(served):
    """gunicorn takes the scheme from a proxy on this machine, and from no other."""
    plain, by_proxy = served([("/",), ("/", {"X-Forwarded-Proto": "https"})], DJANGO_HTTPS="1")

    assert (plain.status, plain.headers["Location"][:8]) == (301, "https://")
    assert by_proxy.status == 200
    assert by_proxy.headers["Strict-Transport-Security"] == (
        "max-age=31536000; includeSubDomains; preload"
    )


def test_the_asgi_application_loads():
    done = python("-c", "from example_project.asgi import application; print(application)")

    assert "ASGIHandler" in done.stdout
