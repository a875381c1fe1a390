"""The secret that a request carries, wherever it stands.

Only texts that are ours are taken; any other Bearer or Basic credential is left to
the next authentication class. From the expression that reads a header on, the text
is a ``Secret``: no frame of this module has it in a local variable.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from dataclasses import dataclass, field
from operator import methodcaller
from typing import TYPE_CHECKING

from django_apikeys.conf import conf
from django_apikeys.exceptions import InvalidRequest, MalformedKey
from django_apikeys.keys.format import looks_like_a_secret
from django_apikeys.keys.masking import MaskedBytes, MaskedText, Secret

if TYPE_CHECKING:
    from django.http import HttpRequest

# What RFC 9110 calls optional white space, and the line breaks of a careless paste.
_SPACE = " \t\r\n"
_SCHEME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32})(?:[ \t\r\n]+|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_BASE64 = re.compile(r"[^0-9A-Za-z+/]")
# Of a header between commas, more than any scheme has; to read each of more would cost.
_MOST_PARTS = 32
_trimmed = methodcaller("strip", _SPACE)


@dataclass(frozen=True, slots=True)
class Credential:
    """A text that claims to be a secret of ours.

    username: what stood beside it in HTTP Basic; None elsewhere.
    """

    secret: Secret
    username: str | None = field(default=None, repr=False)


def extract(request: HttpRequest) -> Credential | None:
    """Return the credential of *request*, None where none of it is ours.

    Raises InvalidRequest for two of them or a header that arrived twice, and
    MalformedKey for one that is ours but cannot be a secret.
    """
    authorization = _header(request, "HTTP_AUTHORIZATION")
    parts = _parts(authorization)
    if "x-api-key" in conf.CREDENTIALS and "HTTP_X_API_KEY" in request.META:
        key = _header(request, "HTTP_X_API_KEY")
        if "," in key.reveal() or any(map(_is_ours, parts)):
            raise InvalidRequest
        return Credential(key)
    if len(parts) == 1:
        return _read(authorization)
    if len(parts) > _MOST_PARTS or any(map(_is_ours, parts)):
        raise InvalidRequest
    return None


def _header(request: HttpRequest, name: str) -> Secret:
    # Test clients may put bytes there; servers put text, one character a byte.
    return Secret(
        MaskedText(
            request.META[name].decode("latin-1").strip(_SPACE)
            if isinstance(request.META.get(name), bytes)
            else str(request.META.get(name, "")).strip(_SPACE)
        )
    )


def _parts(header: Secret) -> list[Secret]:
    # Servers join a header that arrives twice by a comma, which no secret contains.
    # By map, which has no variable for the part.
    texts = map(_trimmed, header.reveal().split(",", _MOST_PARTS))
    return list(map(Secret, map(MaskedText, texts)))


def _is_ours(part: Secret) -> bool:
    try:
        return _read(part) is not None
    except MalformedKey:
        return True


def _read(header: Secret) -> Credential | None:
    """Return the credential of one ``Authorization`` header, None where it is not ours."""
    match = _SCHEME.match(header.reveal())
    scheme = match[1].lower() if match else ""
    if match is None or scheme not in conf.CREDENTIALS:
        # "Bearer" was forgotten: ours all the same, and not to be left to the session.
        if "bearer" in conf.CREDENTIALS and _begins_as_ours(header):
            raise MalformedKey
        return None
    value = Secret(header.reveal()[match.end() :])
    if scheme == "basic":
        return _read_basic(value)
    if scheme == "api-key" or (scheme == "bearer" and _begins_as_ours(value)):
        return Credential(value)
    return None


def _read_basic(value: Secret) -> Credential | None:
    # Not encoded at all: ours all the same, and not to be left to the session.
    if _begins_as_ours(value):
        raise MalformedKey
    text, is_strict = _decode(value)
    username = Secret(MaskedText(text.reveal().partition(":")[0]))
    password = Secret(MaskedText(text.reveal().partition(":")[2].strip(" ")))
    # RFC 7617 allows no control characters.
    has_control = is_strict and _CONTROL.search(text.reveal()) is not None
    # Servers log user names: a secret there has leaked already.
    misplaced = looks_like_a_secret(
        Secret(MaskedText(username.reveal().strip(" "))), conf.PREFIXES, conf.ENVIRONMENTS
    )
    if has_control or misplaced:
        raise MalformedKey
    if not _begins_as_ours(password):
        return None
    if not is_strict:
        raise MalformedKey
    return Credential(password, username.reveal())


def _decode(value: Secret) -> tuple[Secret, bool]:
    """Return what the base64 of *value* says, and whether it was base64 to the letter.

    What is not is still read as far as it goes: a key of ours in it must be refused,
    not left to the session.
    """
    with suppress(ValueError):
        return _as_text(MaskedBytes(base64.b64decode(value.reveal(), validate=True))), True
    # Not in an except block: an error from here would show the frames of the other.
    digits = MaskedText(value.reveal().replace("-", "+").replace("_", "/"))
    whole = MaskedText(_whole(MaskedText(_NOT_BASE64.sub("", digits))))
    return _as_text(MaskedBytes(base64.b64decode(whole))), False


def _as_text(decoded: MaskedBytes) -> Secret:
    return Secret(MaskedText(decoded.decode("utf-8", "surrogateescape")))


def _whole(digits: str) -> str:
    # Four digits are three bytes; one digit left over says nothing.
    rest = len(digits) % 4
    return digits[:-1] if rest == 1 else digits + "=" * (-rest % 4)


def _begins_as_ours(text: Secret) -> bool:
    return text.reveal().startswith(tuple(f"{prefix}_" for prefix in conf.PREFIXES))
