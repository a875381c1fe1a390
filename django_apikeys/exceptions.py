"""Everything that this app raises on purpose.

    APIKeyError
    ├── Refused                 a request is not let in; code, status and challenge
    │   ├── NotAuthenticated        401  nothing of ours was sent
    │   ├── InvalidRequest          400  two credentials, a repeated header
    │   ├── InvalidKey              401  malformed, unknown or wrong: they look the same
    │   │   ├── MalformedKey
    │   │   ├── UnknownKey
    │   │   └── WrongSecret
    │   ├── KeyRefused              401  the secret was right, but the key is dead
    │   ├── AddressNotAllowed       403
    │   ├── InsufficientScope       403
    │   ├── RateLimited             429  the key's own rate, or that of the plan
    │   ├── QuotaExceeded           429  the owner's calendar month
    │   ├── TooManyPasswords        429  wrong ones, of a person
    │   └── Unavailable             503  we cannot know
    │       ├── LimitsUnavailable        what is left of the limits
    │       └── PasswordUnavailable      whether a password is being guessed
    └── ChangeRefused           a change is not made; code and message
        ├── InvalidInput            400  every bad field at once
        ├── NotPermitted            403  the policy says no
        ├── PasswordRequired        403  the login is old, or the password wrong
        ├── BeyondCeiling           403  more than the one who asks may grant
        └── Conflict                409  the state of the key does not allow it

No message, attribute or repr holds a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.utils.functional import _StrPromise

    from django_apikeys.limits import Allowance

REALM = "api"
# To the letter of the contract, in every language: programs look at it.
INVALID_KEY_MESSAGE = "Invalid or expired API key."
# The challenge is for programs: RFC 6750, section 3. It is not translated.
_INVALID_TOKEN = (
    f'Bearer realm="{REALM}", error="invalid_token", '
    'error_description="Invalid or expired API key."'
)


# What ``beyond`` says of a field in words: facts, which the message says in its language.
_WORDS: Mapping[tuple[str, str], _StrPromise] = {
    ("allowed_ips", "everywhere"): _("everywhere"),
    ("expires_at", "never"): _("never"),
    ("rate_limit", "unlimited"): _("unlimited"),
    ("enabled", "an API key enables none"): _("an API key enables none"),
}


class APIKeyError(Exception):
    """The root of the tree."""


class Refused(APIKeyError):
    """A request is not let in.

    code: stable, for programs. status: of the answer. challenge: the value of
    ``WWW-Authenticate``, or None. retry_after: seconds, or None. public_id: of the
    key, where one was found.
    """

    code: str = "invalid_key"
    status: int = 401
    message: str | _StrPromise = INVALID_KEY_MESSAGE
    challenge: str | None = None
    retry_after: int | None = None
    public_id: str | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class NotAuthenticated(Refused):
    """The request carries no credential of ours."""

    code = "not_authenticated"
    message = _("Authentication credentials were not provided.")
    challenge = f'Bearer realm="{REALM}"'


class InvalidRequest(Refused):
    """Two credentials, or a header that arrived twice: which one counts is a guess."""

    code = "invalid_request"
    status = 400
    message = _("Send one API key, in one header, once.")
    challenge = f'Bearer realm="{REALM}", error="invalid_request"'


class InvalidKey(Refused):
    """Malformed, unknown or wrong: the answer does not tell which."""

    challenge = _INVALID_TOKEN


class MalformedKey(InvalidKey):
    """The shape or the checksum is wrong; the database was not asked."""


class UnknownKey(InvalidKey):
    """No secret has this public id."""


class WrongSecret(InvalidKey):
    """The public id is known, the rest is wrong; or the user name beside it is."""

    def __init__(self, public_id: str) -> None:
        super().__init__(self.code)
        self.public_id = public_id


class KeyRefused(Refused):
    """The secret was right, but its key is dead; ``code`` says how."""

    challenge = _INVALID_TOKEN

    def __init__(self, code: str, public_id: str) -> None:
        super().__init__(code)
        self.code = code
        self.public_id = public_id


class AddressNotAllowed(Refused):
    """The request comes from an address outside the key's list, which is not echoed."""

    code = "address_not_allowed"
    status = 403
    message = _("This API key may not be used from this address.")

    def __init__(self, public_id: str) -> None:
        super().__init__(self.code)
        self.public_id = public_id


class InsufficientScope(Refused):
    """The key lacks a scope, or the view declares none.

    required: the scopes that the view asks for; None where it declares nothing.
    missing: those that the key lacks.
    """

    code = "insufficient_scope"
    status = 403

    def __init__(
        self, required: Iterable[str] | None, missing: Iterable[str] = (), public_id: str = ""
    ) -> None:
        super().__init__(self.code)
        self.public_id = public_id or None
        self.required = None if required is None else tuple(sorted(required))
        self.missing = tuple(sorted(missing))
        self.challenge = f'Bearer realm="{REALM}", error="insufficient_scope"'
        if self.required is None:
            self.message = _(
                "This is not open to API keys: the view declares no scopes for it. Its developer "
                "does so by required_scopes, scope_resource or HasScope(…) in permission_classes."
            )
        else:
            self.message = _("This API key lacks a scope: %(scopes)s.") % {
                "scopes": ", ".join(self.missing or self.required)
            }
            self.challenge += f', scope="{" ".join(self.required)}"'


class RateLimited(Refused):
    """Too many requests in this window.

    allowances: what is left of each limit that was asked; the last is the one that is
    spent.
    """

    code = "rate_limited"
    status = 429
    message = _("Too many requests with this API key. Try again later.")

    def __init__(self, allowances: Sequence[Allowance], public_id: str) -> None:
        super().__init__(self.code)
        self.allowances = allowances
        self.public_id = public_id
        self.retry_after = allowances[-1].reset_seconds


class QuotaExceeded(RateLimited):
    """The owner has used what their plan has for this month."""

    code = "quota_exceeded"
    message = _("The quota of this month is used up.")

    def __init__(self, allowances: Sequence[Allowance], public_id: str) -> None:
        super().__init__(allowances, public_id)
        if allowances[-1].remaining:
            self.message = _(
                "This call needs more units than are left of the quota of this month."
            )


class TooManyPasswords(Refused):
    """Wrong passwords of one user, more than may be guessed; ``retry_after`` says how long."""

    code = "rate_limited"
    status = 429
    message = _("Too many wrong passwords. Try again later, or log in.")

    def __init__(self, retry_after: int) -> None:
        super().__init__(self.code)
        self.retry_after = retry_after


class Unavailable(Refused):
    """What is asked cannot be known, or done, now."""

    code = "unavailable"
    status = 503
    message = _("API keys cannot be looked up at the moment. Try again later.")

    def __init__(self, retry_after: int = 5) -> None:
        super().__init__(self.code)
        self.retry_after = retry_after


class LimitsUnavailable(Unavailable):
    """The key is good, but nobody knows what is left of its limits."""

    message = _("The limits of API keys cannot be counted at the moment. Try again later.")


class PasswordUnavailable(Unavailable):
    """No password is looked at, since nobody counts the wrong ones."""

    message = _("Your password cannot be checked at the moment. Log in, or try again later.")


class ChangeRefused(APIKeyError):
    """A change is not made."""

    code: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, message: str | _StrPromise) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return str(self.message)


class InvalidInput(ChangeRefused, ValidationError):
    """The input is bad; ``message_dict`` names every bad field."""

    code = "invalid"  # type: ignore[misc]  # ValidationError has one for each instance
    status = 400

    def __init__(self, fields: dict[str, Any]) -> None:
        ValidationError.__init__(self, fields)

    def __str__(self) -> str:
        return " ".join(
            f"{field}: {' '.join(messages)}" for field, messages in self.message_dict.items()
        )


class NotPermitted(ChangeRefused):
    """The policy does not let the actor do this."""

    code = "permission_denied"
    status = 403


class PasswordRequired(ChangeRefused):
    """The login is too old, and the password was not sent, or is wrong."""

    code = "password_required"
    status = 403


class BeyondCeiling(ChangeRefused):
    """What is asked for is more than the actor has.

    beyond: what is too much, by the name of the field.
    """

    code = "beyond_ceiling"
    status = 403

    def __init__(self, beyond: Mapping[str, Sequence[str]]) -> None:
        self.beyond = beyond
        named = (f"{name} ({_in_words(name, texts)})" for name, texts in beyond.items())
        super().__init__(
            _("This is more than you may give to an API key: %(beyond)s.")
            % {"beyond": ", ".join(named)}
        )


def _in_words(name: str, texts: Sequence[str], most: int = 10) -> str:
    said = [str(_WORDS.get((name, text), text)) for text in texts[:most]]
    return ", ".join([*said, *["…"] * (len(texts) > most)])


class Conflict(ChangeRefused):
    """The state of the key does not allow it."""

    code = "conflict"
    status = 409
