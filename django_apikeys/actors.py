"""Who changes a key: a person, a key, a command or the system itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from django_apikeys.conf import conf
from django_apikeys.keys.grants import Grant

if TYPE_CHECKING:
    from uuid import UUID

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.http import HttpRequest

Kind = Literal["user", "key", "command", "system"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Actor:
    """What an Event says of the one who did it.

    user: the row of a person, for ``created_by`` and ``revoked_by``. key_id: of the
    key through which it was done. address, user_agent: as text, where there was a
    request.
    """

    kind: Kind
    id: str = ""
    name: str = ""
    address: str = ""
    user_agent: str = ""
    user: Any = field(default=None, repr=False, compare=False)
    key_id: UUID | None = None

    @classmethod
    def of(cls, source: Actor | Grant | AbstractBaseUser | None) -> Actor:
        """Return *source* as an Actor; None is the system."""
        if isinstance(source, Actor):
            return source
        if source is None:
            return cls("system")
        if isinstance(source, Grant):
            return cls("key", id=str(source.key_id), name=source.name, key_id=source.key_id)
        return cls("user", id=str(source.pk), name=str(source.get_username()), user=source)

    @classmethod
    def from_request(cls, request: HttpRequest) -> Actor:
        """Return the caller of *request*: its key where it came with one, else its user."""
        grant = getattr(request, "auth", None)
        who = cls.of(grant if isinstance(grant, Grant) else request.user)  # type: ignore[arg-type]  # views of ours refuse the anonymous
        address = conf.client_resolver(request)
        return cls(
            kind=who.kind,
            id=who.id,
            name=who.name,
            address="" if address is None else str(address),
            user_agent=user_agent_of(request),
            user=who.user,
            key_id=who.key_id,
        )


def user_agent_of(request: HttpRequest) -> str:
    """Return what the client of *request* calls itself, as an Event keeps it."""
    return _CONTROL.sub("", request.META.get("HTTP_USER_AGENT", ""))[:255]
