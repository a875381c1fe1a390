"""THE DOOR IN: a request's secret, its client and the moment become a Grant, or an error.

The order of the checks is that of the contract: shape and checksum without the
database, one SELECT by public id, the digest in constant time, the address, the
state of the key and its owner, the scopes. Nothing is written but the first use of
a secret and its digest under a new pepper, once each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import Error as DatabaseTrouble
from django.db import router
from django.utils import timezone

from django_apikeys import credentials, limits, logs, services, signals
from django_apikeys.actors import user_agent_of
from django_apikeys.afterwards import outside_transaction
from django_apikeys.conf import conf
from django_apikeys.exceptions import (
    AddressNotAllowed,
    InsufficientScope,
    KeyRefused,
    MalformedKey,
    NotAuthenticated,
    Refused,
    Unavailable,
    UnknownKey,
    WrongSecret,
)
from django_apikeys.keys import scopes as grammar
from django_apikeys.keys.format import mask, parse
from django_apikeys.keys.grants import Grant
from django_apikeys.keys.restrictions import CURRENT, PREVIOUS, KeyState, Refusal, refusal
from django_apikeys.models import APIKey, APIKeySecret
from django_apikeys.policy import OwnerColumns
from django_apikeys.recording import Use, note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from django.http import HttpRequest

    from django_apikeys.credentials import Credential
    from django_apikeys.keys.networks import Address

# The columns of the one SELECT, beside those that the policy names of the owner.
_COLUMNS = (
    "id",
    "prefix",
    "public_id",
    "last_four",
    "digest",
    "slot",
    "retires_at",
    "grace_seconds",
    "first_used_at",
    "reused_at",
    "key_id",
    "key__name",
    "key__environment",
    "key__scopes",
    "key__allowed_ips",
    "key__rate_limit",
    "key__enabled",
    "key__expires_at",
    "key__revoked_at",
    "key__owner_id",
)
_OWNER = "key__owner__"

# Set by whoever asks for nothing: any key will do.
ANY_KEY: tuple[str, ...] = ()


def verify(
    request: HttpRequest,
    *,
    required_scopes: Collection[str] | None = ANY_KEY,
    now: datetime | None = None,
) -> Grant:
    """Return the Grant of the key that *request* carries.

    required_scopes: what the key must be allowed to do; None where nobody has said,
    which refuses it. now: aware; default the present.
    Raises Refused: NotAuthenticated where nothing of ours was sent, InvalidRequest,
    InvalidKey, KeyRefused, AddressNotAllowed, InsufficientScope, Unavailable.
    """
    try:
        credential = credentials.extract(request)
        if credential is not None:
            address = conf.client_resolver(request)
            return _verify(request, credential, address, required_scopes, now or timezone.now())
    except Refused as refused:
        address = conf.client_resolver(request)
        signals.send(
            signals.key_refused,
            code=refused.code,
            public_id=refused.public_id,
            address=None if address is None else str(address),
        )
        raise
    raise NotAuthenticated


averify = sync_to_async(verify, thread_sensitive=True)


def _verify(
    request: HttpRequest,
    credential: Credential,
    address: Address | None,
    required_scopes: Collection[str] | None,
    now: datetime,
) -> Grant:
    parsed = parse(credential.secret, conf.PREFIXES, conf.ENVIRONMENTS)
    if parsed.environment not in conf.ACCEPTED_ENVIRONMENTS:
        raise MalformedKey
    row = _look_up(parsed.public_id)
    if row is None:
        conf.hasher.burn(credential.secret)
        raise UnknownKey
    owner = OwnerColumns(
        (name.removeprefix(_OWNER), value)
        for name, value in row.items()
        if name.startswith(_OWNER)
    )
    _check_secret(credential, row, owner)
    owner_id = "" if row["key__owner_id"] is None else str(row["key__owner_id"])
    use = Use(row["key_id"], row["id"], owner_id, now, address)
    use.in_grace = row["slot"] == PREVIOUS
    try:
        _check_restrictions(row, owner, address, now)
        grant = use.grant = _grant(row, owner)
        _check_scopes(grant, required_scopes)
    except KeyRefused as refused:
        if refused.code == Refusal.RETIRED_SECRET:
            _note_reuse(request, row, address, now)
        raise
    except (AddressNotAllowed, InsufficientScope):
        # What is counted of a refusal: `request.auth` will be empty. A 401 is not.
        use.outcome = "refused"
        note(request, use)
        raise
    note(request, use)
    if row["first_used_at"] is None:
        outside_transaction("first use", row["id"], lambda: _mark_first_use(row, now))
    if conf.hasher.needs_rehash(row["digest"]) and conf.REHASH:
        old, new = row["digest"], conf.hasher.digest(credential.secret)
        outside_transaction(
            "rehash", row["id"], lambda: services.rehash_secret(row["id"], old=old, new=new)
        )
    return grant


def _look_up(public_id: str) -> Mapping[str, Any] | None:
    columns = [*_COLUMNS, *(_OWNER + name for name in conf.policy.columns())]
    # The primary, not a replica that may lag: a revoke holds from the next request on.
    secrets = APIKeySecret.objects.using(router.db_for_write(APIKeySecret))
    try:
        return next(iter(secrets.filter(public_id=public_id).values(*columns)[:1]), None)
    except DatabaseTrouble as error:
        logs.once_a_minute("look-up", "The database did not answer for an API key.", exc_info=True)
        raise Unavailable from error


def _check_secret(
    credential: Credential, row: Mapping[str, Any], owner: Mapping[str, Any]
) -> None:
    if not conf.hasher.verify(credential.secret, row["digest"]):
        if not conf.hasher.knows(row["digest"]):
            logs.once_a_minute(
                "pepper",
                "An API key was refused because the pepper of its digest is not configured: %s. "
                "List it in APIKEYS_PEPPERS, or the SECRET_KEY it was derived from in "
                "SECRET_KEY_FALLBACKS.",
                "$".join(row["digest"].split("$")[:2]),
            )
        raise WrongSecret(row["public_id"])
    # Only now, so that a user name cannot be guessed without the secret.
    if credential.username and credential.username not in conf.policy.basic_usernames(owner):
        raise WrongSecret(row["public_id"])


def _check_restrictions(
    row: Mapping[str, Any], owner: Mapping[str, Any], address: Address | None, now: datetime
) -> None:
    state = KeyState(
        allowed_ips=row["key__allowed_ips"],
        slot=row["slot"],
        retires_at=row["retires_at"],
        revoked_at=row["key__revoked_at"],
        enabled=row["key__enabled"],
        expires_at=row["key__expires_at"],
        owner_is_active=row["key__owner_id"] is None or conf.policy.is_active(owner),
    )
    reason = refusal(state, address, now)
    if reason is Refusal.ADDRESS_NOT_ALLOWED:
        raise AddressNotAllowed(row["public_id"])
    if reason is not None:
        raise KeyRefused(reason.value, row["public_id"])


def _check_scopes(grant: Grant, required: Collection[str] | None) -> None:
    missing = [scope for scope in required or () if not grant.has_scope(scope)]
    if required is None or missing:
        raise InsufficientScope(required, missing, grant.public_id)


def _grant(row: Mapping[str, Any], owner: Mapping[str, Any]) -> Grant:
    owner_id = row["key__owner_id"]
    plan = None if owner_id is None else conf.policy.plan(owner)
    own_limits = {} if owner_id is None else limits.plan_limits(plan, owner)
    return Grant(
        key_id=row["key_id"],
        public_id=row["public_id"],
        name=row["key__name"],
        environment=row["key__environment"],
        scopes=grammar.read_stored(row["key__scopes"]),
        owner_id=owner_id,
        plan=plan,
        masked=mask(row["prefix"], row["key__environment"], row["public_id"], row["last_four"]),
        secret_id=row["id"],
        allowed_ips=tuple(row["key__allowed_ips"]),
        rate_limit=row["key__rate_limit"] or None,
        plan_rate=own_limits.get("rate"),
        quota=own_limits.get("quota"),
        expires_at=row["key__expires_at"],
        retires_at=row["retires_at"],
        in_grace=row["slot"] == PREVIOUS,
        implied_scopes=conf.IMPLIED_SCOPES,
        loader=_loader,
    )


def _mark_first_use(row: Mapping[str, Any], now: datetime) -> None:
    waited_for = row["slot"] == CURRENT and row["grace_seconds"] is not None
    begins_grace_in = row["key_id"] if waited_for else None
    services.mark_first_use(row["id"], now, begins_grace_in=begins_grace_in)


def _note_reuse(
    request: HttpRequest, row: Mapping[str, Any], address: Address | None, now: datetime
) -> None:
    told, expires_at = row["reused_at"], row["key__expires_at"]
    if told is not None and told > now - services.REUSE_TOLD_EVERY:
        return
    if expires_at is not None and expires_at <= now:
        return  # its grace ended with its key: a program that was not told is no thief
    sender = {
        "address": "" if address is None else str(address),
        "user_agent": user_agent_of(request),
    }
    outside_transaction("reuse", row["id"], lambda: services.note_reuse(row["id"], now, **sender))


class _Loader:
    def owner(self, grant: Grant) -> Any:
        if grant.owner_id is None:
            return None
        # The base manager, as a foreign key has it, which hides no rows.
        model = apps.get_model(conf.OWNER_MODEL)
        return model._base_manager.using(router.db_for_write(model)).get(pk=grant.owner_id)

    def key(self, grant: Grant) -> APIKey:
        return APIKey.objects.using(router.db_for_write(APIKey)).get(pk=grant.key_id)


_loader = _Loader()
