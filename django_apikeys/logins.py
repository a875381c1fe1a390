"""How fresh a login is, and the password where it is not: asked before a secret is revealed."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib.auth import SESSION_KEY, authenticate, get_user
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys import logs
from django_apikeys.conf import conf
from django_apikeys.exceptions import PasswordRequired, PasswordUnavailable, TooManyPasswords
from django_apikeys.keys.masking import MaskedText, Secret

if TYPE_CHECKING:
    from datetime import datetime

    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

# Wrong passwords of one user in so many seconds; the windows are fixed, as those of rates.
MOST_WRONG = 5
WINDOW = 300
_STAMP = "apikeys_login_at"


def note_login(*, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    """Stamp the session in which *user* has logged in. A receiver of ``user_logged_in``."""
    # A wrong setting is found by the checks: nobody's login fails of it.
    with suppress(ImproperlyConfigured):
        if request is not None and conf.RETRIEVABLE:
            _stamp(request, user, timezone.now())


def typed_password(request: HttpRequest) -> Secret | None:
    """Return the ``password`` of the form that was sent; None where there is none."""
    if not request.POST.get("password"):
        return None
    return Secret(MaskedText(request.POST["password"]))


def require_fresh(
    request: HttpRequest, password: Secret | None, *, now: datetime | None = None
) -> None:
    """Raise PasswordRequired unless the user of *request* is sure to be at the keyboard.

    They are where they have logged in to this very session less than
    APIKEYS_REVEAL_LOGIN_SECONDS ago, or where *password* is theirs; one that is sent is
    looked at in any case. now: aware; default is the clock.
    Raises TooManyPasswords; PasswordUnavailable where the cache that counts wrong ones is
    down, as they could be guessed.
    """
    now = now or timezone.now()
    if password is not None:
        _confirm(request, password, now)
    elif not _is_fresh(request, now):
        raise PasswordRequired(_("Your login is too old for this: log in, or send your password."))


def _is_fresh(request: HttpRequest, now: datetime) -> bool:
    session = _session_of(request, request.user)
    at = None if session is None else session.get(_STAMP)
    if not isinstance(at, int) or isinstance(at, bool):
        return False
    # What is yet to come is not believed either.
    return 0 <= int(now.timestamp()) - at <= conf.REVEAL_LOGIN_SECONDS


def _stamp(request: HttpRequest, user: Any, now: datetime) -> None:
    session = _session_of(request, user)
    if session is not None:
        session[_STAMP] = int(now.timestamp())


def _session_of(request: HttpRequest, user: Any) -> SessionBase | None:
    """Return the session of *request* where it is one of *user*, else None.

    Beside a token or a password of somebody a cookie of somebody else may be sent.
    """
    session = getattr(request, "session", None)
    if session is None or SESSION_KEY not in session:
        return None
    # As Django reads it: one of before a change of the password is nobody's.
    return session if get_user(request) == user else None


def _confirm(request: HttpRequest, password: Secret, now: datetime) -> None:
    user, cache, seconds = request.user, caches[conf.CACHE], now.timestamp()
    # Counted first: many at once are no more than one after the other.
    counter = f"django_apikeys:password:{_digest(user.pk)}:{int(seconds // WINDOW)}"
    try:
        cache.add(counter, 0, WINDOW)
        guesses = cache.incr(counter)
    except Exception as error:
        # Each cache backend has errors of its own.
        logs.once_a_minute("password", "The cache did not count wrong passwords.", exc_info=True)
        raise PasswordUnavailable from error
    if guesses > MOST_WRONG:
        raise TooManyPasswords(retry_after=int(WINDOW - seconds % WINDOW) + 1)
    found = authenticate(request, username=user.get_username(), password=password.reveal())
    if found is None or found != user:
        raise PasswordRequired(_("This is not your password: send it again, or log in."))
    # Only wrong ones count. Where it is not taken back there is one guess less.
    with suppress(Exception):
        cache.decr(counter)
    _stamp(request, user, now)


def _digest(pk: Any) -> str:
    # Of any type: memcached takes no spaces.
    return hashlib.sha256(str(pk).encode()).hexdigest()[:32]
