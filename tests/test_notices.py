"""Notices: who is told of what, once; and what happens where telling fails."""

import re
from datetime import timedelta
from smtplib import SMTPRecipientsRefused

import django
import pytest
from django.core.mail.backends import locmem
from django.db import connection, transaction
from django.template import TemplateDoesNotExist
from django.utils import timezone, translation

from django_apikeys import mails, notices, services, signals
from django_apikeys.models import (
    APIKey,
    APIKeyEvent,
    APIKeyNotice,
    APIKeySecret,
    APIKeyTotals,
)
from django_apikeys.policy import UserPolicy
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory
from tests.traffic import utc

NOW = utc(2026, 11, 20, 10, 37)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = {
    "expires_in_30": 0,
    "expires_in_7": 0,
    "expires_in_1": 0,
    "expired": 0,
    "unused": 0,
    "rotation_due": 0,
}


class ChoosyBackend(locmem.EmailBackend):
    """Takes no message for whoever bounces."""

    def send_messages(self, messages):
        for message in messages:
            if message.to[0].startswith("bounce"):
                raise SMTPRecipientsRefused({message.to[0]: (550, b"unknown")})
        return super().send_messages(messages)


class NamedPolicy(UserPolicy):
    """Whom the key's metadata names is told."""

    def notice_recipients(self, key):
        return key.metadata["to"]


def made(days=100, *, rotated=0, used=0, expires=None, **fields):
    """Return a key that was made, rotated and used so many days ago, and expires in so many."""
    at = NOW - days * DAY
    expires_at = None if expires is None else NOW + expires * DAY
    key = APIKeyFactory(**{"created_at": at, "expires_at": expires_at, **fields})
    APIKeySecret.objects.filter(key=key).update(created_at=NOW - rotated * DAY)
    if used is not None:
        APIKeyTotals.objects.create(key=key, requests=1, last_used_at=NOW - used * DAY)
    return key


def two(**fields):
    """Return two keys as ``made``, in the order in which a run comes to them."""
    for _ in range(2):
        made(**fields)
    # Of the database: MariaDB has an order of UUIDs of its own.
    return list(APIKey.objects.order_by("pk"))


def sent(now=NOW):
    """Send what is due at *now*; return how many of each kind, without those that are none."""
    done = notices.send_due(now)
    assert done.failed == 0
    return {kind: count for kind, count in done.counts.items() if count}


def use(key, at):
    APIKeyTotals.objects.update_or_create(key=key, defaults={"last_used_at": at})


@pytest.fixture
def told():
    """What the signal has told: key, kind and about."""
    heard = []

    def receiver(key, kind, about, **kwargs):
        heard.append((key, kind, about))

    signals.key_notice.connect(receiver)
    yield heard
    signals.key_notice.disconnect(receiver)


@pytest.fixture
def meanwhile():
    """Let something happen after the first notice of a run, once."""
    waiting = []

    def receiver(**kwargs):
        while waiting:
            waiting.pop()()

    signals.key_notice.connect(receiver)
    yield waiting.append
    signals.key_notice.disconnect(receiver)


@pytest.fixture
def choosy(settings):
    """A backend that refuses some; Django knows it by another setting from 6.1 on."""
    path = "tests.test_notices.ChoosyBackend"
    name, value = ("EMAIL_BACKEND", path)
    mailers = {"default": {"BACKEND": path}}
    setattr(settings, *(("MAILERS", mailers) if django.VERSION >= (6, 1) else (name, value)))


@pytest.fixture
def in_utc(settings):
    settings.TIME_ZONE = "UTC"


@pytest.fixture
def to(settings):
    """Make a key of which these addresses are told, and which has expired."""
    settings.APIKEYS_POLICY = "tests.test_notices.NamedPolicy"
    return lambda addresses, **fields: made(expires=-1, metadata={"to": addresses}, **fields)


# --- What is due --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "expires", "expected"),
    [
        pytest.param(100, 30.001, None, id="more than a month"),
        pytest.param(100, 30, "expires_in_30", id="a month"),
        pytest.param(100, 7.001, "expires_in_30", id="more than a week"),
        pytest.param(100, 7, "expires_in_7", id="a week"),
        pytest.param(100, 1.001, "expires_in_7", id="more than a day"),
        pytest.param(100, 1, "expires_in_1", id="a day"),
        pytest.param(100, 0.001, "expires_in_1", id="a minute"),
        pytest.param(100, 0, "expired", id="now"),
        pytest.param(100, -6.999, "expired", id="within a week"),
        pytest.param(100, -7, None, id="a week ago"),
        pytest.param(0, 30, "expires_in_30", id="made for a month"),
        pytest.param(0.001, 30, "expires_in_30", id="made for more than a month"),
        pytest.param(0, 10, "expires_in_30", id="made for ten days"),
        pytest.param(5, 5, "expires_in_7", id="made for ten days, five of them over"),
        pytest.param(0, 3, "expires_in_7", id="made for three days"),
        pytest.param(2.5, 0.5, "expires_in_1", id="made for three days, the last of them"),
        pytest.param(0.2, 0.3, "expires_in_1", id="made for twelve hours"),
        pytest.param(0.5, 0, "expired", id="made for twelve hours, which are over"),
    ],
)
def test_expiry_is_told_of_by_the_nearest_mark(db, days, expires, expected):
    made(days, expires=expires)

    assert sent() == ({expected: 1} if expected else {})


def test_life_of_a_key_is_told_once_at_each_mark(db, told):
    key = made(10, expires=40)

    for hour in range(0, 24 * 60, 6):
        sent(NOW + hour * HOUR)
        use(key, NOW + hour * HOUR)

    assert [kind for _key, kind, _about in told] == [
        "expires_in_30",
        "expires_in_7",
        "expires_in_1",
        "expired",
    ]
    assert {about for _key, _kind, about in told} == {"2026-12-30T10:37:00Z"}


def test_later_marks_follow_where_no_run_was_made_for_a_while(db):
    made(expires=30)

    assert sent(NOW + 25 * DAY) == {"expires_in_7": 1}
    assert sent(NOW + 26 * DAY) == {}


def test_changed_expiry_is_told_of_anew(db, told):
    key = made(expires=5)
    sent()

    # Written to the row: the service judges it by the clock.
    APIKey.objects.filter(pk=key.pk).update(expires_at=NOW + 6 * DAY)

    assert sent() == {"expires_in_7": 1}
    assert sent() == {}
    assert [about for _key, _kind, about in told] == [
        "2026-11-25T10:37:00Z",
        "2026-11-26T10:37:00Z",
    ]


def test_expiry_is_compared_as_it_is_stored_with_its_fraction(db):
    """It is cut to the second, and never rounded to the next."""
    key = made(expires_at=utc(2026, 11, 21, 0, 59, 59, 999_999))

    assert sent() == {"expires_in_1": 1}
    assert sent() == {}
    assert key.notices.get().about == "2026-11-21T00:59:59Z"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, {"unused": 1, "rotation_due": 1}, id="active"),
        pytest.param({"enabled": False}, {}, id="disabled"),
        pytest.param({"revoked_at": NOW}, {}, id="revoked"),
        pytest.param({"revoked_at": NOW, "deleted_at": NOW}, {}, id="deleted"),
        pytest.param({"expires": -8}, {}, id="expired long ago"),
        pytest.param({"expires": 5, "revoked_at": NOW}, {}, id="expiring, revoked"),
        pytest.param({"expires": -1, "revoked_at": NOW}, {}, id="expired, revoked"),
        pytest.param({"expires": 5, "enabled": False}, {"expires_in_7": 1}, id="disabled, dies"),
        pytest.param({"expires": -1, "enabled": False}, {"expired": 1}, id="disabled, dead"),
    ],
)
def test_what_is_told_of_a_key_that_is(db, fields, expected):
    made(100, rotated=100, used=100, **fields)

    assert sent() == expected


@pytest.mark.parametrize(
    ("days", "setting", "expected"),
    [
        (90, 90, {"rotation_due": 1}),
        (89.999, 90, {}),
        (10, 10, {"rotation_due": 1}),
        (100, 36_600, {}),
    ],
)
def test_rotation_is_due_after_so_many_days(db, settings, days, setting, expected):
    settings.APIKEYS_ROTATION_DAYS = setting
    made(rotated=days)

    assert sent() == expected


def test_rotation_is_due_again_of_the_next_secret(db, told):
    key = made(rotated=90)
    first = key.current_secret
    sent()

    first.slot = 1
    first.save()
    APIKeySecretFactory(key=key, created_at=NOW)
    at_once = sent(NOW + 2 * HOUR)
    use(key, NOW + 90 * DAY)

    assert at_once == {}
    assert sent(NOW + 90 * DAY) == {"rotation_due": 1}
    assert [about for _key, _kind, about in told] == [
        first.public_id,
        key.secrets.get(slot=0).public_id,
    ]


@pytest.mark.parametrize(
    ("days", "used", "expected"),
    [
        pytest.param(100, 90, {"unused": 1}, id="used long ago"),
        pytest.param(100, 89.999, {}, id="used since"),
        pytest.param(90, None, {"unused": 1}, id="never used"),
        pytest.param(89.999, None, {}, id="never used, and young"),
        pytest.param(10, 100, {}, id="used before it was made, as an imported one"),
    ],
)
def test_key_is_unused_after_ninety_days(db, days, used, expected):
    made(days, used=used)

    assert sent() == expected


def test_unused_days_are_a_setting(db, settings):
    settings.APIKEYS_UNUSED_DAYS = 10
    made(used=10)

    assert sent() == {"unused": 1}


def test_unused_keys_are_nobodys_business_where_the_setting_is_none(db, settings):
    settings.APIKEYS_UNUSED_DAYS = None
    made(used=None)

    assert sent() == {}


def test_key_that_is_used_again_and_left_again_is_told_of_again(db, told):
    key = made(days=200, used=100)

    first = sent()
    use(key, NOW)

    assert first == {"unused": 1}
    assert sent(NOW + 89 * DAY) == {}
    APIKeySecret.objects.update(created_at=NOW + 89 * DAY)
    assert sent(NOW + 90 * DAY) == {"unused": 1}
    assert [about for _key, _kind, about in told] == [
        "2026-08-12T10:37:00Z",
        "2026-11-20T10:37:00Z",
    ]


def test_key_that_was_used_but_never_counted_is_not_called_unused(db, settings):
    """As all are where the middleware is missing: to disable them would end the service."""
    settings.APIKEYS_UNUSED_ACTION = "disable"
    key = made(used=None)
    APIKeySecret.objects.update(first_used_at=NOW - 95 * DAY)

    assert sent() == {}
    assert APIKey.objects.get(pk=key.pk).enabled is True


# --- Disabled for not being used ----------------------------------------------------------


@pytest.fixture
def disabling(settings):
    settings.APIKEYS_UNUSED_ACTION = "disable"


@pytest.mark.usefixtures("disabling")
def test_unused_key_is_disabled_and_then_told_of(db, told, mailoutbox):
    key = made(used=100, rotated=100, name="Cron")

    assert sent() == {"unused": 1}

    assert APIKey.objects.get(pk=key.pk).enabled is False
    event = APIKeyEvent.objects.get()
    assert (event.type, event.actor_kind) == ("updated", "system")
    assert event.changes == {"enabled": [True, False]}
    ((heard, kind, about),) = told
    assert (heard.pk, heard.enabled, kind) == (key.pk, False, "unused")
    assert about == "2026-08-12T10:37:00Z disabled"
    assert mailoutbox[0].subject == "API key “Cron” is disabled: it was not used"
    assert "It is disabled now" in mailoutbox[0].body
    assert "enable it again" in mailoutbox[0].body


@pytest.mark.usefixtures("disabling")
def test_key_that_is_enabled_again_is_let_alone(db):
    key = made(used=100)
    sent()

    services.update_key(key=key, enabled=True)

    assert sent(NOW + DAY) == {}
    assert APIKey.objects.get(pk=key.pk).enabled is True


def test_key_that_was_told_of_is_disabled_once_the_setting_says_so(db, settings):
    key = made(used=100)
    told_of = sent()
    settings.APIKEYS_UNUSED_ACTION = "disable"

    assert (told_of, sent()) == ({"unused": 1}, {"unused": 1})
    assert APIKey.objects.get(pk=key.pk).enabled is False


@pytest.mark.usefixtures("disabling")
def test_key_that_is_used_while_the_run_comes_to_it_stays_enabled(db, meanwhile):
    keys = two(used=100)
    meanwhile(lambda: use(keys[1], NOW))

    assert sent() == {"unused": 1}
    assert APIKey.objects.get(pk=keys[1].pk).enabled is True
    assert not keys[1].notices.exists()


@pytest.mark.usefixtures("disabling")
def test_key_that_is_revoked_the_moment_it_is_to_be_disabled_is_passed_over(db, monkeypatch):
    key, update = made(used=100), services.update_key

    def too_late(**kwargs):
        services.revoke_key(key=key)
        return update(**kwargs)

    monkeypatch.setattr(services, "update_key", too_late)

    assert sent() == {}
    assert not key.notices.exists()


@pytest.mark.usefixtures("disabling")
def test_key_whose_run_died_after_it_was_disabled_is_told_of(db, told):
    key = made(used=100, enabled=False)
    about = "2026-08-12T10:37:00Z disabled"
    key.notices.create(kind="unused", about=about, claimed_at=NOW - HOUR)

    assert sent() == {"unused": 1}
    assert [kind for _key, kind, _about in told] == ["unused"]


@pytest.mark.usefixtures("disabling")
def test_key_that_somebody_else_has_disabled_is_not_told_of(db):
    made(used=100, enabled=False)

    assert sent() == {}


# --- Claims -------------------------------------------------------------------------------


def test_notice_is_claimed_sent_and_marked(db, told):
    key = made(expires=-1)

    assert sent() == {"expired": 1}

    row = key.notices.get()
    assert (row.kind, row.about) == ("expired", "2026-11-19T10:37:00Z")
    assert NOW <= row.claimed_at <= row.sent_at < NOW + HOUR
    assert [(heard.pk, kind) for heard, kind, _about in told] == [(key.pk, "expired")]
    assert str(row) == f"expired {key.pk}"


def test_notice_is_sent_once(db, mailoutbox):
    made(expires=-1)

    assert [sent(NOW + n * HOUR) for n in range(4)] == [{"expired": 1}, {}, {}, {}]
    assert len(mailoutbox) == 1


@pytest.mark.parametrize(
    ("minutes", "expected"), [(55, {"expired": 1}), (54.99, {})], ids=["by then", "before"]
)
def test_claim_of_another_run_is_taken_over_after_55_minutes(db, minutes, expected):
    key = made(expires=-1)
    at = NOW - timedelta(minutes=minutes)
    key.notices.create(kind="expired", about="2026-11-19T10:37:00Z", claimed_at=at)

    assert sent() == expected


def test_what_a_run_left_is_sent_by_that_of_the_next_hour(db):
    """It had begun at 10:17:01 and come to the key at 10:17:03."""
    key = made(expires=-1)
    at = utc(2026, 11, 20, 10, 17, 3)
    key.notices.create(kind="expired", about="2026-11-19T10:37:00Z", claimed_at=at)

    assert sent(utc(2026, 11, 20, 11, 17, 2)) == {"expired": 1}


@pytest.mark.parametrize("ago", [timedelta(0), 2 * HOUR], ids=["new", "taken over"])
def test_notice_that_another_run_claims_in_between_is_left_to_it(db, told, meanwhile, ago):
    keys = two(expires=-1)
    rows = keys[1].notices
    names = {"kind": "expired", "about": "2026-11-19T10:37:00Z"}
    rows.bulk_create([APIKeyNotice(key=keys[1], **names, claimed_at=NOW - ago)] if ago else [])
    meanwhile(lambda: rows.update_or_create(**names, defaults={"claimed_at": NOW}))

    assert sent() == {"expired": 1}
    assert [key.pk for key, _kind, _about in told] == [keys[0].pk]
    assert rows.get().claimed_at == NOW
    assert rows.get().sent_at is None


def test_key_that_is_revoked_while_the_run_comes_to_it_is_passed_over(db, meanwhile):
    keys = two(expires=-1)
    meanwhile(lambda: services.revoke_key(key=keys[1]))

    assert sent() == {"expired": 1}
    assert not keys[1].notices.exists()


@pytest.mark.django_db(transaction=True)
def test_key_that_is_gone_when_the_run_comes_to_it_is_passed_over(meanwhile):
    keys = two(expires=-1)
    meanwhile(keys[1].delete)

    assert sent() == {"expired": 1}


@pytest.mark.django_db(transaction=True)
def test_notices_are_not_sent_in_a_transaction(mailoutbox):
    """Nobody would see its claims; and where it is rolled back, all would be sent again."""
    made(expires=-1)

    with transaction.atomic(), pytest.raises(RuntimeError):
        notices.send_due(NOW)

    assert mailoutbox == []


@pytest.mark.django_db(transaction=True)
def test_claims_are_committed_where_autocommit_is_off():
    made(expires=-1)
    connection.set_autocommit(False)

    try:
        assert sent() == {"expired": 1}
        connection.rollback()
        assert APIKeyNotice.objects.filter(sent_at__isnull=False).count() == 1
    finally:
        connection.set_autocommit(True)


def test_late_claim_of_a_long_run_is_not_old(monkeypatch):
    seconds = iter([50.0, 50.0 + 2 * 3600])
    monkeypatch.setattr(notices.time, "monotonic", lambda: next(seconds))

    assert notices._clock(NOW)() == NOW + 2 * HOUR


def test_due_is_what_would_be_sent_and_claims_nothing(db):
    key = made(expires=5, name="Cron")

    found = list(notices.due(NOW))

    assert found == [notices.Notice("expires_in_7", key.pk, "Cron", "2026-11-25T10:37:00Z")]
    assert not APIKeyNotice.objects.exists()
    sent()
    assert list(notices.due(NOW)) == []


# --- What it costs ------------------------------------------------------------------------


@pytest.mark.parametrize("most", [2, 3, 500])
def test_keys_are_looked_up_some_at_a_time(db, monkeypatch, most):
    monkeypatch.setattr(notices, "MOST_ROWS", most)
    for _ in range(4):
        made(expires=-1)

    assert sent() == {"expired": 4}
    assert sent() == {}


def test_keys_of_which_nothing_is_due_cost_no_queries(db, monkeypatch, settings):
    """One for each kind, however many there are; those that were told of are among them."""
    settings.APIKEYS_UNUSED_ACTION = "disable"
    monkeypatch.setattr(notices, "MOST_ROWS", 2)
    counts = []

    def count(execute, sql, *args):
        counts[-1] += sql.startswith("SELECT")
        return execute(sql, *args)

    for _ in range(3):
        for expires in (None, 60, 20, 5, 0.5, -1, -20):
            made(expires=expires, rotated=100)
        made(used=100)
        sent()
        counts.append(0)
        with connection.execute_wrapper(count):
            assert sent() == {}

    assert counts == [6, 6, 6]


def test_only_the_primary_database_is_asked(db, settings):
    """The replica of this router is none."""
    made(expires=-1)
    settings.DATABASE_ROUTERS = ["tests.test_replica.ReplicaOfAll"]

    assert sent() == {"expired": 1}


# --- The signal ---------------------------------------------------------------------------


def test_signal_is_sent_of_a_key_of_nobody_as_well(db, told, mailoutbox):
    made(expires=-1, owner=None)

    assert sent() == {"expired": 1}
    assert [kind for _key, kind, _about in told] == ["expired"]
    assert mailoutbox == []


def test_receiver_that_raises_breaks_nothing(db, mailoutbox):
    made(expires=-1)

    def receiver(**kwargs):
        raise ValueError("a receiver")

    signals.key_notice.connect(receiver)
    try:
        assert sent() == {"expired": 1}
    finally:
        signals.key_notice.disconnect(receiver)
    assert len(mailoutbox) == 1


# --- E-mail -------------------------------------------------------------------------------


MAILS = {
    "expires_in_30": (
        {"expires": 20},
        "API key “Cron” expires on Dec. 10, 2026, 10:37 a.m. UTC",
        "The API key “Cron” expires on Dec. 10, 2026, 10:37 a.m. UTC.",
    ),
    "expires_in_7": (
        {"expires": 5},
        "API key “Cron” expires on Nov. 25, 2026, 10:37 a.m. UTC",
        "give it a later expiry",
    ),
    "expires_in_1": (
        {"expires": 1},
        "API key “Cron” expires on Nov. 21, 2026, 10:37 a.m. UTC",
        "put another key in its place before then",
    ),
    "expired": (
        {"expires": -1},
        "API key “Cron” has expired",
        "The API key “Cron” expired on Nov. 19, 2026, 10:37 a.m. UTC.",
    ),
    "unused": (
        {"used": 100},
        "API key “Cron” is not used",
        "was last used on Aug. 12, 2026, 10:37 a.m. UTC, more than 90 days ago.",
    ),
    "rotation_due": (
        {"rotated": 100},
        "API key “Cron” is due for rotation",
        "was made on Aug. 12, 2026, 10:37 a.m. UTC, more than 90 days ago.",
    ),
}


@pytest.mark.usefixtures("in_utc")
@pytest.mark.parametrize("kind", MAILS)
def test_mail_says_what_it_is_about(db, mailoutbox, kind):
    fields, subject, line = MAILS[kind]
    key = made(name="Cron", owner=UserFactory(username="ann"), **fields)

    assert sent() == {kind: 1}

    (mail,) = mailoutbox
    assert mail.subject == subject
    assert line in mail.body
    assert mail.body.splitlines()[2:6] == [
        "Key: Cron",
        f"Secret: {key.masked}",
        "Environment: live",
        "Owner: ann",
    ]
    assert mail.to == ["ann@example.com"]
    assert mail.extra_headers == {"Auto-Submitted": "auto-generated"}


def test_each_kind_has_its_mail():
    assert list(MAILS) == list(notices.KINDS)


@pytest.mark.usefixtures("in_utc")
def test_mail_of_a_key_that_was_never_used(db, mailoutbox):
    made(used=None, name="Cron")
    sent()

    assert "was made on Aug. 12, 2026, 10:37 a.m. UTC" in mailoutbox[0].body
    assert "was never used." in mailoutbox[0].body


def test_mail_of_a_key_without_a_name_or_a_secret(db, mailoutbox, to):
    """Rows that no service makes are told of, too."""
    key = to(["ann@example.com"], name="", owner=None, used=None)
    bare = to(["bob@example.com"], name="Bare", secret_row=None)
    sent()

    subjects = {mail.to[0]: mail.subject for mail in mailoutbox}
    assert subjects["ann@example.com"] == f"API key “{key.masked}” has expired"
    assert subjects["bob@example.com"] == "API key “Bare” has expired"
    assert bare.masked == ""


def test_mail_has_no_secret(issue, mailoutbox):
    issued = issue(name="Cron")
    APIKey.objects.update(expires_at=NOW, created_at=NOW - DAY)
    sent()

    text = mailoutbox[0].message().as_string() + mailoutbox[0].body
    secret = issued.key.current_secret
    assert issued.secret not in text
    assert secret.digest not in text
    assert secret.public_id not in text


def test_mail_is_in_the_time_zone_and_the_language_of_the_project(db, mailoutbox, settings):
    """Not in those of whoever happens to be served."""
    settings.TIME_ZONE = "Europe/Berlin"
    settings.LANGUAGE_CODE = "de"
    made(expires=-1, name="Cron")

    with timezone.override("Asia/Tokyo"), translation.override("fr"):
        sent()

    assert mailoutbox[0].subject == "API-Schlüssel „Cron“ ist abgelaufen"
    assert "am 19. November 2026 11:37 CET abgelaufen" in mailoutbox[0].body


@pytest.mark.parametrize(
    ("project", "said"),
    [
        (("en", 1), "more than 1 day ago"),
        (("en", 2), "more than 2 days ago"),
        (("de", 1), "vor mehr als 1 Tag"),
        (("de", 21), "vor mehr als 21 Tagen"),
        (("fr", 1), "il y a plus de 1 jour"),
        (("fr", 21), "il y a plus de 21 jours"),
        (("es", 1), "hace más de 1 día"),
        (("es", 21), "hace más de 21 días"),
    ],
)
def test_mail_counts_days_as_its_language_does(project, said, db, mailoutbox, settings):
    settings.LANGUAGE_CODE, settings.APIKEYS_ROTATION_DAYS = project
    made(rotated=project[1])
    sent()

    assert re.search(rf"{said}\b", mailoutbox[0].body)


def test_mail_is_plain_text(db, mailoutbox):
    made(expires=-1, name="R&D <b>'cron'</b>", owner=UserFactory(username="a'b"))
    sent()

    assert mailoutbox[0].subject == "API key “R&D <b>'cron'</b>” has expired"
    assert "Key: R&D <b>'cron'</b>\n" in mailoutbox[0].body
    assert "Owner: a'b\n" in mailoutbox[0].body


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028"])
def test_name_with_a_line_break_makes_no_header_and_no_line(db, mailoutbox, end):
    """The services take no such name; a row that was made without them may have it."""
    name = f"Cron{end}Bcc: eve@example.com{end}{end}Pay here"
    made(expires=-1, name=name, owner=UserFactory(username=f"a{end}b", email="a@example.com"))
    sent()

    message = mailoutbox[0].message()
    assert mailoutbox[0].subject == "API key “Cron Bcc: eve@example.com Pay here” has expired"
    assert "Bcc" not in message
    assert "Key: Cron Bcc: eve@example.com Pay here" in mailoutbox[0].body.splitlines()
    assert "Owner: a b" in mailoutbox[0].body.splitlines()


def test_each_recipient_has_a_message_of_their_own(db, mailoutbox, to):
    to(["ann@example.com", "", "bob@example.com", "ann@example.com"])
    sent()

    assert [mail.to for mail in mailoutbox] == [["ann@example.com"], ["bob@example.com"]]
    assert all(not mail.cc + mail.bcc for mail in mailoutbox)


@pytest.mark.usefixtures("choosy")
def test_recipient_who_is_refused_keeps_it_from_nobody(db, mailoutbox, to, caplog):
    """They are not told of it again: the others would be, each hour."""
    key = to(["bounce@example.com", "bob@example.com"])

    assert [sent(), sent(NOW + 2 * HOUR)] == [{"expired": 1}, {}]
    assert [mail.to for mail in mailoutbox] == [["bob@example.com"]]
    assert [record.getMessage() for record in caplog.records] == [
        f"One address was not sent the notice expired of API key {key.pk}."
    ]


@pytest.mark.usefixtures("choosy")
def test_notice_that_no_server_takes_holds_up_no_others(db, mailoutbox, to, caplog):
    bounced = to(["bounce@example.com"])
    others = [to(["bob@example.com"]), to(["eve@example.com"])]

    done = notices.send_due(NOW)

    assert (done.counts, done.failed) == ({**NOTHING, "expired": 2}, 1)
    assert len(mailoutbox) == len(others)
    assert bounced.notices.get().sent_at is None
    assert [record.getMessage() for record in caplog.records] == [
        f"The notice expired of API key {bounced.pk} was not sent."
    ]
    assert caplog.records[0].exc_info


@pytest.mark.usefixtures("choosy")
def test_notice_that_failed_is_sent_an_hour_later(db, mailoutbox, to):
    key = to(["bounce@example.com"])
    notices.send_due(NOW)

    APIKey.objects.filter(pk=key.pk).update(metadata={"to": ["ann@example.com"]})

    assert sent(NOW + timedelta(minutes=54)) == {}
    assert sent(NOW + HOUR) == {"expired": 1}
    assert [mail.to for mail in mailoutbox] == [["ann@example.com"]]


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param("ann@example.com", id="a text, each letter an address"),
        pytest.param(None, id="none"),
        pytest.param(["ann@example.com\nBcc: eve@example.com"], id="a line break"),
        pytest.param([["ann@example.com"]], id="a list in a list"),
    ],
)
def test_policy_that_names_no_addresses_fails_alone(db, mailoutbox, to, addresses):
    to(addresses)
    to(["bob@example.com"])

    done = notices.send_due(NOW)

    assert (done.counts["expired"], done.failed) == (1, 1)
    assert [mail.to for mail in mailoutbox] == [["bob@example.com"]]


def test_template_that_fails_fails_alone(db, mailoutbox, settings):
    """One kind's; the others are sent."""
    templates(settings, {"expired.txt": "{% include 'gone.txt' %}"})
    made(expires=-1)
    made(expires=5)

    done = notices.send_due(NOW)

    assert (done.counts, done.failed) == ({**NOTHING, "expires_in_7": 1}, 1)
    assert len(mailoutbox) == 1


def test_kind_without_a_template_is_an_error(db):
    with pytest.raises(TemplateDoesNotExist):
        mails.render_notice(made(), "unheard_of")


@pytest.mark.usefixtures("in_utc")
def test_template_is_overridden_block_by_block(db, mailoutbox, settings):
    templates(
        settings,
        {
            "expired_subject.txt": "[Shop]\n{{ name }}\n",
            "base.txt": (
                "{% block what %}{% endblock %}\n-- \n"
                "https://shop.example/keys/{{ key.pk }}/{% block key %}{% endblock %}"
            ),
        },
    )
    key = made(expires=-1, name="Cron")
    sent()

    assert mailoutbox[0].subject == "[Shop] Cron"
    assert mailoutbox[0].body == (
        "The API key “Cron” expired on Nov. 19, 2026, 10:37 a.m. UTC. Its requests are refused.\n"
        f"-- \nhttps://shop.example/keys/{key.pk}/\n"
    )


def templates(settings, texts):
    """Put *texts* before the app's own templates."""
    named = {f"django_apikeys/notices/{name}": text for name, text in texts.items()}
    loaders = [
        ("django.template.loaders.locmem.Loader", named),
        "django.template.loaders.app_directories.Loader",
    ]
    backend = "django.template.backends.django.DjangoTemplates"
    settings.TEMPLATES = [{"BACKEND": backend, "OPTIONS": {"loaders": loaders}}]
