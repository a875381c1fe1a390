"""``manage.py demo``: filling, telling, serving, and the story of a key."""

import json
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from http.client import HTTPMessage
from io import StringIO
from itertools import takewhile
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.urls import reverse

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent
from example_project.crm.demo import server, story
from example_project.crm.demo.client import Answer, Client, Unexpected
from example_project.crm.demo.guide import site_of
from example_project.crm.management.commands import demo as command
from example_project.crm.models import (
    Customer,
    Invoice,
    Job,
    Membership,
    Organisation,
    PriceBookItem,
)
from tests.example_project.children import MANAGE, free_port, manage, python, started, wait_for

SCOPES = [
    "customers:read",
    "customers:write",
    "jobs:read",
    "jobs:write",
    "invoices:read",
    "invoices:write",
    "pricebook:read",
    "webhooks:write",
]


@pytest.fixture
def demo(db, settings):
    """Run ``demo`` with *options*; return what it printed."""
    # Fast, for tests alone.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

    def demo(*options):
        stdout, stderr = StringIO(), StringIO()
        call_command("demo", *options, stdout=stdout, stderr=stderr)
        return stdout.getvalue(), stderr.getvalue()

    return demo


def counts():
    models = (Organisation, Membership, Customer, Job, Invoice, PriceBookItem)
    return {model.__name__: model._default_manager.count() for model in models}


def test_running_it_again_doubles_nothing(demo):
    demo()
    demo()

    assert counts() == {
        "Organisation": 2,
        "Membership": 4,
        "Customer": 72,
        "Job": 72,
        "Invoice": 60,
        "PriceBookItem": 48,
    }


def test_what_was_changed_meanwhile_stays_but_the_accounts_work_again(demo):
    demo()
    Organisation.objects.filter(slug="acme").update(plan="free")
    Customer.objects.filter(organisation__slug="acme", name="Maria Keller").delete()
    Membership.objects.filter(user__username="owner").update(role="member")
    owner = Membership.objects.get(user__username="owner").user
    owner.set_password("another")
    owner.is_active = False
    owner.save()

    demo()

    assert Organisation.objects.get(slug="acme").plan == "free"
    assert counts()["Customer"] == 71
    assert authenticate(username="owner", password="demo-password") == owner
    assert Membership.objects.get(user=owner).role == "owner"


def test_each_organisation_has_a_few_dozen_rows_that_make_sense(demo):
    demo()

    for slug in ("acme", "globex"):
        organisation = Organisation.objects.get(slug=slug)
        customers = Customer.objects.filter(organisation=organisation)
        assert len(set(customers.values_list("name", "email"))) == 36
        assert not Job.objects.filter(organisation=organisation).exclude(customer__in=customers)
        assert {job.status for job in Job.objects.all()} == {"scheduled", "done", "cancelled"}
        assert Invoice.objects.filter(organisation=organisation).order_by("id")[0].amount == 79


def test_json_is_one_object_with_all_that_a_program_needs(demo):
    stdout, _stderr = demo("--json")

    said = json.loads(stdout)
    acme, globex = (Organisation.objects.get(slug=slug) for slug in ("acme", "globex"))
    password = "demo-password"
    assert said.pop("secret").startswith("rak_live_")
    assert said == {
        "basic_username": "acme",
        "superuser": {"username": "staff", "password": password},
        "users": [
            {"username": name, "password": password, "organisation": slug, "role": role}
            for name, slug, role in (
                ("owner", "acme", "owner"),
                ("admin", "acme", "admin"),
                ("member", "acme", "member"),
                ("rival", "globex", "owner"),
            )
        ],
        "organisations": [
            {"id": acme.pk, "name": "Acme", "slug": "acme", "plan": "enterprise"},
            {"id": globex.pk, "name": "Globex", "slug": "globex", "plan": "free"},
        ],
        "urls": {
            "site": "http://127.0.0.1:8000/",
            "api": "http://127.0.0.1:8000/api/v1/",
            "keys": "http://127.0.0.1:8000/api/v1/keys/",
            "customers": "http://127.0.0.1:8000/api/v1/customers/",
            "admin": "http://127.0.0.1:8000/admin/",
            "login": "http://127.0.0.1:8000/accounts/login/",
            "page": "http://127.0.0.1:8000/settings/api-keys/",
        },
    }


def test_all_that_it_names_is_there(demo, client):
    """The accounts log in, the superuser reaches the admin, the key calls."""
    said = json.loads(demo("--json")[0])

    for account in (*said["users"], said["superuser"]):
        assert client.login(username=account["username"], password=account["password"])
    assert client.get(reverse("admin:index")).status_code == 200
    client.logout()
    answer = client.get(said["urls"]["customers"], headers={"X-API-Key": said["secret"]})
    assert (answer.status_code, answer.json()["meta"]["total"]) == (200, 36)


def test_the_key_has_all_scopes_of_the_crm_and_says_where_it_is_from(demo):
    demo()

    key = APIKey.objects.get()
    event = APIKeyEvent.objects.get()
    assert (key.name, key.scopes, key.metadata) == ("Demo key", SCOPES, {"demo": True})
    assert (event.actor_kind, event.actor_name) == ("command", "manage.py demo")


def test_another_run_rotates_the_key_and_the_secret_before_lives_on(demo, client):
    def call(secret):
        return client.get("/api/v1/customers/", headers={"X-API-Key": secret})

    secrets = []
    for _run in range(3):
        secrets.append(json.loads(demo("--json")[0])["secret"])
        call(secrets[-1])

    answers = [call(secret) for secret in secrets]

    assert [answer.status_code for answer in answers] == [401, 200, 200]
    assert answers[0].json()["error"]["reason"] == "retired_secret"
    assert APIKey.objects.count() == 1


def test_a_key_that_was_revoked_is_followed_by_another(demo):
    demo()
    services.revoke_key(key=APIKey.objects.get())

    demo()

    assert APIKey.objects.filter(revoked_at=None).count() == 1


def test_a_key_that_somebody_else_made_is_left_alone(demo, acme, issue):
    mine = issue(name="Demo key", metadata={"demo": "mine"})

    for _run in range(3):
        demo()

    assert APIKey.objects.listed().filter(pk=mine.key.pk).exists()


def test_the_text_has_urls_accounts_the_secret_and_calls_to_paste(demo):
    stdout, _stderr = demo()

    key = APIKey.objects.get()
    for text in (
        "http://127.0.0.1:8000/admin/",
        "owner      Owner of acme",
        "staff      superuser",
        "demo-password",
        "curl -u owner:demo-password http://127.0.0.1:8000/api/v1/keys/",
        "curl -H 'Authorization: Bearer rak_live_",
        "curl -H 'X-API-Key: rak_live_",
        "curl -u acme:rak_live_",
        f"-X POST http://127.0.0.1:8000/api/v1/keys/{key.pk}/revoke/",
    ):
        assert text in stdout


@pytest.mark.parametrize(("debug", "warns"), [(True, False), (False, True)])
def test_well_known_passwords_outside_of_debug_are_warned_of(debug, warns, demo, settings):
    settings.DEBUG = debug

    _stdout, stderr = demo("--json")

    assert ("a password that everybody knows: demo-password" in stderr) is warns


@pytest.mark.parametrize(
    ("addrport", "site"),
    [
        ("8001", "http://127.0.0.1:8001/"),
        ("0:8001", "http://127.0.0.1:8001/"),
        ("0.0.0.0:8001", "http://127.0.0.1:8001/"),
        ("localhost:80", "http://localhost:80/"),
        ("[::1]:8000", "http://[::1]:8000/"),
    ],
)
def test_the_urls_are_those_of_the_address_served(addrport, site):
    assert site_of(addrport) == site


def test_it_serves_what_it_has_filled(tmp_path):
    """JSON first, and nothing else on stdout while it serves."""
    port = free_port()
    with started(
        MANAGE,
        "demo",
        "--json",
        "--serve",
        f"127.0.0.1:{port}",
        DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}",
    ) as process:
        lines = list(takewhile(lambda line: line != "}\n", process.stdout))
        wait_for(port)

        said = json.loads("".join([*lines, "}"]))
        headers = {"X-API-Key": said["secret"]}
        answer = Client("127.0.0.1", port).call("GET", "/api/v1/customers/", headers)
        process.terminate()
        rest = process.stdout.read()

    assert (answer.status, rest) == (200, "")
    assert said["urls"]["site"] == f"http://127.0.0.1:{port}/"


def test_json_and_the_story_do_not_go_together():
    done = manage("demo", "--json", "--check")

    assert done.returncode == 2


def test_the_whole_story_comes_true(tmp_path):
    """Also beside --serve, which it replaces, whatever the site's own database is."""
    done = python(
        MANAGE,
        "demo",
        "--serve",
        "--check",
        cwd=tmp_path,
        DATABASE_URL="postgres://nobody@127.0.0.1:1/nothing",
        REDIS_URL="redis://127.0.0.1:1/0",
        DJANGO_ALLOWED_HOSTS="example.com",
    )

    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[0] for line in lines[:-1]] == ["✓"] * 14
    assert lines[-1] == "All 14 steps passed."
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def site(monkeypatch):
    """The story's site, without one."""

    @contextmanager
    def filled_server():
        yield server.Server(MANAGE.parent), {}

    monkeypatch.setattr(command, "filled_server", filled_server)


def test_the_first_step_that_fails_ends_the_story(demo, site, monkeypatch, capsys):
    def fails(world):
        raise Unexpected("It answered 500.")

    steps = [("One", lambda world: None), ("Two", fails), ("Three", fails)]
    monkeypatch.setattr(story, "STEPS", steps)
    stdout = StringIO()

    with pytest.raises(CommandError, match="did not go as it is told"):
        call_command("demo", "--check", stdout=stdout)

    assert stdout.getvalue().splitlines() == [
        "✓ One",
        "✗ Two",
        "  Unexpected: It answered 500.",
        "1 of 3 steps passed.",
    ]


def test_a_server_that_does_not_start_fails_the_story(monkeypatch):
    def filled_server():
        raise server.ServerFailed("It did not start.")

    monkeypatch.setattr(command, "filled_server", filled_server)
    stdout = StringIO()

    with pytest.raises(CommandError, match=r"It did not start\."):
        call_command("demo", "--check", stdout=stdout)

    assert stdout.getvalue() == "✗ The server answers\n"


def test_a_server_that_ends_by_itself_tells_why(tmp_path):
    broken = server.Server(tmp_path)
    broken._environment["DJANGO_DEBUG"] = "maybe"

    with pytest.raises(server.ServerFailed, match="DJANGO_DEBUG is 0 or 1"), ExitStack() as stack:
        stack.enter_context(broken.running())

    with pytest.raises(server.ServerFailed, match="DJANGO_DEBUG is 0 or 1"):
        broken.manage("apikeys", "pattern", "--json")


class Stubborn:
    """A process that ends when it is killed, and not before."""

    def __init__(self):
        self.signals = []

    def terminate(self):
        self.signals.append("terminate")

    def kill(self):
        self.signals.append("kill")

    def wait(self, timeout=None):
        if "kill" not in self.signals:
            raise subprocess.TimeoutExpired("runserver", timeout)


def test_a_server_that_does_not_end_is_killed():
    process: Any = Stubborn()

    server._end(process)

    assert process.signals == ["terminate", "kill"]


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (200, None, "GET / answered 401, not 200"),
        (401, "revoked_key", "GET / answered the reason invalid_key, not revoked_key"),
    ],
)
def test_an_answer_that_is_not_expected_says_what_came(status, reason, message):
    answer = Answer("GET /", 401, HTTPMessage(), '{"error": {"reason": "invalid_key"}}')

    with pytest.raises(Unexpected, match=message):
        answer.expect(status, reason)


@pytest.mark.parametrize("last", ["0", "a"])
def test_a_typing_error_differs_in_the_last_character(last):
    assert story._mistyped(f"rak_{last}") != f"rak_{last}"


def test_a_port_that_is_taken_is_said_before_anything_is_made(db):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(CommandError, match=f"Port {port} is taken"):
            call_command("demo", "--serve", f"127.0.0.1:{port}")

    assert APIKey.objects.count() == 0
