"""A plain HTTP client: what any program does that has a key."""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage

SECONDS = 30


class Unexpected(Exception):
    """The site did not answer as the story goes."""


def expect(*, that: bool, otherwise: str) -> None:
    """Raise Unexpected with *otherwise* where *that* is not so."""
    if not that:
        raise Unexpected(otherwise)


@dataclass(frozen=True)
class Answer:
    """What came back. call: what was asked, for messages."""

    call: str
    status: int
    headers: HTTPMessage
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def data(self) -> Any:
        return self.body["data"]

    def expect(self, status: int, reason: str | None = None) -> Answer:
        """Return itself.

        Raises Unexpected where the status, or the ``reason`` of an error, is another.
        """
        expect(
            that=self.status == status,
            otherwise=f"{self.call} answered {self.status}, not {status}: {self.text[:300]}",
        )
        if reason is not None:
            found = self.body["error"]["reason"]
            expect(
                that=found == reason,
                otherwise=f"{self.call} answered the reason {found}, not {reason}",
            )
        return self


@dataclass(frozen=True)
class Client:
    """Calls to one site. Each is a connection of its own, by no proxy."""

    host: str
    port: int

    def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json", **(headers or {})},
            )
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return Answer(f"{method} {path}", response.status, response.headers, text)


def basic(username: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic."""
    text = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


def bearer(secret: str) -> dict[str, str]:
    """Return the header that a secret usually stands in."""
    return {"Authorization": f"Bearer {secret}"}
