"""The text of a secret as it is kept where secrets are retrievable.

Imported by ``conf`` where that is so, as it needs the package cryptography.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from django_apikeys.keys.masking import MaskedBytes, MaskedText, Secret

if TYPE_CHECKING:
    from collections.abc import Sequence


class FernetCipher:
    """``<key name>$<Fernet token>``: as a digest names its pepper, a text names its key."""

    def __init__(self, keys: Sequence[MaskedText]) -> None:
        """keys: of Fernet, the first encrypts; at least one."""
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._names = tuple(map(_name, keys))

    @property
    def current(self) -> str:
        """The name of the key that encrypts."""
        return self._names[0]

    def encrypt(self, secret: Secret) -> str:
        """Return what is kept of *secret*."""
        # In one expression, and of bytes that are masked: see Secret.
        token = self._fernet.encrypt(MaskedBytes(secret.reveal().encode()))
        return f"{self.current}${token.decode()}"

    def decrypt(self, text: str) -> Secret | None:
        """Return the secret that *text* was made of; None where no key reads it.

        Whose secret that is *text* does not say: whoever can write to the table can move it.
        """
        try:
            # Whatever it is: nothing that could not be decoded would be in an error.
            return Secret(MaskedText(self._fernet.decrypt(_token(text)).decode(errors="replace")))
        except InvalidToken:
            return None

    def reencrypt(self, text: str) -> str | None:
        """Return *text* under the key that encrypts; None where no key reads it."""
        try:
            return f"{self.current}${self._fernet.rotate(_token(text)).decode()}"
        except InvalidToken:
            return None

    def knows(self, name: str) -> bool:
        """Tell whether the key of this name is among the keys."""
        return name in self._names


def _token(text: str) -> bytes:
    # Bytes: of text that is not ASCII Fernet raises what is no InvalidToken.
    return text.partition("$")[2].encode()


def _name(key: MaskedText) -> str:
    digest = hmac.digest(MaskedBytes(base64.urlsafe_b64decode(key)), b"id", hashlib.sha256)
    return digest.hex()[:8]
