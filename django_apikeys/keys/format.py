"""The secret as text: how one is made, told apart and checked.

    {prefix}_{environment}_{public_id}_{random}{crc}

``public_id`` is what is looked up; ``random`` is 256 bits of it; ``crc`` stops
typing errors before they reach the database. It stops no attacker.
"""

from __future__ import annotations

import functools
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django_apikeys.exceptions import MalformedKey
from django_apikeys.keys.masking import MaskedText, Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PUBLIC_ID_LENGTH = 12
RANDOM_LENGTH = 43
CRC_LENGTH = 6
LONGEST = 128
TAIL_LENGTH = RANDOM_LENGTH + CRC_LENGTH
PREFIX_PATTERN = r"[a-z][a-z0-9]{1,15}"
ENVIRONMENT_PATTERN = r"[a-z][a-z0-9]{0,15}"
_PASTED = re.compile(rf"[a-z0-9]+_[a-z0-9]+_([0-9A-Za-z]{{{PUBLIC_ID_LENGTH}}})_")
# Behind other text, "export API_KEY=" say, where a name may look like the beginning of one.
_WITHIN = re.compile(rf"\b{_PASTED.pattern}[0-9A-Za-z]{{16}}")


@dataclass(frozen=True, slots=True)
class ParsedSecret:
    """A well-formed secret in its parts; all but ``secret`` may be logged."""

    prefix: str
    environment: str
    public_id: str
    last_four: str = field(repr=False)
    secret: Secret

    @property
    def masked(self) -> str:
        """The form that is shown afterwards: ``rak_live_7Fq2…WtB2``."""
        return mask(self.prefix, self.environment, self.public_id, self.last_four)


def mask(prefix: str, environment: str, public_id: str, last_four: str) -> str:
    """Return what may be shown of a secret; an imported one has no *prefix*."""
    head = f"{prefix}_{environment}_" if prefix else ""
    return f"{head}{public_id[:4]}…{last_four}"


def checksum(text: str) -> str:
    """Return the CRC-32 of *text* as six characters of base62."""
    number = zlib.crc32(text.encode())
    digits = ""
    while number:
        number, remainder = divmod(number, 62)
        digits = ALPHABET[remainder] + digits
    return digits.rjust(CRC_LENGTH, "0")


def generate(prefix: str, environment: str) -> ParsedSecret:
    """Return a new secret, 256 bits of it from the operating system."""
    public_id = _random_text(PUBLIC_ID_LENGTH)
    body = Secret(MaskedText(f"{prefix}_{environment}_{public_id}_{_random_text(RANDOM_LENGTH)}"))
    return ParsedSecret(
        prefix=prefix,
        environment=environment,
        public_id=public_id,
        last_four=body.reveal()[-4:],
        secret=Secret(MaskedText(body.reveal() + checksum(body.reveal()))),
    )


def parse(secret: Secret, prefixes: Sequence[str], environments: Sequence[str]) -> ParsedSecret:
    """Return the parts of *secret*.

    Raises MalformedKey where its shape or its checksum is wrong.
    """
    # The length first: a header of 100 kB costs no more than a typing error.
    if len(secret) > LONGEST or not _shape(tuple(prefixes), tuple(environments)).fullmatch(
        secret.reveal()
    ):
        raise MalformedKey
    if checksum(secret.reveal()[:-CRC_LENGTH]) != secret.reveal()[-CRC_LENGTH:]:
        raise MalformedKey
    prefix, environment, public_id = secret.reveal()[: -TAIL_LENGTH - 1].split("_")
    return ParsedSecret(
        prefix=prefix,
        environment=environment,
        public_id=public_id,
        last_four=secret.reveal()[-CRC_LENGTH - 4 : -CRC_LENGTH],
        secret=secret,
    )


def looks_like_a_secret(
    text: Secret, prefixes: Sequence[str], environments: Sequence[str]
) -> bool:
    """Tell whether *text* has the shape of a secret, whatever its checksum."""
    return (
        len(text) <= LONGEST
        and _shape(tuple(prefixes), tuple(environments)).fullmatch(text.reveal()) is not None
    )


def pasted_public_id(text: str) -> str | None:
    """Return the public id of a secret that was pasted; None where there is none.

    text: a secret or its beginning, or what has one in it.
    """
    found = _PASTED.match(text) or _WITHIN.search(text)
    return found[1] if found else None


def scanner_pattern(prefixes: Sequence[str], environments: Sequence[str]) -> str:
    """Return a regular expression by which scanners find secrets in text."""
    return rf"\b{_body(prefixes, environments)}\b"


def _body(prefixes: Sequence[str], environments: Sequence[str]) -> str:
    prefix = prefixes[0] if len(prefixes) == 1 else f"(?:{'|'.join(prefixes)})"
    return (
        rf"{prefix}_(?:{'|'.join(environments)})"
        rf"_[0-9A-Za-z]{{{PUBLIC_ID_LENGTH}}}_[0-9A-Za-z]{{{TAIL_LENGTH}}}"
    )


@functools.lru_cache(maxsize=32)
def _shape(prefixes: tuple[str, ...], environments: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(_body(prefixes, environments))


def _random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
