"""The documentation, held against the code."""

import re
import shlex
from string import Template
from types import ModuleType

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.dispatch import Signal
from django.urls import path as url
from django.urls import reverse
from rest_framework.decorators import api_view, permission_classes
from rest_framework.views import APIView
from rest_framework.viewsets import ModelViewSet

import django_apikeys.exceptions
from django_apikeys import services, signals
from django_apikeys.conf import Configuration
from django_apikeys.drf.permissions import HasScope
from django_apikeys.keys.restrictions import Refusal
from django_apikeys.models import APIKey
from django_apikeys.notices import KINDS
from django_apikeys.policy import BasePolicy, UserPolicy
from django_apikeys.testing import flush_usage
from tests.conftest import bearer
from tests.documents import ROOT, blocks, curl
from tests.factories import APIKeyFactory, UserFactory

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
SNIPPETS = [
    pytest.param(block.text, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
    if block.language == "python"
]


LOOKS = ("wide-light", "wide-dark", "narrow-light", "narrow-dark")


def read(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", SNIPPETS)
def test_each_python_snippet_runs(text, monkeypatch):
    for name in ("PEPPER", "ENCRYPTION_KEY", "ENCRYPTION_KEY_BEFORE"):
        monkeypatch.setenv(f"APIKEYS_{name}", "from the environment")
    names = {
        "APIView": APIView,
        "ModelViewSet": ModelViewSet,
        "BasePolicy": BasePolicy,
        "UserPolicy": UserPolicy,
        "HasScope": HasScope,
        "api_view": api_view,
        "permission_classes": permission_classes,
        "os": __import__("os"),
    }

    exec(compile(text, "snippet", "exec"), names)  # noqa: S102 - our own documentation


def test_each_setting_is_documented_and_each_documented_one_is_there():
    code = (ROOT / "django_apikeys" / "conf.py").read_text(encoding="utf-8")

    in_code = set(re.findall(r'"(APIKEYS_[A-Z_]+)"', code))
    in_table = set(re.findall(r"^\| `(APIKEYS_[A-Z_]+)`", read("settings.md"), re.MULTILINE))

    assert in_code == in_table
    assert len(in_code) >= len([name for name in vars(Configuration) if name.isupper()])


def test_each_check_is_documented_and_each_documented_one_is_there():
    code = "".join(
        (ROOT / "django_apikeys" / name).read_text(encoding="utf-8")
        for name in (
            "checks.py",
            "cache_checks.py",
            "policy_checks.py",
            "retrievable_checks.py",
            "drf/checks.py",
        )
    )

    in_code = set(re.findall(r'"django_apikeys\.([EW]\d{3})"', code))
    in_table = set(
        re.findall(r"^\| `django_apikeys\.([EW]\d{3})`", read("settings.md"), re.MULTILINE)
    )

    assert in_code == in_table


def test_each_error_code_is_documented():
    classes = [
        value
        for value in vars(django_apikeys.exceptions).values()
        if isinstance(value, type) and issubclass(value, django_apikeys.exceptions.APIKeyError)
    ]
    codes = {value.code for value in classes if hasattr(value, "code")} | set(Refusal)

    table = read("http-api.md").partition("## Refusals")[2]

    # "invalid" is the code of bad input, whose fields say more.
    assert [code for code in codes - {"invalid"} if f"`{code}`" not in table] == []


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("key-list", {}),
        ("key-detail", {"pk": "{id}"}),
        ("key-revoke", {"pk": "{id}"}),
        ("key-reveal", {"pk": "{id}"}),
        ("key-self", {}),
        ("key-events", {"pk": "{id}"}),
        ("event-list", {}),
        ("key-usage", {"pk": "{id}"}),
        ("account", {}),
        ("scope-list", {}),
    ],
)
def test_each_url_is_documented(name, kwargs):
    path = reverse(f"apikeys:{name}", kwargs=kwargs).removeprefix("/api/")

    assert path.replace("%7B", "{").replace("%7D", "}") in read("http-api.md")


def test_the_curl_commands_work(live_server):
    UserFactory(username="ann")
    commands = [
        command
        for block in blocks("docs/http-api.md")
        if block.language == "console"
        for command, _printed in block.commands()
    ]

    answers = [
        curl(command.replace("orders:", "jobs:"), {}, live_server.url) for command in commands
    ]

    assert [status for status, _body in answers] == [201]


def test_the_commands_work(db, capsys):
    UserFactory(username="ann")
    commands = [
        command
        for block in blocks("docs/commands.md")
        if block.language == "console"
        for command, _printed in block.commands()
    ]

    for command in commands:
        inner = re.fullmatch(r"SECRET=\$\((.*)\)", command)[1]
        words = shlex.split(Template(inner).safe_substitute({}).replace("orders:", "jobs:"))
        call_command(*words[2:])

    assert APIKey.objects.get().name == "Cron"
    assert capsys.readouterr().out.startswith("rak_live_")


def leaving(number, **replaced):
    """Run the commands of a block of docs/leaving.md."""
    found = [block for block in blocks("docs/leaving.md") if block.language == "console"]
    for command, _printed in found[number].commands():
        for shown, real in replaced.items():
            command = command.replace(shown, str(real))  # noqa: PLW2901 - the same, as it is run
        call_command(*shlex.split(command)[2:])


def test_the_commands_for_somebody_who_leaves_work(db, capsys):
    ann = UserFactory(username="ann")
    made = APIKeyFactory(created_by=ann)
    APIKeyFactory(created_by_key=made)
    APIKeyFactory(owner=ann)
    kept = APIKeyFactory()

    leaving(0)

    assert list(APIKey.objects.filter(revoked_at=None)) == [kept]
    assert capsys.readouterr().err.splitlines()[-2:] == ["Revoked 2 keys.", "Revoked 1 key."]


def test_the_commands_for_keys_that_are_to_stay_work(db, tmp_path):
    kept, other = APIKeyFactory(), APIKeyFactory()
    others = tmp_path / "others.txt"
    others.write_text(f"{other.pk}\n", encoding="utf-8")

    leaving(1, **{"7Fq2Lm9XcT0a": kept.pk, "the-others.txt": others})

    assert list(APIKey.objects.filter(revoked_at=None)) == [kept]
    assert kept.secrets.count() == 2


def test_each_action_of_the_command_is_documented():
    code = (ROOT / "django_apikeys/management/commands/apikeys.py").read_text(encoding="utf-8")

    actions = re.findall(r'actions\.add_parser\(\s*"([a-z-]+)"', code)

    assert [name for name in actions if f"| `{name}" not in read("commands.md")] == []
    assert len(actions) == 15


def test_each_signal_is_documented():
    names = [name for name, value in vars(signals).items() if isinstance(value, Signal)]

    table = re.findall(r"^\| `([a-z_]+)` \|", read("signals.md"), re.MULTILINE)

    assert sorted(table) == sorted(names)


class FreePolicy(UserPolicy):
    """Everybody is on the plan ``free``."""

    def plan(self, owner):
        return "free"


@pytest.mark.usefixtures("counting")
def test_the_receiver_is_told_of_a_quota(issued, user, client, settings, mailoutbox):
    settings.APIKEYS_POLICY = "tests.test_docs.FreePolicy"
    settings.APIKEYS_PLANS = {"free": {"quota": 1}}
    caches["default"].clear()
    names = {}
    exec(blocks("docs/signals.md")[0].text, names)  # noqa: S102 - our own documentation

    client.get("/customers/", headers=bearer(issued.secret))
    flush_usage()

    [mail] = [mail for mail in mailoutbox if mail.subject.startswith("100 %")]
    assert mail.subject == f"100 % of the quota of owner {user.pk}"
    assert mail.body.startswith("1 of 1 units in ")
    assert mail.to == ["sales@example.com"]


PLAIN = [block.text for block in blocks("docs/plain-views.md") if block.language == "python"]
BY_DECORATOR, BY_CLASS, ASYNC, BY_NINJA, BY_FUNCTION = PLAIN


def url_of(names):
    if "api" in names:
        return url("", names["api"].urls)
    return url("orders", names["Orders"].as_view() if "Orders" in names else names["orders"])


@pytest.mark.parametrize(
    ("snippet", "answer"),
    [
        pytest.param(BY_DECORATOR, lambda owner: {"owner": owner, "user": "ann"}, id="decorator"),
        pytest.param(BY_CLASS, lambda owner: {"read_by": "a key"}, id="class"),
        pytest.param(ASYNC, lambda owner: {"owner": owner, "user": "ann"}, id="async"),
        pytest.param(BY_NINJA, lambda owner: {"owner": owner, "user": "ann"}, id="ninja"),
        pytest.param(BY_FUNCTION, lambda owner: {"owner": owner}, id="function"),
    ],
)
class TestPlainView:
    @pytest.fixture
    def call(self, snippet, issue, settings, client):
        """Call the view of the documentation with a key that has these scopes, or without."""
        settings.APIKEYS_SCOPES = {"orders:read": "Read orders"}
        names = {"__name__": "snippet"}
        exec(snippet, names)  # noqa: S102 - our own documentation
        urls = ModuleType("urls")
        urls.urlpatterns = [url_of(names)]
        settings.ROOT_URLCONF = urls

        def call(*scopes):
            headers = bearer(issue(scopes=scopes).secret) if scopes else {}
            return client.get("/orders", headers=headers)

        return call

    def test_lets_a_key_in(self, call, answer, user):
        response = call("orders:read")

        assert response.json() == answer(user.pk)
        assert response["Cache-Control"] == "private"
        assert {"Authorization", "X-API-Key"} <= set(response["Vary"].split(", "))

    def test_refuses_one_that_lacks_the_scope(self, call, answer):
        response = call("self:revoke")

        assert response.status_code == 403
        assert response.json()["code"] == "insufficient_scope"
        assert 'scope="orders:read"' in response["WWW-Authenticate"]
        assert not response.has_header("Retry-After")

    def test_refuses_who_has_none(self, call, answer, db):
        response = call()

        assert (response.status_code, response["Cache-Control"]) == (401, "no-store")
        assert response["WWW-Authenticate"] == 'Bearer realm="api"'


def test_each_kind_of_notice_is_documented():
    table = read("notices.md")

    assert [kind for kind in KINDS if f"`{kind}`" not in table] == []


def pictured():
    """What each template of a page, and of ours in the admin, has its picture as."""
    templates = ROOT / "django_apikeys" / "templates"
    abstract = {"base", "page", "key", "asking"}
    pages = {
        path.stem
        for path in (templates / "django_apikeys" / "web").glob("*.html")
        if "{% extends" in path.read_text(encoding="utf-8")
    }
    of_admin = {path.stem for path in (templates / "admin/django_apikeys/apikey").glob("*.html")}
    names = {f"page-{name}" for name in pages - abstract}
    names |= {f"admin-{name}" for name in of_admin - {"breadcrumbs"}}
    return {name.replace("_", "-") for name in (*names, "admin-change-list", "admin-event")}


def test_each_picture_stands_in_the_docs_light_and_dark_wide_and_narrow():
    shown = re.findall(r"\(images/([^)]+)\)", read("screenshots.md"))

    names = {re.sub(r"-(wide|narrow)-(light|dark)\.webp$", "", picture) for picture in shown}
    each = {f"{name}-{look}.webp" for name in names for look in LOOKS}
    assert names >= pictured()
    assert set(shown) == each == {path.name for path in (ROOT / "docs" / "images").iterdir()}


def test_the_keys_that_a_leaked_one_rotated_are_found(issue, client):
    leaked, target, another = (
        issue(scopes=scopes)
        for scopes in (["apikeys:write", "self:rotate", "jobs:read"], ["jobs:read"], ["jobs:read"])
    )
    services.rotate_key(key=another.key)
    snippet = next(
        block.text for block in blocks("docs/rotation.md") if "rotated_through" in block.text
    )
    names = {}
    exec(snippet, names)  # noqa: S102 - our own documentation

    for path in (f"/api/keys/{target.key.pk}/rotate/", "/api/keys/self/rotate/"):
        assert client.post(path, headers=bearer(leaked.secret)).status_code == 201

    assert list(names["rotated_through"](leaked.key)) == [target.key]
