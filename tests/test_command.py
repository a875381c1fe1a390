"""``manage.py apikeys``, as a shell and a script call it."""

import io
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import MultipleObjectsReturned
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from django_apikeys import services
from django_apikeys.conf import conf
from django_apikeys.keys.format import generate
from django_apikeys.management.commands.apikeys import Command
from django_apikeys.models import APIKey, APIKeyEvent, APIKeyNotice, APIKeyTotals, APIKeyUsage
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.traffic import used

SECRET = re.compile(r"rak_(live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\n")
ROOT = Path(__file__).parent.parent


class CrowdedPolicy(UserPolicy):
    """Knows several owners by each text."""

    def find_owner(self, text):
        raise MultipleObjectsReturned(text)


def away(execute, sql, params, many, context):
    raise OperationalError("connection failed:\n\tIs the server running?\n")


def run(*args):
    out, err = io.StringIO(), io.StringIO()
    call_command("apikeys", *args, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_create_prints_the_secret_to_stdout_and_all_else_to_stderr(user, client):
    out, err = run("create", "--owner", "ann", "--name", "Cron", "--scope", "customers:read")

    assert SECRET.fullmatch(out)
    assert "Created" in err
    assert out.strip() not in err
    assert client.get("/customers/", headers=bearer(out.strip())).status_code == 200


def test_create_takes_every_setting_of_a_key(user):
    run(
        "create",
        "--owner=ann",
        "--name=Cron",
        "--description=Nightly",
        "--environment=test",
        "--scope=customers:read",
        "--scope=jobs:*",
        "--allowed-ip=203.0.113.7",
        "--allowed-ip=2001:db8::/32",
        "--rate-limit=300/m",
        "--expires-at=2040-01-31T12:00:00Z",
    )

    key = APIKey.objects.get()
    assert (key.owner, key.name, key.description) == (user, "Cron", "Nightly")
    assert key.environment == "test"
    assert key.scopes == ["customers:read", "jobs:*"]
    assert key.allowed_ips == ["203.0.113.7", "2001:db8::/32"]
    assert key.rate_limit == "300/m"
    assert key.expires_at.isoformat() == "2040-01-31T12:00:00+00:00"


def test_create_reads_a_moment_without_a_zone_in_that_of_the_project(user, settings):
    settings.TIME_ZONE = "Europe/Berlin"

    run("create", "--owner=ann", "--name=Cron", "--expires-at=2040-01-31T12:00:00")

    assert APIKey.objects.get().expires_at.isoformat() == "2040-01-31T11:00:00+00:00"


def test_create_as_json_is_the_key_with_its_secret(user):
    out, _err = run("create", "--owner=ann", "--name=Cron", "--json")

    made = json.loads(out)
    assert made["name"] == "Cron"
    assert made["owner"] == {"id": user.pk, "name": "ann"}
    assert SECRET.fullmatch(made["secret"] + "\n")


def test_create_without_an_owner_makes_a_key_of_the_project(db):
    run("create", "--name=Cron")

    assert APIKey.objects.get().owner is None


def test_an_owner_is_named_by_their_id_too(user):
    run("create", f"--owner={user.pk}", "--name=Cron")

    assert APIKey.objects.get().owner == user


def test_never_is_an_expiry_too(user, settings):
    settings.APIKEYS_DEFAULT_LIFETIME = timedelta(days=30)

    run("create", "--owner=ann", "--name=said", "--expires-at=never")
    run("create", "--owner=ann", "--name=unsaid")

    assert APIKey.objects.get(name="said").expires_at is None
    left = APIKey.objects.get(name="unsaid").expires_at - timezone.now()
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_the_event_names_the_command(user):
    run("create", "--owner=ann", "--name=Cron")

    event = APIKeyEvent.objects.get()
    assert (event.actor_kind, event.actor_name) == ("command", "manage.py apikeys")


BAD = {
    "no name": (["create", "--owner=ann"], "name: A key needs a name."),
    "unknown scope": (["create", "--name=x", "--scope=nope:read"], "Unknown scope: 'nope:read'."),
    "bad network": (["create", "--name=x", "--allowed-ip=1.2"], "is not an IP address"),
    "bad rate": (["create", "--name=x", "--rate-limit=fast"], "A rate is a number"),
    "past": (["create", "--name=x", "--expires-at=2020-01-01T00:00:00Z"], "in the past"),
    "unknown environment": (["create", "--name=x", "--environment=prod"], "is not one of: live"),
    "unknown owner": (["create", "--name=x", "--owner=bob"], "There is no owner 'bob'."),
    "list of unknown owner": (["list", "--owner=bob"], "There is no owner 'bob'."),
    "unknown id": (["show", "6d2f0a3c-0000-4000-8000-000000000000"], "There is no key"),
    "unknown public id": (["show", "AAAAAAAAAAAA"], "There is no key"),
    "revoke unknown": (["revoke", "AAAAAAAAAAAA"], "There is no key"),
}


@pytest.mark.parametrize("text", ["tomorrow", "2030-02-31T00:00:00Z"])
def test_an_expiry_that_is_none_is_wrong_usage(user, text):
    with pytest.raises(CommandError) as raised:
        run("create", "--name=x", f"--expires-at={text}")

    assert str(raised.value) == (
        "--expires-at: a moment such as 2027-01-31T12:00:00Z is needed, or never."
    )
    assert raised.value.returncode == 2


@pytest.mark.parametrize(("args", "reason"), BAD.values(), ids=BAD.keys())
def test_a_failed_action_says_why_in_one_line(user, args, reason):
    with pytest.raises(CommandError) as raised:
        run(*args)

    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.returncode == 1
    assert APIKey.objects.count() == 0


@pytest.mark.parametrize("command", ["show", "usage", "rotate", "retire", "revoke", "delete"])
def test_a_pasted_secret_names_its_key_and_is_not_echoed(issued, command):
    """By its public id, also of one that is no longer the current secret."""
    services.rotate_key(key=issued.key)

    out, err = run(command, issued.secret)

    assert out + err
    assert issued.secret.rpartition("_")[2] not in out + err


def test_a_pasted_secret_of_no_key_is_not_echoed(db):
    secret = generate("rak", "live").secret.reveal()

    with pytest.raises(CommandError, match="There is no key with this id") as raised:
        run("show", secret)

    assert secret not in str(raised.value)


def test_list_shows_masked_keys_the_newest_first(user):
    APIKeyFactory(name="first", owner=user)
    APIKeyFactory(name="second", owner=None)

    out, _err = run("list")

    lines = out.splitlines()
    assert lines[0].split() == ["id", "key", "status", "owner", "name"]
    assert [line.split()[-1] for line in lines[1:]] == ["second", "first"]
    assert "rak_live_" in lines[1]
    assert "ann" in lines[2]


def test_list_is_narrowed_by_owner_status_and_text(user):
    APIKeyFactory(name="wanted", owner=user)
    APIKeyFactory(name="wanted, but dead", owner=user, revoked=True)
    APIKeyFactory(name="wanted by another")
    APIKeyFactory(name="other", owner=user)

    out, _err = run("list", "--owner=ann", "--status=active", "--search=WANTED", "--json")

    assert [key["name"] for key in json.loads(out)] == ["wanted"]


def test_list_leaves_out_what_was_deleted(db):
    APIKeyFactory(deleted=True)

    out, _err = run("list", "--json")

    assert json.loads(out) == []


def test_show_takes_an_id_or_a_public_id(issued):
    by_id, _err = run("show", str(issued.key.pk), "--json")
    by_public_id, _err = run("show", issued.key.current_secret.public_id, "--json")

    assert json.loads(by_id) == json.loads(by_public_id)
    assert json.loads(by_id)["masked"] == issued.key.masked


def test_show_prints_a_line_for_each_field(issued):
    out, _err = run("show", str(issued.key.pk))

    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["name"] == "a key"
    assert lines["owner"] == "ann"
    assert lines["scopes"] == "customers:read"
    assert lines["enabled"] == "true"
    assert lines["expires_at"] == "-"


def test_revoke_ends_a_key_and_keeps_the_reason(issued, client):
    out, err = run("revoke", str(issued.key.pk), "--reason=It leaked.")

    assert out == ""
    assert "Revoked" in err
    assert APIKey.objects.get().revoked_reason == "It leaked."
    assert client.get("/customers/", headers=bearer(issued.secret)).json()["code"] == "revoked_key"


def test_revoke_as_json_is_the_key_as_it_is_now(issued):
    out, _err = run("revoke", issued.key.current_secret.public_id, "--json")

    assert json.loads(out)["status"] == "revoked"


def test_revoke_with_cascade_ends_what_was_made_through_the_key(issued):
    child = APIKeyFactory(created_by_key=issued.key)

    run("revoke", str(issued.key.pk), "--cascade")

    child.refresh_from_db()
    assert child.revoked_at is not None


def test_a_reason_that_is_too_long_revokes_nothing(issued):
    with pytest.raises(CommandError, match="At most 500 characters"):
        run("revoke", str(issued.key.pk), f"--reason={'x' * 501}")

    assert APIKey.objects.get().revoked_at is None


# --- Revoke many --------------------------------------------------------------------------


def many(*args):
    """Return what ``revoke --json`` says, the error that it ends with, and what is on stderr."""
    out, err = io.StringIO(), io.StringIO()
    error = None
    try:
        call_command("apikeys", "revoke", *args, "--json", stdout=out, stderr=err)
    except CommandError as raised:
        error = raised
    return json.loads(out.getvalue()), error, err.getvalue()


def alive():
    return set(APIKey.objects.filter(revoked_at=None))


@pytest.fixture
def family(user):
    """A key of ann, one that she made for another, what was made through that; and one more."""
    APIKeyFactory(name="hers", owner=user)
    made = APIKeyFactory(name="made", created_by=user)
    APIKeyFactory(name="through", created_by_key=made)
    APIKeyFactory(name="other")


WAYS = {
    "owner": (["--owner=ann"], {"hers"}),
    "creator": (["--created-by=ann"], {"made"}),
    "creator, by id": (["--created-by={pk}"], {"made"}),
    "creator, cascade": (["--created-by=ann", "--cascade"], {"made", "through"}),
}


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(("args", "names"), WAYS.values(), ids=WAYS.keys())
def test_revoke_all_keys_of(args, names, user):
    args = [arg.format(pk=user.pk) for arg in args]
    wanted = {str(key.pk) for key in APIKey.objects.filter(name__in=names)}

    foreseen, _error, _err = many(*args, "--dry-run")
    before = len(alive())
    out, err = run("revoke", *args, "--reason=Ann has left.")

    gone = APIKey.objects.filter(revoked_reason="Ann has left.")
    assert (foreseen["dry_run"], set(foreseen["revoked"])) == (True, wanted)
    assert before == 4
    assert {str(key.pk) for key in gone} == wanted
    assert len(alive()) == 4 - len(names)
    assert (out, err) == ("", f"Revoked {len(names)} key{'s' * (len(names) > 1)}.\n")


def test_revoke_as_json_says_which(user):
    keys = APIKeyFactory.create_batch(2, owner=user)
    APIKeyFactory(owner=user, revoked=True)

    said, error, err = many("--owner=ann")

    assert sorted(said.pop("revoked")) == sorted(str(key.pk) for key in keys)
    assert said == {"dry_run": False, "unknown": []}
    assert (error, err) == (None, "")
    event = APIKeyEvent.objects.latest("id")
    assert (event.actor_kind, event.actor_name) == ("command", "manage.py apikeys")


def test_dry_run_says_how_many_and_changes_nothing(user):
    key = APIKeyFactory(owner=user)

    _out, of_owner = run("revoke", "--owner=ann", "--dry-run")
    _out, of_key = run("revoke", str(key.pk), "--dry-run")

    assert of_owner == of_key == "This would revoke 1 key.\n"
    assert alive() == {key}


def test_several_keys_are_revoked_and_an_unknown_one_is_told_by_its_place(issued):
    other, kept = APIKeyFactory.create_batch(2)

    said, error, _err = many(issued.key.current_secret.public_id, "nonsense", str(other.pk))

    assert alive() == {kept}
    assert len(said["revoked"]) == 2
    assert said["unknown"] == [2]
    assert str(error) == "There is no key by this id or public id: KEY 2."
    assert error.returncode == 1


def test_a_file_names_keys_line_by_line(issued, tmp_path):
    """Ids, public ids and secrets; blank lines and comments; a mark of its encoding, CRLF."""
    others = APIKeyFactory.create_batch(3)
    kept = APIKeyFactory()
    file = tmp_path / "leaked.txt"
    lines = [
        "# found on the disk of ann",
        "",
        f"  {others[0].pk}  # the nightly job",
        others[1].current_secret.public_id,
        issued.secret,
        "rak_live_AAAAAAAAAAAA_unknown",
        "\xff\x00",
        str(others[2].pk),
    ]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode("latin-1"))

    said, error, err = many(f"--from-file={file}", "--reason=leaked")

    assert alive() == {kept}
    assert len(said["revoked"]) == 4
    assert said["unknown"] == [6, 7]
    assert str(error) == "There is no key by this id or public id: line 6, 7."
    assert "AAAA" not in f"{said}{error}{err}"


def test_many_unknown_lines_are_cut_where_somebody_reads_them(db, tmp_path):
    file = tmp_path / "keys"
    file.write_text("nonsense\n" * 21, encoding="utf-8")

    said, error, _err = many(f"--from-file={file}")

    assert said["unknown"] == list(range(1, 22))
    assert str(error).endswith(
        "line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, …."
    )


def test_a_minus_is_stdin(issued, monkeypatch):
    text = f"{issued.key.pk}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    run("revoke", "--from-file=-")

    assert alive() == set()


@pytest.mark.parametrize("name", ["nothing-here", "."])
def test_a_file_that_cannot_be_read_is_wrong_usage(name):
    with pytest.raises(CommandError, match=r"--from-file: \[Errno") as raised:
        run("revoke", f"--from-file={name}")

    assert raised.value.returncode == 2


def test_a_pasted_secret_is_revoked_and_not_echoed(issued):
    out, err = run("revoke", issued.secret)

    assert alive() == set()
    assert "Revoked" in err
    assert issued.secret.rpartition("_")[2] not in out + err


def test_revoke_on_a_terminal_shows_how_far_it_is(user):
    APIKeyFactory.create_batch(3, owner=user)
    err = Terminal()

    call_command("apikeys", "revoke", "--owner=ann", stderr=err)

    shown, _, summary = err.getvalue().rpartition("\x1b[K")
    assert "keys       |██████████████████████████████| 3 / 3" in shown
    assert summary == "Revoked 3 keys.\n"


def test_revoke_says_where_keys_are_made_as_fast(user, monkeypatch):
    monkeypatch.setattr("django_apikeys.services.bulk.MOST_LOOKS", 1)
    APIKeyFactory(owner=user)

    _said, error, _err = many("--owner=ann")

    assert str(error) == "Others were made meanwhile: run this again."


def test_a_person_whom_there_is_not_is_told_and_one_without_keys_is_no_error(user):
    with pytest.raises(CommandError, match="There is no user 'bob'"):
        run("revoke", "--created-by=bob")
    with pytest.raises(CommandError, match="There is no owner 'bob'"):
        run("revoke", "--owner=bob")

    assert run("revoke", "--owner=ann") == ("", "Revoked 0 keys.\n")


def test_a_reason_that_is_too_long_revokes_none_of_many(user):
    APIKeyFactory(owner=user)

    with pytest.raises(CommandError, match="At most 500 characters"):
        run("revoke", "--owner=ann", f"--reason={'x' * 501}")

    assert len(alive()) == 1


@pytest.mark.parametrize(
    "args",
    [[], ["--reason=x"], ["AAAAAAAAAAAA", "--owner=ann"], ["--owner=ann", "--created-by=ann"]],
    ids=["no way", "a reason alone", "two ways", "two options"],
)
def test_exactly_one_way_to_say_which_is_needed(args, user):
    APIKeyFactory(owner=user)

    with pytest.raises(CommandError, match=r"is required|not allowed with"):
        run("revoke", *args)

    assert len(alive()) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "args",
    [
        ("create", "--name=x"),
        ("list",),
        ("show", "7Fq2Lm9XcT0a"),
        ("revoke", "7Fq2Lm9XcT0a"),
    ],
    ids=lambda args: args[0],
)
def test_a_database_that_does_not_answer_is_one_line(args):
    with connection.execute_wrapper(away), pytest.raises(CommandError) as error:
        run(*args)

    assert str(error.value) == "The database says: connection failed: Is the server running?"
    assert error.value.returncode == 1


@pytest.mark.django_db
@pytest.mark.parametrize("args", [("create", "--name=x"), ("list",)], ids=lambda args: args[0])
def test_several_owners_by_one_text_are_one_line(args, settings):
    settings.APIKEYS_POLICY = "tests.test_command.CrowdedPolicy"

    with pytest.raises(CommandError) as error:
        run(*args, "--owner=ann")

    assert str(error.value) == "There are several owners 'ann': name one by its id."
    assert APIKey.objects.count() == 0


def test_pattern_is_the_one_of_the_contract(settings):
    assert run("pattern")[0] == r"\brak_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b" + "\n"


def test_pattern_as_json():
    out, _err = run("pattern", "--json")

    assert list(json.loads(out)) == ["pattern"]


def test_the_owner_of_a_line_may_have_any_name(db):
    APIKeyFactory(owner=UserFactory(username="a-very-long-user-name-indeed"), name="x")

    out, _err = run("list")

    assert "a-very-long-user-name-indeed" in out


def in_a_shell(*args):
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "django", "apikeys", *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)},
    )


SHELL = {
    "done": (["pattern"], 0),
    "wrong usage": (["pattern", "--nonsense"], 2),
    "no action": ([], 2),
    "unknown action": (["explode"], 2),
    "unknown status": (["list", "--status=dead"], 2),
    "no way to say which": (["revoke", "--reason=x"], 2),
    "two ways to say which": (["revoke", "AAAAAAAAAAAA", "--owner=ann"], 2),
    "no such file": (["revoke", "--from-file=nothing-here"], 2),
    "no number of days": (["usage", "AAAAAAAAAAAA", "--days=0"], 2),
    "unknown granularity": (["usage", "AAAAAAAAAAAA", "--granularity=week"], 2),
}


@pytest.mark.parametrize(("args", "code"), SHELL.values(), ids=SHELL.keys())
def test_exit_codes(args, code):
    """0, and 2 for wrong usage, as a shell sees them."""
    assert in_a_shell(*args).returncode == code


def test_exit_code_of_a_failed_action():
    """1, with one line on stderr."""
    result = in_a_shell("create", "--name=x", "--scope=nope:read")

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "CommandError: scopes: Unknown scope: 'nope:read'."
    assert result.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ["show", "\udcff"],
        ["revoke", "\udcff"],
        ["revoke", "--created-by=\udcff"],
        ["list", "--owner=\udcff"],
    ],
)
def test_bytes_that_are_no_text_are_said_in_one_line(db, args):
    with pytest.raises(CommandError) as raised:
        run(*args)

    assert "\n" not in str(raised.value)


def test_rotate_prints_the_new_secret_to_stdout_and_all_else_to_stderr(issued, client):
    out, err = run("rotate", str(issued.key.pk), "--reason=Every quarter.")

    assert SECRET.fullmatch(out)
    assert out.strip() not in err
    assert f"The secret before, {issued.key.masked}, works until 20" in err
    for secret in (issued.secret, out.strip()):
        assert client.get("/customers/", headers=bearer(secret)).status_code == 200
    assert APIKeyEvent.objects.latest("id").reason == "Every quarter."


def test_rotate_takes_what_there_is_to_say_of_a_rotation(issued):
    current = issued.key.current_secret.public_id

    _out, err = run(
        "rotate",
        current,
        "--grace-seconds=60",
        "--starts=first_use",
        f"--current={current}",
    )

    assert "works until the new one is used, and then for its grace." in err
    changes = APIKeyEvent.objects.latest("id").changes
    assert (changes["grace_seconds"][1], changes["starts"][1]) == (60, "first_use")


def test_rotate_of_a_secret_that_has_leaked(issued, client):
    _out, err = run("rotate", str(issued.key.pk), "--compromised")

    assert "Every earlier secret has ended." in err
    answer = client.get("/customers/", headers=bearer(issued.secret))
    assert answer.json()["code"] == "retired_secret"


def test_rotate_as_json_is_the_key_with_its_secret(issued, client):
    out, err = run("rotate", str(issued.key.pk), "--json")

    facts = json.loads(out)
    assert err == ""
    assert facts["previous_secret"]["masked"] == issued.key.masked
    assert client.get("/customers/", headers=bearer(facts["secret"])).status_code == 200


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        pytest.param(["--grace-seconds=-1"], "From 0 to 2592000 seconds", id="grace"),
        pytest.param(["--compromised", "--grace-seconds=60"], "has no grace", id="compromised"),
        pytest.param(["--current=another00000"], "is another by now", id="current"),
    ],
)
def test_rotate_that_is_refused_says_why_and_prints_no_secret(args, reason, issued):
    with pytest.raises(CommandError, match=reason):
        run("rotate", str(issued.key.pk), *args)

    assert issued.key.secrets.count() == 1


def test_retire_ends_the_previous_secret(issued, client):
    run("rotate", str(issued.key.pk))

    out, err = run("retire", str(issued.key.pk), "--reason=Nobody sends it.")

    assert out == ""
    assert "Retired the previous secret" in err
    answer = client.get("/customers/", headers=bearer(issued.secret))
    assert answer.json()["code"] == "retired_secret"


def test_retire_as_json_is_the_key_as_it_is_now(issued):
    run("rotate", str(issued.key.pk))

    out, _err = run("retire", str(issued.key.pk), "--json")

    assert json.loads(out)["previous_secret"] is None


def test_retire_where_there_is_nothing_to_retire(issued):
    with pytest.raises(CommandError, match="This key has no previous secret"):
        run("retire", str(issued.key.pk))


def test_delete_takes_a_key_out_of_every_list(issued, client):
    out, err = run("delete", str(issued.key.pk), "--reason=No longer needed.")

    assert out == ""
    assert "Deleted" in err
    assert json.loads(run("list", "--json")[0]) == []
    assert APIKey.objects.get().revoked_reason == "No longer needed."
    assert client.get("/customers/", headers=bearer(issued.secret)).json()["code"] == "revoked_key"


def test_delete_as_json(issued):
    out, _err = run("delete", issued.key.current_secret.public_id, "--json")

    assert json.loads(out) == {"id": str(issued.key.pk), "deleted": True}


def test_peppers_counts_secrets_by_what_they_need(issue, settings):
    settings.APIKEYS_PEPPERS = {"2025": "one"}
    issue()
    issue()
    settings.APIKEYS_PEPPERS = {"2026": "two"}
    issue()

    out, _err = run("peppers")

    assert [line.split() for line in out.splitlines()] == [
        ["2", "2025", "NOT", "CONFIGURED"],
        ["1", "2026"],
    ]


def test_peppers_as_json(issue, settings):
    settings.APIKEYS_PEPPERS = {"2026": "two"}
    issue()

    out, _err = run("peppers", "--json")

    assert json.loads(out) == [{"pepper": "2026", "secrets": 1, "configured": True}]


# --- Usage --------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self):
        return True


class RemoteRecorder:
    """Flushes what all processes have counted."""

    def flush(self):
        return 1234


class BrokenRecorder:
    """Cannot flush."""

    def flush(self):
        raise ConnectionError("no Redis:\n\tConnection refused")


def now_used(key):
    """Store 12 requests of *key* of today, and one of yesterday."""
    now = timezone.now()
    used(key, now, 8)
    used(key, now, 3, route="jobs/", method="POST", outcome="limited")
    used(key, now, 1, route="jobs/", outcome="5xx")
    used(key, now - timedelta(days=1), 3)
    return now


def test_usage_is_a_table_with_bars(issued):
    now = now_used(issued.key)

    out, err = run("usage", str(issued.key.pk), "--days=3")

    today, yesterday, before = (str((now - timedelta(days=ago)).date()) for ago in range(3))
    assert out.splitlines() == [
        f"{issued.key.masked} a key",
        "15 requests  4 errors  0 refused  3 limited",
        "",
        "UTC           requests    errors   limited",
        f"{before}           0         0         0",
        f"{yesterday}           3         0         0  ██████████",
        f"{today}          12         4         3  ████████████████████████████████████████",
        "",
        "  requests    errors  route",
        "        11         0  GET customers/",
        "         3         3  POST jobs/",
        "         1         1  GET jobs/",
    ]
    assert err == ""


def test_usage_of_a_key_that_was_never_used_is_empty(issued):
    out, _err = run("usage", issued.key.current_secret.public_id)

    lines = out.splitlines()
    assert lines[1] == "0 requests  0 errors  0 refused  0 limited"
    assert len(lines) == 4 + 30
    assert all(line.split()[1:] == ["0", "0", "0"] for line in lines[4:])


@pytest.mark.parametrize(
    ("granularity", "length", "least"), [("hour", 16, 25), ("day", 10, 2), ("month", 7, 1)]
)
def test_usage_by(granularity, length, least, issued):
    out, _err = run("usage", str(issued.key.pk), "--days=2", f"--granularity={granularity}")

    rows = out.splitlines()[4:]
    assert len(rows) >= least
    assert {len(row.split()[0]) for row in rows} == {length}
    assert rows[-1].startswith(f"{timezone.now():%Y-%m}")


def test_usage_shows_the_ten_routes_with_the_most_requests(issued):
    for number in range(11):
        used(issued.key, timezone.now(), 1 + number, route=f"r{number}/")

    out, _err = run("usage", str(issued.key.pk), "--days=1")

    routes = [line.split()[-1] for line in out.splitlines() if line.endswith("/")]
    assert routes == [f"r{number}/" for number in range(10, 0, -1)]


def test_usage_as_json_is_the_report(issued):
    now_used(issued.key)

    out, _err = run("usage", str(issued.key.pk), "--days=7", "--json")

    report = json.loads(out)
    assert list(report) == ["totals", "series", "by_route", "by_status", "by_ip"]
    assert report["totals"] == {"requests": 15, "errors": 4, "refused": 0, "limited": 3}
    assert len(report["series"]) == 7


def test_usage_where_no_blocks_can_be_shown(issued):
    used(issued.key, timezone.now())
    raw = io.BytesIO()
    # The masked form has an ellipsis.
    stream = io.TextIOWrapper(raw, encoding="cp1252")

    call_command("apikeys", "usage", str(issued.key.pk), "--days=1", stdout=stream)
    stream.flush()

    assert b"  " + b"#" * 40 + b"\n" in raw.getvalue()


def test_usage_of_too_many_hours_is_one_line(issued):
    with pytest.raises(CommandError) as raised:
        run("usage", str(issued.key.pk), "--days=100", "--granularity=hour")

    assert str(raised.value) == (
        "from: There would be more than 1000 rows: narrow the span, or widen granularity."
    )


def test_usage_of_a_key_that_is_none_is_one_line(db):
    with pytest.raises(CommandError, match="There is no key"):
        run("usage", "AAAAAAAAAAAA")


@pytest.mark.parametrize("days", ["0", "-1", "1.5", "ten", "36601", "9" * 5000, "٣", ""])
def test_days_that_are_no_number_are_wrong_usage(days):
    with pytest.raises(CommandError, match="a whole number from 1 to 36600 is needed"):
        run("usage", "AAAAAAAAAAAA", f"--days={days}")


# --- Flush --------------------------------------------------------------------------------


@pytest.mark.usefixtures("counting")
def test_flush_says_that_each_process_flushes_itself(issued):
    hit = used(issued.key, timezone.now())
    conf.usage_recorder.count(hit)

    out, err = run("flush")

    # The totals of key and secret, a row of usage, and the owner's month.
    assert err.splitlines()[0] == "Flushed 4 rows."
    assert "nothing of another could be flushed here" in err
    assert out == ""
    assert APIKeyTotals.objects.get().requests == 2


def test_flush_of_a_recorder_for_all_processes(settings):
    settings.APIKEYS_USAGE_RECORDER = "tests.test_command.RemoteRecorder"

    assert run("flush") == ("", "Flushed 1,234 rows.\n")


def test_flush_as_json(settings):
    settings.APIKEYS_USAGE_RECORDER = "tests.test_command.RemoteRecorder"

    assert json.loads(run("flush", "--json")[0]) == {"rows": 1234}


def test_flush_that_fails_is_one_line(settings):
    settings.APIKEYS_USAGE_RECORDER = "tests.test_command.BrokenRecorder"

    with pytest.raises(CommandError) as raised:
        run("flush")

    assert str(raised.value) == "Nothing could be flushed: no Redis: Connection refused"


@pytest.mark.usefixtures("counting")
def test_flush_while_the_database_is_away_is_one_line(issued):
    hit = used(issued.key, timezone.now())
    conf.usage_recorder.count(hit)

    with connection.execute_wrapper(away), pytest.raises(CommandError) as raised:
        run("flush")

    assert str(raised.value).startswith("The database says: connection failed: Is the server")


# --- Prune --------------------------------------------------------------------------------


@pytest.fixture
def old(issued):
    """Three hours of long ago, and an address."""
    for hour in range(3):
        at = timezone.now().replace(hour=hour) - timedelta(days=60)
        used(issued.key, at, address="192.0.2.7")
    return issued.key


@pytest.mark.usefixtures("old")
def test_prune_says_what_it_was(settings):
    settings.APIKEYS_USAGE_HOURLY_DAYS = 14

    out, err = run("prune")

    assert out == ""
    assert err.splitlines() == [
        "Pruned:",
        "           0  keys deleted more than 90 days ago",
        "           0  secrets retired more than 365 days ago",
        "           0  texts kept of secrets that have ended",
        "           0  counters of keys that are gone",
        "           0  rows of usage older than 730 days",
        "           3  rows of usage by the hour older than 14 days, rolled into days",
        "           0  addresses not seen for 730 days",
        "           0  ids of flushes older than 7 days",
    ]
    assert [row.hours for row in APIKeyUsage.objects.all()] == [24]


@pytest.mark.usefixtures("old")
def test_dry_run_says_what_it_would_be_and_changes_nothing():
    _out, err = run("prune", "--dry-run")

    assert err.splitlines()[0] == "This would be pruned:"
    assert "           3  rows of usage by the hour" in err
    assert [row.hours for row in APIKeyUsage.objects.all()] == [1, 1, 1]


@pytest.mark.parametrize(("args", "dry_run"), [((), False), (("--dry-run",), True)])
@pytest.mark.usefixtures("old")
def test_prune_as_json(args, dry_run):
    out, err = run("prune", "--json", *args)

    assert json.loads(out) == {
        "dry_run": dry_run,
        "keys": 0,
        "secrets": 0,
        "texts": 0,
        "counters": 0,
        "usage": 0,
        "hours": 3,
        "addresses": 0,
        "batches": 0,
    }
    assert err == ""


@pytest.mark.usefixtures("old")
def test_prune_on_a_terminal_shows_how_far_it_is():
    err = Terminal()

    call_command("apikeys", "prune", stderr=err)

    shown, _, summary = err.getvalue().rpartition("\x1b[K")
    assert "hours      |██████████████████████████████| 3 / 3" in shown
    assert summary.startswith("Pruned:\n")


def test_prune_while_the_database_is_away_is_one_line(db):
    with connection.execute_wrapper(away), pytest.raises(CommandError) as raised:
        run("prune")

    assert str(raised.value) == "The database says: connection failed: Is the server running?"


@pytest.fixture
def expired(user):
    """Two keys of Ann that have expired."""
    at = timezone.now() - timedelta(hours=1)
    return [APIKeyFactory(owner=user, name=name, expires_at=at) for name in ("one", "two")]


@pytest.mark.usefixtures("expired")
def test_notify_says_how_many_were_told_of_what(mailoutbox):
    out, err = run("notify")

    assert out == ""
    assert err.splitlines() == [
        "Sent:",
        "           0  that a key expires in 30 days",
        "           0  that it expires in 7 days",
        "           0  that it expires in a day",
        "           2  that it has expired",
        "           0  that it is not used",
        "           0  that its secret is due for rotation",
    ]
    assert [mail.to for mail in mailoutbox] == [["ann@example.com"]] * 2
    assert "           0  that it has expired" in run("notify")[1]


def test_dry_run_of_notify_lists_what_would_be_sent_and_claims_nothing(expired, mailoutbox):
    out, err = run("notify", "--dry-run")

    assert sorted(out.splitlines()) == sorted(
        f"expired        {key.pk}  {key.name}" for key in expired
    )
    assert err.splitlines()[0] == "This would be sent:"
    assert "           2  that it has expired" in err
    assert mailoutbox == []
    assert not APIKeyNotice.objects.exists()


def test_notify_as_json(expired):
    key = APIKey.objects.order_by("pk").first()
    counts = {
        "expires_in_30": 0,
        "expires_in_7": 0,
        "expires_in_1": 0,
        "expired": 2,
        "unused": 0,
        "rotation_due": 0,
    }

    listed = json.loads(run("notify", "--dry-run", "--json")[0])
    sent, err = run("notify", "--json")

    notices = listed.pop("notices")
    assert listed == {"dry_run": True, **counts}
    assert len(notices) == 2
    assert notices[0] == {
        "kind": "expired",
        "key": {"id": str(key.pk), "name": key.name},
        "about": f"{key.expires_at:%Y-%m-%dT%H:%M:%SZ}",
    }
    assert (json.loads(sent), err) == ({"dry_run": False, **counts, "failed": 0}, "")


class ConfusedPolicy(UserPolicy):
    """Knows nobody to tell of a key called two."""

    def notice_recipients(self, key):
        return {"one": ["ann@example.com"]}[key.name]


@pytest.mark.usefixtures("expired")
def test_notify_fails_where_one_could_not_be_sent(mailoutbox, settings):
    """It says so once the others are sent."""
    settings.APIKEYS_POLICY = "tests.test_command.ConfusedPolicy"
    out, err = io.StringIO(), io.StringIO()

    with pytest.raises(CommandError) as raised:
        call_command("apikeys", "notify", "--json", stdout=out, stderr=err)

    assert str(raised.value) == (
        "1 could not be sent: the log says why. A run in an hour or later tries again."
    )
    assert (json.loads(out.getvalue())["expired"], json.loads(out.getvalue())["failed"]) == (1, 1)
    assert len(mailoutbox) == 1


def test_notify_while_the_database_is_away_is_one_line(db):
    with connection.execute_wrapper(away), pytest.raises(CommandError) as raised:
        run("notify")

    assert str(raised.value) == "The database says: connection failed: Is the server running?"


# --- An output that takes nothing more ---------------------------------------------------------


@pytest.fixture
def full():
    """A device that has no space left."""
    with open("/dev/full", "w", encoding="utf-8") as file:  # noqa: PTH123 - and no path of ours
        yield file
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


@pytest.fixture
def unread():
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as file:
        yield file
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


@pytest.mark.parametrize(
    ("output", "message"), [("full", "No space left on device"), ("unread", "Broken pipe")]
)
def test_failing_output_is_an_error_of_one_line(request, output, message):
    with pytest.raises(CommandError, match=f"^stdout: {message}$"):
        call_command("apikeys", "pattern", stdout=request.getfixturevalue(output))


def test_failing_output_of_a_list_is_one_too(full, user):
    """More than is kept back before it is written."""
    APIKeyFactory.create_batch(20, owner=user, description="x" * 1000)

    with pytest.raises(CommandError, match=r"^stdout: No space left on device$"):
        call_command("apikeys", "list", "--json", stdout=full)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        pytest.param("full", "CommandError: stdout: No space left on device\n", id="full"),
        pytest.param("unread", "", id="a reader who has seen enough"),
    ],
)
def test_failing_output_is_not_tried_again_at_the_end(request, capfd, output, said):
    stream = request.getfixturevalue(output)

    with pytest.raises(SystemExit) as end:
        Command(stdout=stream).run_from_argv(["manage.py", "apikeys", "pattern"])
    stream.flush()

    assert end.value.code == 1
    assert capfd.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("redirection", "expected"),
    [
        (">/dev/full", (1, "CommandError: stdout: No space left on device\n")),
        ("| sleep 0; exit ${PIPESTATUS[0]}", (1, "")),
    ],
    ids=["full", "closed"],
)
def test_failing_output_in_a_shell(redirection, expected):
    # The second reads nothing: it is gone before there is something to read.
    done = subprocess.run(  # noqa: S603 - our own command
        [
            "/bin/bash",
            "-c",
            f"{sys.executable} -m django apikeys pattern {redirection}",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)},
    )

    assert (done.returncode, done.stderr) == expected


# --- What may stand on a terminal --------------------------------------------------------------


@pytest.mark.parametrize("command", ["usage", "show", "list"])
def test_control_characters_are_written_out(issued, command):
    now = timezone.now()
    APIKey.objects.update(name="Cron\x1b[2J\nforged")
    used(issued.key, now.replace(minute=0, second=0, microsecond=0), route="a\x1b]0;b\x07/\n")

    out, _err = run(command, *([] if command == "list" else [str(issued.key.pk)]))

    assert "Cron\\x1b[2J\\nforged" in out
    assert ("a\\x1b]0;b\\x07/\\n" in out) == (command == "usage")
    assert "\x1b" not in out
