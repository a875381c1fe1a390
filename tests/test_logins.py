"""How fresh a login is, and what an attacker may try where it is not."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import authenticate, login
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory

from django_apikeys import logins
from django_apikeys.exceptions import PasswordRequired, PasswordUnavailable, TooManyPasswords
from django_apikeys.keys.masking import MaskedText, Secret
from tests.factories import UserFactory
from tests.test_services import listening

STAMP = "apikeys_login_at"
# In the middle of a window of five minutes.
AT = datetime.fromtimestamp(1_800_000_100.5, UTC)
RIGHT, WRONG = Secret(MaskedText("password")), Secret(MaskedText("guess"))


class LockingBackend(BaseBackend):
    """Lets nobody in, as one that has seen too many failures."""

    def authenticate(self, request, **credentials):
        raise PermissionDenied


class SharingBackend(ModelBackend):
    """Knows everybody as the same one, whom somebody has made first."""

    def authenticate(self, request, **credentials):
        return UserFactory._meta.model.objects.get(username="somebody else")


pytestmark = pytest.mark.usefixtures("retrievable", "no_guesses")


@pytest.fixture
def request_of():
    """Make a request of a user, in the session that somebody has logged in to."""

    def request_of(user, logged_in=None):
        request = RequestFactory().post("/")
        request.session, request.user = SessionStore(), AnonymousUser()
        if logged_in is not None:
            login(request, logged_in, backend="django.contrib.auth.backends.ModelBackend")
        request.user = user
        return request

    return request_of


def is_fresh(request):
    try:
        logins.require_fresh(request, None)
    except PasswordRequired:
        return False
    return True


def refusal(request, password, now=None):
    try:
        logins.require_fresh(request, password, now=now)
    except (PasswordRequired, TooManyPasswords, PasswordUnavailable) as error:
        return type(error)
    return None


# --- The session --------------------------------------------------------------------------


def test_a_login_is_fresh(user, request_of):
    assert is_fresh(request_of(user, logged_in=user)) is True


def test_the_stamp_is_a_whole_number_of_seconds(user, request_of):
    stamp = request_of(user, logged_in=user).session[STAMP]

    assert type(stamp) is int
    assert 0 <= time.time() - stamp < 60


def test_a_login_before_the_mode_was_on_is_not(user, request_of, settings):
    settings.APIKEYS_RETRIEVABLE = False

    request = request_of(user, logged_in=user)

    assert STAMP not in request.session
    assert is_fresh(request) is False


def test_a_setting_that_is_wrong_stops_no_login(user, request_of, settings):
    settings.APIKEYS_RETRIEVABLE = "yes"

    request = request_of(user, logged_in=user)

    assert request.session["_auth_user_id"] == str(user.pk)
    assert STAMP not in request.session


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [
        pytest.param(0, True, id="now"),
        pytest.param(590, True, id="within"),
        pytest.param(610, False, id="older"),
        pytest.param(-60, False, id="yet to come"),
        pytest.param(10**9, False, id="long ago"),
    ],
)
def test_age(user, request_of, seconds, fresh):
    request = request_of(user, logged_in=user)
    request.session[STAMP] = int(time.time()) - seconds

    assert is_fresh(request) is fresh


@pytest.mark.parametrize(
    "stamp",
    [None, "", "now", "9" * 10, True, 1.5, [], {}, -1, float("inf"), 10**400],
    ids=lambda stamp: str(stamp)[:12] or "empty",
)
def test_garbage_is_old(user, request_of, stamp):
    request = request_of(user, logged_in=user)
    request.session[STAMP] = stamp

    assert is_fresh(request) is False


def test_the_setting_says_how_old(user, request_of, settings):
    request = request_of(user, logged_in=user)
    request.session[STAMP] = int(time.time()) - 60

    settings.APIKEYS_REVEAL_LOGIN_SECONDS = 30

    assert is_fresh(request) is False


def test_a_fresh_session_of_somebody_else_is_none(user, request_of):
    """Ann's token with the cookie of Bob, say."""
    assert is_fresh(request_of(user, logged_in=UserFactory())) is False


def test_a_session_of_before_a_change_of_the_password_is_none(user, request_of):
    request = request_of(user, logged_in=user)
    user.set_password("another")
    user.save()

    assert is_fresh(request) is False


def test_no_session_is_no_fresh_login(user, request_of):
    request = request_of(user)
    del request.session

    assert is_fresh(request) is False


def test_a_login_elsewhere_does_not_freshen_the_session_of_somebody_else(user, request_of):
    """Logins that make tokens send the signal too: beside a stolen cookie it says nothing."""
    stolen = request_of(user, logged_in=user)
    stolen.session[STAMP] = 1
    thief = UserFactory()

    user_logged_in.send(sender=type(thief), request=stolen, user=thief)

    assert stolen.session[STAMP] == 1


@pytest.mark.parametrize("prepare", ["no request", "no session", "nobody's session"])
def test_a_login_without_a_session_is_let_alone(user, request_of, prepare):
    request = request_of(user)
    if prepare == "no session":
        del request.session

    user_logged_in.send(
        sender=type(user), request=None if prepare == "no request" else request, user=user
    )

    assert STAMP not in getattr(request, "session", {})


def test_the_stamp_goes_with_the_login(user, request_of):
    """Whoever logs in to the session of somebody else has a session of their own."""
    request = request_of(user, logged_in=user)
    stamp = request.session[STAMP] = 1

    login(request, UserFactory(), backend="django.contrib.auth.backends.ModelBackend")

    assert request.session[STAMP] > stamp
    request.session.flush()
    assert STAMP not in request.session


# --- The password -------------------------------------------------------------------------


def test_the_password_makes_an_old_login_fresh(user, request_of):
    request = request_of(user, logged_in=user)
    request.session[STAMP] = 1

    assert refusal(request, RIGHT) is None
    assert is_fresh(request) is True


def test_the_password_is_enough_without_a_session(user, request_of):
    request = request_of(user)
    del request.session

    assert refusal(request, RIGHT) is None


def test_the_password_does_not_freshen_the_session_of_somebody_else(user, request_of):
    request = request_of(user, logged_in=UserFactory())
    request.session[STAMP] = 1

    assert refusal(request, RIGHT) is None
    assert request.session[STAMP] == 1


def test_a_wrong_password_is_refused_in_a_fresh_login_too(user, request_of):
    assert refusal(request_of(user, logged_in=user), WRONG) is PasswordRequired


def test_a_wrong_password_is_told_to_who_listens(user, request_of):
    with listening(user_login_failed) as told:
        refusal(request_of(user), WRONG)

    assert [facts["credentials"]["username"] for facts in told] == ["ann"]
    assert "guess" not in repr(told)


def test_who_has_no_password_logs_in_again(user, request_of):
    user.set_unusable_password()
    user.save()

    assert refusal(request_of(user), Secret(MaskedText(""))) is PasswordRequired
    assert is_fresh(request_of(user, logged_in=user)) is True


def test_who_is_switched_off_has_no_password(user, request_of):
    user.is_active = False
    user.save()

    assert refusal(request_of(user), RIGHT) is PasswordRequired


@pytest.mark.parametrize("backend", ["LockingBackend", "SharingBackend"])
def test_the_backends_of_the_site_decide(user, request_of, settings, backend):
    UserFactory(username="somebody else")
    settings.AUTHENTICATION_BACKENDS = [
        f"tests.test_logins.{backend}",
        "django.contrib.auth.backends.ModelBackend",
    ]

    assert refusal(request_of(user), RIGHT) is PasswordRequired


# --- Guesses ------------------------------------------------------------------------------


class TestGuesses:
    def test_five_wrong_ones_are_all(self, user, request_of):
        answers = [refusal(request_of(user), WRONG, AT) for _ in range(7)]

        assert answers == [PasswordRequired] * 5 + [TooManyPasswords] * 2

    def test_the_right_one_is_not_looked_at_then(self, user, request_of):
        for _ in range(5):
            refusal(request_of(user), WRONG, AT)

        assert refusal(request_of(user), RIGHT, AT) is TooManyPasswords

    def test_a_fresh_login_is_not_held_up(self, user, request_of):
        for _ in range(6):
            refusal(request_of(user), WRONG, AT)

        assert is_fresh(request_of(user, logged_in=user)) is True

    def test_are_counted_for_each_user(self, user, request_of):
        for _ in range(6):
            refusal(request_of(user), WRONG, AT)

        assert refusal(request_of(UserFactory()), RIGHT, AT) is None

    def test_are_counted_whatever_the_session(self, user, request_of):
        answers = [refusal(request_of(user, logged_in=user), WRONG, AT) for _ in range(6)]

        assert answers[-1] is TooManyPasswords

    def test_right_ones_do_not_count(self, user, request_of):
        answers = [refusal(request_of(user), RIGHT, AT) for _ in range(10)]

        assert answers == [None] * 10

    def test_a_right_one_takes_back_no_wrong_one(self, user, request_of):
        for password in (WRONG, WRONG, WRONG, WRONG, RIGHT):
            refusal(request_of(user), password, AT)

        answers = [refusal(request_of(user), WRONG, AT) for _ in range(2)]

        assert answers == [PasswordRequired, TooManyPasswords]

    def test_are_counted_before_they_are_looked_at(self, user, request_of, monkeypatch):
        """Many at once are no more than one after the other."""

        def meanwhile(request, **credentials):
            monkeypatch.setattr(logins, "authenticate", authenticate)
            inner.extend(refusal(request_of(user), WRONG, AT) for _ in range(5))

        inner = []
        monkeypatch.setattr(logins, "authenticate", meanwhile)

        outer = refusal(request_of(user), WRONG, AT)

        assert outer is PasswordRequired
        assert inner == [PasswordRequired] * 4 + [TooManyPasswords]

    def test_who_waits_is_in_the_next_window(self, user, request_of):
        for _ in range(5):
            refusal(request_of(user), WRONG, AT)
        with pytest.raises(TooManyPasswords) as error:
            logins.require_fresh(request_of(user), RIGHT, now=AT)

        later = AT + timedelta(seconds=error.value.retry_after)

        assert error.value.retry_after == 200
        assert refusal(request_of(user), RIGHT, later) is None


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("django.core.cache.backends.dummy.DummyCache", id="keeps nothing"),
        pytest.param("tests.test_logins.BrokenCache", id="down"),
    ],
)
def test_where_guesses_cannot_be_counted_no_password_is_looked_at(
    user, request_of, settings, backend
):
    settings.CACHES = {"default": {"BACKEND": backend}}

    assert refusal(request_of(user), RIGHT) is PasswordUnavailable
    assert is_fresh(request_of(user, logged_in=user)) is True


class BrokenCache(LocMemCache):
    """A cache whose server went away."""

    def add(self, *args, **kwargs):
        raise ConnectionError


def test_a_count_that_is_lost_meanwhile_stops_nobody(user, request_of, monkeypatch):
    def forget(request, **credentials):
        cache.clear()
        return authenticate(request, **credentials)

    monkeypatch.setattr(logins, "authenticate", forget)

    assert refusal(request_of(user), RIGHT) is None
