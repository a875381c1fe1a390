"""The grammar of scopes: ``resource:action``, ``resource:*``, ``*``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from django.utils.functional import _StrPromise

_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_SCOPE = re.compile(rf"{_WORD}:{_WORD}")
_WILDCARD = re.compile(rf"{_WORD}:\*|\*")

# What a key may do to keys. No wildcard reaches them: "*" on a reporting key must
# not let it make keys of its own.
RESERVED: Mapping[str, _StrPromise] = {
    "apikeys:read": _("Read API keys, their usage and their events"),
    "apikeys:write": _("Create and change API keys within the limits of this one"),
    "self:rotate": _("Rotate the secret of this key"),
    "self:revoke": _("Revoke this key"),
}
_RESERVED_RESOURCES = frozenset(scope.partition(":")[0] for scope in RESERVED)


def is_scope(text: object) -> bool:
    """Tell whether *text* is ``resource:action``, without a wildcard."""
    return isinstance(text, str) and _SCOPE.fullmatch(text) is not None


def is_reserved(scope: str) -> bool:
    """Tell whether *scope* speaks of keys themselves."""
    return scope.partition(":")[0] in _RESERVED_RESOURCES


def manages_keys(scope: str) -> bool:
    """Tell whether *scope* is one that lets a key manage keys; no key grants it."""
    return scope.partition(":")[0] == "apikeys"


def is_known(scope: str, registry: Collection[str]) -> bool:
    """Tell whether *scope* can be granted: registered, or a wildcard over registered ones."""
    if scope == "*" or scope in RESERVED:
        return True
    if is_reserved(scope):
        return False
    if scope in registry:
        return True
    resource, _, action = scope.partition(":")
    return action == "*" and any(known.partition(":")[0] == resource for known in registry)


def read_stored(stored: object) -> frozenset[str]:
    """Return the scopes of a column; whatever in it is malformed grants nothing."""
    if not isinstance(stored, list):
        return frozenset()
    return frozenset(
        scope
        for scope in stored
        if isinstance(scope, str) and (is_scope(scope) or _WILDCARD.fullmatch(scope))
    )


def covers(
    granted: Collection[str],
    required: Iterable[str],
    implied: Mapping[str, Collection[str]] | None = None,
) -> bool:
    """Tell whether *granted* covers every one of *required*.

    implied: what a granted scope brings along, by scope (``jobs:write``) or by
    action for every resource (``write``); the latter leaves out keys themselves.
    """
    everything = with_implied(granted, implied) if implied else granted
    return all(_covers_one(everything, scope) for scope in required)


def with_implied(
    granted: Collection[str], implied: Mapping[str, Collection[str]]
) -> frozenset[str]:
    """Return *granted* and all that it brings along, to the last."""
    found = set(granted)
    while more := set(_brought_along(found, implied)) - found:
        found |= more
    return frozenset(found)


def beyond(
    scopes: Iterable[str],
    grantable: Collection[str],
    registry: Collection[str] | None = None,
    implied: Mapping[str, Collection[str]] | None = None,
) -> list[str]:
    """Return those of *scopes* that are, or bring along, more than *grantable*.

    registry: the scopes there are. With it a wildcard also lies within *grantable* where
    all that it covers today does; without it only where a wildcard as wide is there.
    implied: as ``covers`` takes it.
    """
    return [
        scope
        for scope in scopes
        if not all(
            _covers_one(grantable, one) or _all_covered(one, grantable, registry)
            for one in with_implied((scope,), implied or {})
        )
    ]


def _all_covered(scope: str, grantable: Collection[str], registry: Collection[str] | None) -> bool:
    if registry is None or not scope.endswith("*"):
        return False
    covered = (known for known in registry if _covers_one((scope,), known))
    return all(_covers_one(grantable, known) for known in covered)


def _brought_along(
    granted: Collection[str], implied: Mapping[str, Collection[str]]
) -> Iterable[str]:
    for source, targets in implied.items():
        if is_scope(source):
            # A wildcard brings along what the scopes that it covers do.
            if _covers_one(granted, source):
                yield from targets
            continue
        for scope in granted:
            resource, _, action = scope.partition(":")
            if action == source and not is_reserved(scope):
                yield from (f"{resource}:{target}" for target in targets)


def _covers_one(granted: Collection[str], scope: str) -> bool:
    if scope in granted:
        return True
    if is_reserved(scope):
        return False
    return "*" in granted or f"{scope.partition(':')[0]}:*" in granted
