"""The digest that is stored in place of a secret.

A secret is 256 random bits, so one HMAC is enough: a slow hash would add nothing
but time to each request. The pepper, which is not in the database, keeps a
reader of the database from planting a digest of their own.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol

from django_apikeys.keys.masking import MaskedBytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django_apikeys.keys.masking import MaskedText, Secret

ALGORITHM = "hmac-sha256"


class Hasher(Protocol):
    """Called by the verification of each request, and where a secret is made."""

    def __init__(self, peppers: Mapping[str, MaskedBytes], current: str) -> None:
        """peppers: id to key, every one that may verify. current: the id that makes new ones."""

    def digest(self, secret: Secret) -> str:
        """Return what is stored: it names its own algorithm and pepper."""

    def verify(self, secret: Secret, digest: str) -> bool:
        """Tell, in constant time, whether *digest* was made of *secret*."""

    def knows(self, digest: str) -> bool:
        """Tell whether the algorithm and the pepper of *digest* are configured."""

    def needs_rehash(self, digest: str) -> bool:
        """Tell whether ``digest`` would be made otherwise today."""

    def burn(self, secret: Secret) -> None:
        """Take the time of a verification, for an id that is unknown."""


class HMACHasher:
    """``hmac-sha256$<pepper id>$<hex>``."""

    def __init__(self, peppers: Mapping[str, MaskedBytes], current: str) -> None:
        self._peppers = peppers
        self._current = current

    def digest(self, secret: Secret) -> str:
        return f"{ALGORITHM}${self._current}${self._hex(secret, self._peppers[self._current])}"

    def verify(self, secret: Secret, digest: str) -> bool:
        algorithm, pepper, expected = split_digest(digest)
        if algorithm != ALGORITHM or pepper not in self._peppers:
            self.burn(secret)
            return False
        return hmac.compare_digest(
            self._hex(secret, self._peppers[pepper]).encode(), expected.encode()
        )

    def knows(self, digest: str) -> bool:
        algorithm, pepper, _ = split_digest(digest)
        return algorithm == ALGORITHM and pepper in self._peppers

    def needs_rehash(self, digest: str) -> bool:
        algorithm, pepper, _ = split_digest(digest)
        return algorithm != ALGORITHM or pepper != self._current

    def burn(self, secret: Secret) -> None:
        hmac.compare_digest(self._hex(secret, self._peppers[self._current]).encode(), b"0" * 64)

    @staticmethod
    def _hex(secret: Secret, pepper: bytes) -> str:
        # In one expression: the text is in no local variable, see Secret.
        return hmac.digest(pepper, secret.reveal().encode(), hashlib.sha256).hex()


def derive_pepper(secret_key: MaskedText | MaskedBytes) -> tuple[str, MaskedBytes]:
    """Return the id and the pepper (32 bytes) that a ``SECRET_KEY`` stands for."""
    key = MaskedBytes(secret_key.encode() if isinstance(secret_key, str) else secret_key)
    pepper = MaskedBytes(hmac.digest(key, b"django_apikeys.pepper.v1", hashlib.sha256))
    return f"sk-{hmac.digest(pepper, b'id', hashlib.sha256).hex()[:8]}", pepper


def split_digest(digest: str) -> tuple[str, str, str]:
    """Return algorithm, pepper and hex; empty texts where *digest* is none of ours."""
    parts = digest.split("$")
    if len(parts) != 3:  # noqa: PLR2004 - algorithm, pepper, hex
        return "", "", ""
    return parts[0], parts[1], parts[2]
