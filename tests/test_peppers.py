"""The ring of peppers: old digests verify, and are rewritten on their next use."""

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from django_apikeys import services
from django_apikeys.conf import conf
from django_apikeys.models import APIKeySecret
from tests.conftest import bearer

OLD = {"2025": "the old text"}
BOTH = {"2025": "the old text", "2026": "the new text"}


def ours(queries):
    """The statements that touch our tables: the view asks for its user besides."""
    texts = [query["sql"] for query in queries if "django_apikeys" in query["sql"]]
    return [text.split()[0] for text in texts]


def pepper_of(key):
    return APIKeySecret.objects.get(key=key).digest.split("$")[1]


@pytest.fixture
def made_of_old(issue, client, settings):
    """A key whose digest was made with the pepper 2025, and that was used since."""
    settings.APIKEYS_PEPPERS = OLD
    issued = issue(scopes=["customers:read"])
    client.get("/customers/", headers=bearer(issued.secret))
    return issued


@pytest.fixture
def call(client, made_of_old):
    def call():
        return client.get("/customers/", headers=bearer(made_of_old.secret)).status_code

    return call


def test_a_digest_is_rewritten_on_its_next_use(made_of_old, call, settings):
    settings.APIKEYS_PEPPERS = BOTH

    assert pepper_of(made_of_old.key) == "2025"
    assert call() == 200
    assert pepper_of(made_of_old.key) == "2026"
    assert call() == 200


def test_a_derived_digest_is_rewritten_once_peppers_are_listed(issued, client, settings):
    assert pepper_of(issued.key).startswith("sk-")
    settings.APIKEYS_PEPPERS = BOTH

    answer = client.get("/customers/", headers=bearer(issued.secret))

    assert answer.status_code == 200
    assert pepper_of(issued.key) == "2026"


def test_a_rewrite_is_one_update_once(made_of_old, call, settings):
    settings.APIKEYS_PEPPERS = BOTH

    with CaptureQueriesContext(connection) as first:
        call()
    with CaptureQueriesContext(connection) as second:
        call()

    assert ours(first) == ["SELECT", "UPDATE"]
    assert ours(second) == ["SELECT"]


def test_nothing_is_rewritten_where_a_setting_says_so(made_of_old, call, settings):
    settings.APIKEYS_PEPPERS = BOTH
    settings.APIKEYS_REHASH = False

    assert call() == 200
    assert pepper_of(made_of_old.key) == "2025"


def test_nothing_is_rewritten_for_a_wrong_secret_or_a_refused_key(made_of_old, client, settings):
    settings.APIKEYS_PEPPERS = BOTH

    client.post("/customers/", headers=bearer(made_of_old.secret))
    services.update_key(key=made_of_old.key, enabled=False)
    client.get("/customers/", headers=bearer(made_of_old.secret))

    assert pepper_of(made_of_old.key) == "2025"


def test_a_rewrite_undoes_no_revoke(made_of_old, call, settings, monkeypatch):
    """A revoke that commits while the rewrite is under way wins."""
    settings.APIKEYS_PEPPERS = BOTH
    rehash = services.rehash_secret

    def revoke_first(*args, **kwargs):
        services.revoke_key(key=made_of_old.key)
        rehash(*args, **kwargs)

    monkeypatch.setattr(services, "rehash_secret", revoke_first)

    call()

    assert call() == 401
    assert made_of_old.key.revoked_at is None
    made_of_old.key.refresh_from_db()
    assert made_of_old.key.revoked_at is not None


def test_a_rewrite_replaces_the_digest_it_read_and_no_other(made_of_old):
    row = APIKeySecret.objects.get()
    APIKeySecret.objects.update(digest="hmac-sha256$2025$" + "1" * 64)

    services.rehash_secret(row.pk, old=row.digest, new="hmac-sha256$2026$" + "2" * 64)

    assert APIKeySecret.objects.get().digest == "hmac-sha256$2025$" + "1" * 64


@pytest.mark.django_db(transaction=True)
def test_a_rewrite_that_fails_lets_the_request_in(made_of_old, call, settings):
    """A database that is read only says so in the log; the next use tries again."""
    settings.APIKEYS_PEPPERS = BOTH

    def read_only(execute, sql, params, many, context):
        if sql.startswith("UPDATE"):
            raise OperationalError("read only")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(read_only):
        status = call()

    assert status == 200
    assert pepper_of(made_of_old.key) == "2025"


def test_a_rolling_deploy(made_of_old, call, settings):
    """First listed everywhere, then promoted: no process is handed what it cannot verify."""

    def process(peppers, current):
        settings.APIKEYS_PEPPERS = peppers
        settings.APIKEYS_PEPPER_CURRENT = current
        return call()

    assert process(OLD, "2025") == 200
    # The first deploy lists the new pepper, process by process.
    assert [process(BOTH, "2025"), process(OLD, "2025")] == [200, 200]
    # The second promotes it; a process of the first verifies what it rewrote.
    assert [process(BOTH, "2026"), process(BOTH, "2025")] == [200, 200]
    # Only then is the old one removed.
    assert process(BOTH, "2026") == 200
    assert process({"2026": "the new text"}, "2026") == 200


def test_a_pepper_promoted_at_once_locks_out_who_does_not_know_it(made_of_old, call, settings):
    """Why a pepper is listed first: an old process cannot verify what was rewritten."""
    settings.APIKEYS_PEPPERS = BOTH
    assert call() == 200

    settings.APIKEYS_PEPPERS = OLD

    assert call() == 401


def test_a_digest_of_today_needs_no_rewrite(issued):
    digest = issued.key.current_secret.digest

    assert conf.hasher.needs_rehash(digest) is False
    assert conf.hasher.needs_rehash("hmac-sha256$other$" + "0" * 64) is True
    assert conf.hasher.needs_rehash("pbkdf2$x") is True
