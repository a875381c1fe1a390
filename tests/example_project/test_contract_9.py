"""Secrets that can be shown again, sentence by sentence: section 9 of the contract."""

import pytest
from cryptography.fernet import Fernet, MultiFernet
from django.contrib.auth.hashers import make_password

from django_apikeys import services
from django_apikeys.conf import conf
from django_apikeys.models import APIKeySecret
from tests.conftest import FERNET_KEY, OTHER_FERNET_KEY
from tests.documents import ROOT

KEYS = "/api/v1/keys/"
EVERY_SCOPE = ("*", "apikeys:read", "apikeys:write", "self:rotate", "self:revoke")


@pytest.fixture
def _kept(retrievable, no_guesses):
    """The mode is on before anybody logs in, and before there is a key."""


@pytest.fixture
def owner(acme, person):
    return person("owner", acme)


@pytest.fixture
def issued(issue):
    return issue("jobs:read")


def reveal(client, issued, **body):
    return client.post(f"{KEYS}{issued.key.pk}/reveal/", body)


def reason(answer):
    return answer.status_code, answer.json()["error"]["reason"]


def make_stale(client):
    session = client.session
    session["apikeys_login_at"] = 1
    session.save()


# APIKEYS_RETRIEVABLE = True with APIKEYS_ENCRYPTION_KEYS (newest first) keeps the secret
# encrypted (cryptography, extra [retrievable]).


@pytest.mark.usefixtures("_kept")
def test_the_mode_keeps_the_secret_encrypted(issued):
    text = APIKeySecret.objects.get().encrypted

    assert issued.secret not in text
    token = text.partition("$")[2]
    assert MultiFernet([Fernet(FERNET_KEY)]).decrypt(token).decode() == issued.secret


@pytest.mark.usefixtures("_kept")
def test_the_newest_key_is_first(issue, owner, settings):
    before = issue("jobs:read")
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY, FERNET_KEY]
    after = issue("jobs:read")

    answers = [reveal(owner, one) for one in (before, after)]
    token = APIKeySecret.objects.get(key=after.key).encrypted.partition("$")[2]

    assert [answer.json()["data"]["secret"] for answer in answers] == [
        before.secret,
        after.secret,
    ]
    assert Fernet(OTHER_FERNET_KEY).decrypt(token).decode() == after.secret


def test_cryptography_comes_with_an_extra():
    assert 'retrievable = ["cryptography' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


# It can be copied again by whom the policy lets: a person in a fresh login, …


@pytest.mark.usefixtures("_kept")
def test_it_can_be_copied_again(issued, owner, client):
    secret = reveal(owner, issued).json()["data"]["secret"]

    answer = client.get("/api/v1/jobs/", headers={"Authorization": f"Bearer {secret}"})
    assert secret == issued.secret
    assert answer.status_code == 200


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("admin", 403), ("member", 403)])
def test_by_whom_the_policy_lets(role, status, issued, acme, person):
    answer = reveal(person(role, acme), issued)

    assert answer.status_code == status


@pytest.mark.usefixtures("_kept")
def test_by_nobody_of_another_organisation(issued, globex, person):
    assert reason(reveal(person("owner", globex), issued)) == (404, "not_found")


@pytest.mark.usefixtures("_kept")
def test_in_a_fresh_login(issued, acme, person):
    owner = person("owner", acme, password=make_password("password"))
    fresh = reveal(owner, issued)
    make_stale(owner)
    stale = reveal(owner, issued)
    again = reveal(owner, issued, password="password")

    assert fresh.status_code == 200
    assert reason(stale) == (403, "password_required")
    assert again.json()["data"]["secret"] == issued.secret


# … never a key.


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("scopes", [(), ("*",), EVERY_SCOPE], ids=["none", "*", "all"])
def test_never_by_a_key(issued, program, scopes):
    caller = program(*scopes)

    assert reason(reveal(caller, issued)) == (403, "permission_denied")
    assert reason(caller.post(f"{KEYS}self/reveal/")) == (403, "permission_denied")


# Each reveal is a POST and an event, and no page carries a secret that nobody asked for.


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_each_reveal_is_a_post(method, issued, owner):
    answer = getattr(owner, method)(f"{KEYS}{issued.key.pk}/reveal/")

    assert answer.status_code == 405


@pytest.mark.usefixtures("_kept")
def test_each_reveal_is_an_event(issued, owner):
    reveal(owner, issued)
    reveal(owner, issued)

    rows = owner.get(f"{KEYS}{issued.key.pk}/events/").json()["data"]
    assert [(row["type"], row["actor"]["kind"]) for row in rows] == [
        ("revealed", "user"),
        ("revealed", "user"),
        ("created", "system"),
    ]


@pytest.mark.usefixtures("_kept")
def test_no_page_carries_a_secret_that_nobody_asked_for(issued, owner):
    reveal(owner, issued)
    key = f"{KEYS}{issued.key.pk}/"

    answers = [
        owner.get(KEYS),
        owner.get(key),
        owner.patch(key, {"name": "x"}),
        owner.get(f"{key}events/"),
        owner.get("/api/v1/events/"),
        owner.options(f"{key}reveal/"),
    ]

    token = APIKeySecret.objects.get().encrypted.partition("$")[2]
    texts = [answer.content.decode() for answer in answers]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [text for text in texts if issued.secret[22:] in text or token in text] == []


# Off by default; the docs say what it costs.


def test_off_by_default():
    assert conf.RETRIEVABLE is False


def test_while_it_is_off_nothing_is_kept_or_shown(issued, owner):
    assert APIKeySecret.objects.get().encrypted == ""
    assert reason(reveal(owner, issued)) == (409, "conflict")


def test_the_docs_say_what_it_costs():
    page = (ROOT / "docs" / "retrievable.md").read_text(encoding="utf-8")

    assert "## What it costs" in page


# Switching it on makes no older key retrievable.


def test_switching_it_on_makes_no_older_key_retrievable(issue, owner, retrievable, settings):
    settings.APIKEYS_RETRIEVABLE = False
    before = issue("jobs:read")
    settings.APIKEYS_RETRIEVABLE = True

    assert reason(reveal(owner, before)) == (409, "conflict")
    assert APIKeySecret.objects.get().encrypted == ""


# Encryption keys missing, wrong or removed: a clear error for the reveal, and the key itself
# goes on working.


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize(
    "keys", [[], ["wrong"], [OTHER_FERNET_KEY]], ids=["missing", "wrong", "removed"]
)
def test_encryption_keys_missing_wrong_or_removed(keys, issued, owner, client, settings):
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    answer = reveal(owner, issued)

    works = client.get("/api/v1/jobs/", headers={"Authorization": f"Bearer {issued.secret}"})
    assert reason(answer) == (409, "conflict")
    assert "encryption keys" in answer.json()["error"]["message"]
    assert works.status_code == 200


# Re-encryption, and forget-secrets of section 10.


@pytest.mark.usefixtures("_kept")
def test_re_encryption(issued, owner, settings):
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY, FERNET_KEY]
    services.reencrypt_secrets()
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY]

    assert reveal(owner, issued).json()["data"]["secret"] == issued.secret


@pytest.mark.usefixtures("_kept")
def test_forget_secrets(issued, owner, client):
    services.forget_secrets()

    works = client.get("/api/v1/jobs/", headers={"Authorization": f"Bearer {issued.secret}"})
    assert reason(reveal(owner, issued)) == (409, "conflict")
    assert works.status_code == 200
