"""Secrets that are kept: what the services do with them, the checks and the commands."""

import json
import logging
import subprocess
import sys
from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_apikeys import conf as conf_module
from django_apikeys import logs, pruning, services, signals, verification
from django_apikeys.authority import Authority, KeyAuthority
from django_apikeys.checks import check_deployment, check_settings
from django_apikeys.exceptions import BeyondCeiling, Conflict, NotPermitted
from django_apikeys.keys.masking import Secret
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.policy import UserPolicy
from django_apikeys.representation import key_as_dict
from django_apikeys.retrievable_checks import check_kept_secrets
from django_apikeys.services import retrieval
from tests.conftest import FERNET_KEY, OTHER_FERNET_KEY, bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.test_admin_rotation import asked, body, url
from tests.test_checks import ids
from tests.test_command import ROOT, run
from tests.test_services import listening

pytestmark = pytest.mark.usefixtures("retrievable")


class NarrowPolicy(UserPolicy):
    """Nobody may grant anything."""

    def grantable_scopes(self, person, owner):
        return []


@pytest.fixture
def said(caplog, monkeypatch):
    """What is logged, as if nothing had been said in the last minute."""
    monkeypatch.setattr(logs, "_said_at", {})
    caplog.set_level(logging.ERROR, "django_apikeys")
    return caplog


def texts(key):
    """Return what is kept of all secrets that *key* ever had, the oldest first."""
    rows = APIKeySecret.objects.filter(key=key).order_by("pk")
    return list(rows.values_list("encrypted", flat=True))


def kept(key):
    """Tell of each secret that *key* ever had whether it is kept, the oldest first."""
    return [bool(text) for text in texts(key)]


def row(key):
    return APIKey.objects.get(pk=key.pk)


def reveal(key, **fields):
    return services.reveal_secret(key=row(key), **fields)


def works(client, secret):
    return client.get("/customers/", headers=bearer(secret)).status_code == 200


def away(execute, sql, params, many, context):
    raise OperationalError("gone")


# --- Kept, and not ------------------------------------------------------------------------


def test_a_new_secret_is_kept_encrypted(issued):
    [text] = texts(issued.key)

    assert text.startswith("21d477c8$gAAAA")
    assert issued.secret not in text


def test_without_the_mode_nothing_is_kept(issue, settings):
    settings.APIKEYS_RETRIEVABLE = False

    assert texts(issue().key) == [""]


NOT_AGAIN = "It is not stored, and not shown again."
KEPT = "It is kept, encrypted, for whoever may reveal it."


@pytest.mark.parametrize(
    ("keys", "expected"), [([FERNET_KEY], KEPT), ([], NOT_AGAIN)], ids=["kept", "no key for it"]
)
def test_the_admin_says_whether_a_new_secret_is_kept(
    issued, admin_client, settings, keys, expected
):
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    page = body(admin_client.post(url(issued.key), asked(issued.key)))

    assert [text for text in (NOT_AGAIN, KEPT) if text in page] == [expected]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [([FERNET_KEY], "secret is kept, encrypted:"), ([], "secret is shown this once:")],
    ids=["kept", "no key for it"],
)
def test_the_commands_say_whether_a_new_secret_is_kept(issued, settings, keys, expected):
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    told = [run("create", "--name=new")[1], run("rotate", str(issued.key.pk))[1]]

    assert [text.strip().endswith(expected) for text in told] == [True, True]


def test_the_current_secret_alone_is_kept(issued):
    services.rotate_key(key=issued.key)

    assert kept(issued.key) == [False, True]


@pytest.mark.parametrize(
    "rotation",
    [{"compromised": True}, {"grace_seconds": 0}, {"starts": "first_use"}],
    ids=["compromised", "no grace", "from the first use"],
)
def test_however_it_is_rotated(issued, rotation):
    services.rotate_key(key=issued.key, **rotation)
    services.rotate_key(key=row(issued.key), **rotation)

    assert kept(issued.key) == [False, False, True]


def test_a_rotation_that_is_repeated_keeps_the_last(issued, client):
    works(client, issued.secret)
    services.rotate_key(key=issued.key)
    last = services.rotate_key(key=issued.key)

    assert kept(issued.key) == [False, False, True]
    assert reveal(issued.key).secret == last.secret


@pytest.mark.parametrize("end", ["revoke_key", "delete_key"])
def test_what_works_no_more_is_not_kept(issued, end):
    services.rotate_key(key=issued.key)

    getattr(services, end)(key=issued.key)

    assert kept(issued.key) == [False, False]


def test_a_cascade_leaves_nothing_either(issue, issued):
    child = issue()
    APIKey.objects.filter(pk=child.key.pk).update(created_by_key=issued.key)

    services.revoke_key(key=issued.key, cascade=True)

    assert (kept(issued.key), kept(child.key)) == ([False], [False])


def test_a_reuse_that_revokes_leaves_nothing(issued, client, settings):
    settings.APIKEYS_REVOKE_ON_REUSE = True
    services.rotate_key(key=issued.key, compromised=True)

    assert not works(client, issued.secret)
    services.note_reuse(issued.key.secrets.earliest("pk").pk, timezone.now())

    assert kept(issued.key) == [False, False]


def test_a_revoke_that_is_rolled_back_forgets_nothing(issued, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(APIKeyEvent.objects, "create", fail)
    with pytest.raises(RuntimeError):
        services.revoke_key(key=issued.key)

    assert kept(issued.key) == [True]


def test_pruning_leaves_nothing_of_a_deleted_key(issued):
    services.delete_key(key=issued.key)
    APIKey.objects.update(deleted_at=timezone.now() - timedelta(days=91))

    pruning.prune(timezone.now())

    assert not APIKeySecret.objects.exists()


def test_what_a_process_that_died_has_left_is_pruned(issue, monkeypatch):
    monkeypatch.setattr(pruning, "MOST_ROWS", 2)
    alive, *ended = [issue().key for _ in range(6)]
    APIKey.objects.filter(pk__in=[key.pk for key in ended[:3]]).update(revoked_at=timezone.now())
    APIKeySecret.objects.filter(key=ended[3]).update(slot=1)
    APIKeySecret.objects.filter(key=ended[4]).update(slot=None)

    due, done = pruning.due(timezone.now()), pruning.prune(timezone.now())

    assert (due["texts"], done["texts"]) == (5, 5)
    assert [kept(key) for key in (alive, *ended)] == [[True], *[[False]] * 5]


def test_a_key_that_is_disabled_keeps_its_secret(issued):
    services.update_key(key=issued.key, enabled=False)
    services.update_key(key=issued.key, enabled=True)

    assert reveal(issued.key).secret == issued.secret


# --- Keys that are missing ----------------------------------------------------------------

WITHOUT_KEYS = {
    "none": [],
    "no list": None,
    "broken": ["broken"],
}
without_keys = pytest.mark.parametrize("keys", WITHOUT_KEYS.values(), ids=WITHOUT_KEYS)


@without_keys
def test_without_a_key_secrets_are_made_and_not_kept(issue, client, settings, said, keys):
    """Whoever replaces a secret that has leaked must not wait for a setting."""
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    issued = issue(scopes=["customers:read"])
    rotated = services.rotate_key(key=issued.key, compromised=True)

    assert works(client, rotated.secret)
    assert kept(issued.key) == [False, False]
    assert ["APIKEYS_ENCRYPTION_KEYS" in line for line in said.messages] == [True]


@without_keys
def test_a_secret_whose_key_is_missing_is_a_conflict_and_works_on(
    issued, client, settings, said, keys
):
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    with pytest.raises(Conflict, match="cannot be read with the encryption keys of this site"):
        reveal(issued.key)

    assert works(client, issued.secret)
    assert [record.levelname for record in said.records] == ["ERROR"]
    assert "APIKEYS_ENCRYPTION_KEYS" in said.messages[0]


def test_a_secret_whose_key_was_removed_is_a_conflict_and_works_on(issued, client, settings, said):
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY]

    for _ in range(3):
        with pytest.raises(Conflict, match="cannot be read with the encryption keys"):
            reveal(issued.key)

    assert works(client, issued.secret)
    public_id = issued.key.current_secret.public_id
    told = f"The secret {public_id} cannot be revealed with APIKEYS_ENCRYPTION_KEYS: "
    assert said.messages == [f"{told}none of them reads it."]
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY, FERNET_KEY]
    assert reveal(issued.key).secret == issued.secret


@pytest.mark.parametrize("text", ["x", "21d477c8$", "é", "21d477c8$gAAAAA=="])
def test_what_is_kept_and_broken_is_a_conflict(issued, client, text):
    APIKeySecret.objects.update(encrypted=text)

    with pytest.raises(Conflict, match="cannot be read"):
        reveal(issued.key)

    assert works(client, issued.secret)


def without_cryptography(monkeypatch):
    conf_module._cipher.cache_clear()
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    monkeypatch.delitem(sys.modules, "django_apikeys.keys.ciphers", raising=False)


def test_without_cryptography_it_says_what_to_install(issued, client, monkeypatch, said):
    without_cryptography(monkeypatch)

    with pytest.raises(ImproperlyConfigured, match=r'pip install "django-apikeys\[retrievable\]"'):
        conf_module.cipher()
    with pytest.raises(Conflict, match="cannot be read"):
        reveal(issued.key)

    assert works(client, issued.secret)
    assert "pip install" in said.messages[0]


def test_without_the_mode_cryptography_is_not_imported():
    """Else whoever keeps nothing would need it too."""
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "import django_apikeys.drf.urls\n"
        "call_command('check')\n"
        "assert 'django_apikeys.keys.ciphers' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)  # noqa: S603 - our own words


# --- reveal_secret ------------------------------------------------------------------------


def test_the_secret_comes_back_with_its_key(issued, client):
    revealed = reveal(issued.key)

    assert (revealed.key, revealed.secret) == (issued.key, issued.secret)
    assert works(client, revealed.secret)
    assert issued.secret not in repr(revealed) + repr(revealed.secret)


def test_each_leaves_an_event_and_sends_a_signal(issued, user, django_capture_on_commit_callbacks):
    with (
        listening(signals.key_revealed) as received,
        django_capture_on_commit_callbacks(execute=True),
    ):
        reveal(issued.key, actor=user)

    event = APIKeyEvent.objects.get(type="revealed")
    assert (event.actor_name, event.key_id, event.changes) == ("ann", issued.key.pk, {})
    [facts] = received
    assert (facts["key"], facts["actor"].name) == (issued.key, "ann")
    assert issued.secret not in repr(facts)


def test_the_previous_secret_is_never_shown(issued, client):
    rotated = services.rotate_key(key=issued.key)

    assert works(client, issued.secret)
    assert reveal(issued.key).secret == rotated.secret


def test_a_key_never_reveals_one(issued, rf):
    """Whatever the authority it comes with, none included."""
    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))

    with pytest.raises(NotPermitted):
        reveal(issued.key, actor=grant)
    with pytest.raises(NotPermitted):
        reveal(issued.key, authority=KeyAuthority(grant))

    assert not APIKeyEvent.objects.filter(type="revealed").exists()


def test_whom_the_policy_does_not_let_is_refused(issued):
    other = UserFactory()

    with pytest.raises(NotPermitted):
        reveal(issued.key, actor=other, authority=Authority(other))


def test_who_may_not_grant_its_scopes_is_refused(issued, user, settings):
    settings.APIKEYS_POLICY = "tests.test_retrievable.NarrowPolicy"

    with pytest.raises(BeyondCeiling):
        reveal(issued.key, actor=user, authority=Authority(user))


def expire(key):
    APIKey.objects.filter(pk=key.pk).update(expires_at=timezone.now())


@pytest.mark.parametrize(
    ("end", "message"),
    [
        pytest.param(lambda key: services.revoke_key(key=key), "revoked", id="revoked"),
        pytest.param(
            lambda key: services.update_key(key=key, enabled=False), "disabled", id="disabled"
        ),
        pytest.param(expire, "expired", id="expired"),
        pytest.param(lambda key: key.secrets.all().delete(), "not kept", id="lost"),
    ],
)
def test_what_does_not_work_is_not_shown(issued, end, message):
    end(issued.key)

    with pytest.raises(Conflict, match=message):
        services.require_revealable(row(issued.key))
    with pytest.raises(Conflict, match=message):
        reveal(issued.key)
    assert not APIKeyEvent.objects.filter(type="revealed").exists()


def test_where_the_mode_is_off_nothing_is_shown(issued, settings):
    settings.APIKEYS_RETRIEVABLE = False

    with pytest.raises(Conflict, match="not kept here"):
        reveal(issued.key)


def test_the_mode_makes_no_older_key_retrievable(issue, settings):
    settings.APIKEYS_RETRIEVABLE = False
    before = issue()

    settings.APIKEYS_RETRIEVABLE = True

    with pytest.raises(Conflict, match="was not kept"):
        reveal(before.key)
    rotated = services.rotate_key(key=before.key)
    assert reveal(before.key).secret == rotated.secret


def test_what_is_kept_of_another_key_is_not_shown_as_this_ones(issue, issued, said):
    other = issue()
    [text] = texts(other.key)
    APIKeySecret.objects.filter(key=issued.key).update(encrypted=text)

    with pytest.raises(Conflict, match="is not this secret"):
        reveal(issued.key)

    public_id = issued.key.current_secret.public_id
    assert said.messages == [f"What is kept of the secret {public_id} is not that secret."]


def test_nor_with_the_digest_of_the_other(issue, issued):
    """The public id stands in the secret itself."""
    other = APIKeySecret.objects.get(key=issue().key)
    APIKeySecret.objects.filter(key=issued.key).update(
        encrypted=other.encrypted, digest=other.digest, last_four=other.last_four
    )

    with pytest.raises(Conflict, match="is not this secret"):
        reveal(issued.key)


def test_a_secret_that_was_replaced_is_not_shown(issued):
    """What was kept before is put back where it was: it is no longer the secret."""
    [before] = texts(issued.key)
    services.rotate_key(key=issued.key, compromised=True)
    APIKeySecret.objects.filter(slot=0).update(encrypted=before)

    with pytest.raises(Conflict, match="is not this secret"):
        reveal(issued.key)


def test_a_text_of_somebody_elses_making_is_not_shown(issued):
    APIKeySecret.objects.update(encrypted=conf_module.cipher().encrypt(Secret("<script>")))

    with pytest.raises(Conflict, match="is not this secret"):
        reveal(issued.key)


def test_a_secret_of_a_prefix_of_before_is_shown(issued, settings):
    settings.APIKEYS_PREFIXES = ["new"]

    assert reveal(issued.key).secret == issued.secret


def test_a_digest_that_was_rewritten_is_still_of_what_is_kept(issued, client, settings):
    settings.APIKEYS_PEPPERS = {"2026": "a pepper of today"}
    assert works(client, issued.secret)

    assert reveal(issued.key).secret == issued.secret


# --- Nobody asked for it ------------------------------------------------------------------


def test_neither_lists_nor_requests_select_what_is_kept(issued, client):
    with CaptureQueriesContext(connection) as queries:
        works(client, issued.secret)
        for key in [*APIKey.objects.listed(), row(issued.key)]:
            key_as_dict(key, timezone.now())

    selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert any("last_four" in sql for sql in selects)
    assert [sql for sql in selects if "encrypted" in sql] == []


# --- forget-secrets and reencrypt ---------------------------------------------------------


@pytest.fixture
def _two_at_a_time(monkeypatch):
    monkeypatch.setattr(retrieval, "MOST_ROWS", 2)


@pytest.mark.usefixtures("_two_at_a_time")
def test_all_are_forgotten_and_their_keys_work_on(issue, client):
    keys = [issue(scopes=["customers:read"]) for _ in range(5)]

    _out, err = run("forget-secrets")

    assert err == (
        "Forgot 5 secrets; their keys go on working.\n"
        "APIKEYS_RETRIEVABLE is on: new secrets are kept.\n"
    )
    assert not APIKeySecret.objects.exclude(encrypted="").exists()
    assert all(works(client, issued.secret) for issued in keys)
    with pytest.raises(Conflict, match="was not kept"):
        reveal(keys[0].key)


def test_they_are_forgotten_where_the_mode_is_off(issued, settings):
    settings.APIKEYS_RETRIEVABLE = False
    settings.APIKEYS_ENCRYPTION_KEYS = []

    out, err = run("forget-secrets", "--json")

    assert (json.loads(out), err) == ({"forgotten": 1}, "")
    assert run("forget-secrets") == ("", "Forgot 0 secrets; their keys go on working.\n")


@pytest.mark.usefixtures("_two_at_a_time")
def test_all_are_encrypted_anew_and_the_old_key_can_go(issue, settings):
    keys = [issue() for _ in range(5)]
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY, FERNET_KEY]

    _out, err = run("reencrypt")
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY]

    assert err == "Encrypted 5 secrets with the newest key.\n"
    assert [reveal(issued.key).secret for issued in keys] == [issued.secret for issued in keys]
    assert json.loads(run("reencrypt", "--json")[0]) == {"reencrypted": 0, "unreadable": 0}


def test_what_cannot_be_read_is_told_and_left(issue, settings):
    lost = issue()
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY]
    issue()
    before = texts(lost.key)

    with pytest.raises(CommandError, match="1 secrets cannot be read with APIKEYS_ENCRYPTION"):
        run("reencrypt")

    assert texts(lost.key) == before


def test_without_a_key_it_says_how_to_make_one(issued, settings):
    settings.APIKEYS_ENCRYPTION_KEYS = []

    with pytest.raises(CommandError, match=r"APIKEYS_ENCRYPTION_KEYS is empty.*generate_key"):
        run("reencrypt")


@pytest.mark.parametrize("change", ["rotated", "revoked", "forgotten"])
def test_what_changed_meanwhile_is_not_undone(issued, settings, monkeypatch, change):
    """It goes by what it has read, and a text that is no longer there stays away."""
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY, FERNET_KEY]
    cipher = conf_module.cipher()
    reencrypt = type(cipher).reencrypt

    def meanwhile(self, text):
        {
            "rotated": lambda: services.rotate_key(key=row(issued.key)),
            "revoked": lambda: services.revoke_key(key=issued.key),
            "forgotten": services.forget_secrets,
        }[change]()
        return reencrypt(self, text)

    monkeypatch.setattr(type(cipher), "reencrypt", meanwhile)

    done = services.reencrypt_secrets()

    assert (done.rewritten, done.unreadable) == (0, 0)
    assert kept(issued.key)[0] is False


# --- Checks -------------------------------------------------------------------------------


def test_the_mode_with_a_key_has_no_finding():
    assert check_settings(None) == []


def test_e006_the_mode_without_a_key(settings):
    settings.APIKEYS_ENCRYPTION_KEYS = []

    [finding] = check_settings(None)

    assert ids([finding]) == ["E009"]
    assert finding.is_serious()
    assert "generate_key" in finding.msg


def test_e006_the_mode_without_cryptography(monkeypatch):
    without_cryptography(monkeypatch)

    [finding] = check_settings(None)

    assert ids([finding]) == ["E009"]
    assert "pip install" in finding.msg


@pytest.mark.parametrize(
    ("name", "value"),
    [("RETRIEVABLE", "yes"), ("ENCRYPTION_KEYS", ["x"]), ("REVEAL_LOGIN_SECONDS", 0)],
)
def test_e001_a_value_that_cannot_be_used(settings, name, value):
    setattr(settings, f"APIKEYS_{name}", value)

    [finding] = check_settings(None)

    assert ids([finding]) == ["E001"]
    assert finding.msg.startswith(f"APIKEYS_{name}")


@pytest.mark.parametrize(
    ("value", "found"), [(True, True), (False, False), ("yes", False)], ids=["on", "off", "E001"]
)
def test_w017_check_deploy_says_that_it_is_on(settings, value, found):
    settings.APIKEYS_RETRIEVABLE = value

    assert ("W018" in ids(check_deployment(None))) is found


def test_w018_a_key_that_is_gone(issue, settings):
    issue()
    issue()
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY]
    issue()

    [finding] = check_kept_secrets(databases=["default"])

    assert ids([finding]) == ["W019"]
    assert finding.msg.startswith("2 secrets cannot be revealed: the encryption key '21d477c8'")


def test_w019_the_mode_is_off_and_secrets_are_kept(issued, settings):
    settings.APIKEYS_RETRIEVABLE = False

    [finding] = check_kept_secrets(databases=["default"])

    assert ids([finding]) == ["W020"]
    assert finding.msg == "1 secrets are kept encrypted, and APIKEYS_RETRIEVABLE is off."
    assert "forget-secrets" in finding.hint


@pytest.mark.parametrize(
    ("databases", "fields"),
    [
        pytest.param(["default"], {}, id="all is well"),
        pytest.param(None, {"RETRIEVABLE": False}, id="no database"),
        pytest.param([], {"RETRIEVABLE": False}, id="another database"),
        pytest.param(["default"], {"RETRIEVABLE": "yes"}, id="E001"),
        pytest.param(["default"], {"ENCRYPTION_KEYS": []}, id="E009"),
    ],
)
def test_neither_where(issued, settings, databases, fields):
    for name, value in fields.items():
        setattr(settings, f"APIKEYS_{name}", value)

    assert check_kept_secrets(databases=databases) == []


def test_nothing_is_found_where_nothing_is_kept(db, settings):
    APIKeyFactory()
    settings.APIKEYS_RETRIEVABLE = False

    assert check_kept_secrets(databases=["default"]) == []


def test_nothing_is_found_before_there_are_tables(db):
    with connection.execute_wrapper(away):
        assert check_kept_secrets(databases=["default"]) == []


def test_check_with_database_asks(issued, settings, capsys):
    settings.APIKEYS_RETRIEVABLE = False

    call_command("check", "--database", "default")

    assert "django_apikeys.W020" in capsys.readouterr().err
