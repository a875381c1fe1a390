"""Who may do what with which keys, and how far: the policy's answers and the ceiling.

A person has what the policy gives them, an API key what it is itself. API, admin and
page ask before a change; ``services`` asks again under the lock, with the rows as they
are then, so that two requests at once get no more than one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import router
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys.conf import conf
from django_apikeys.exceptions import BeyondCeiling, Conflict, KeyRefused, NotPermitted
from django_apikeys.keys import rates
from django_apikeys.keys import scopes as grammar
from django_apikeys.keys.ceiling import Reach, excess, widens
from django_apikeys.keys.grants import Grant
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.models import APIKey, APIKeyEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from django.db.models import QuerySet
    from django.http import HttpRequest

    from django_apikeys.models import APIKeyQuerySet, AppendOnlyQuerySet
    from django_apikeys.policy import Action

# Owners that a statement names one by one.
MOST_NAMED = 100

_NOT_PERMITTED = _("You may not do this with API keys of this owner.")
_ROTATED = _(
    "This secret was rotated: send the current one. Where that is lost, a person rotates the key."
)
# What hands out a secret, or a key that goes further than before.
_GIVING: tuple[Action, ...] = ("create", "rotate", "reveal")


def authority_of(request: HttpRequest) -> Authority:
    """Return what the caller of *request* may do: its key's, where it came with one."""
    grant = getattr(request, "auth", None)
    return KeyAuthority(grant) if isinstance(grant, Grant) else Authority(request.user)


class Authority:
    """What a person may do."""

    # The key through which is asked: its row is locked together with the one to change.
    key_id: UUID | None = None
    default_environment: str | None = None

    def __init__(self, person: Any) -> None:
        self._person = person

    def owners(self, action: Action) -> QuerySet[Any]:
        """Return the owners for whose keys *action* is allowed."""
        return conf.policy.owners(self._person, action)

    def may_for_project(self, action: Action) -> bool:
        """Tell whether *action* is allowed with keys that have no owner."""
        return conf.policy.may_manage_project_keys(self._person, action)

    def grantable(self, owner: Any) -> Collection[str]:
        """Return the scopes that may be given to a key of *owner*."""
        return conf.policy.grantable_scopes(self._person, owner)

    def visible_keys(self) -> APIKeyQuerySet:
        """Return the keys that may be seen."""
        owners = self.owners("see")
        if not self.may_for_project("see"):
            return APIKey.objects.listed().filter(owner__in=owners)
        return APIKey.objects.listed().filter(Q(owner__in=_named(owners)) | Q(owner=None))

    def visible_events(self) -> AppendOnlyQuerySet:
        """Return the events that may be seen, those of deleted keys included."""
        of_project = self.may_for_project("see")
        return APIKeyEvent.objects.visible(self.owners("see"), of_project=of_project)

    def require(self, action: Action, owner_id: Any) -> None:
        """Raise NotPermitted unless *action* is allowed for this owner.

        owner_id: None is the project itself.
        """
        if owner_id is None:
            allowed = self.may_for_project(action)
        else:
            allowed = self.owners(action).filter(pk=owner_id).exists()
        if not allowed:
            raise NotPermitted(_NOT_PERMITTED)

    def require_any(self, action: Action) -> None:
        """Raise NotPermitted where *action* is allowed for nobody at all."""
        if not (self.owners(action).exists() or self.may_for_project(action)):
            raise NotPermitted(_NOT_PERMITTED)

    def confirm(self, own: APIKey | None) -> None:
        """Raise KeyRefused where the key through which is asked is dead by now.

        own: its row, locked; None where it is gone. A person needs none.
        """

    def check(self, action: Action, before: APIKey | None, after: APIKey) -> None:
        """Raise BeyondCeiling, which names what is too much, unless *action* lies within.

        Raises NotPermitted where what lets a key go further is not allowed for its owner.
        before: the key as it is, None where it is to be made; after: as it would be.
        """
        if action in _GIVING or before is None or widens(reach_of(before), reach_of(after)):
            # Asked of the owner too, by whatever door: with a key that goes further its
            # holder acts as that owner.
            self.require("create" if before is None else action, after.owner_id)
            ceiling = Reach(_with_implied(self.grantable(after.owner)))
            _refuse(excess(reach_of(after), ceiling, conf.SCOPES, conf.IMPLIED_SCOPES))

    def owner_named(self, identifier: Any) -> Any:
        """Return the owner with this primary key, for whom keys may be created.

        Raises ValidationError where no such owner may be seen, NotPermitted where one
        may, but is given no keys.
        """
        owner = with_key(self.owners("create"), identifier)
        if owner is not None:
            return owner
        if with_key(self.owners("see"), identifier) is not None:
            raise NotPermitted(_NOT_PERMITTED)
        raise ValidationError(_("There is no such owner."))

    def only_owner(self) -> Any:
        """Return the one owner for whom keys may be created; None is the project.

        Raises ValidationError where there are several.
        """
        owners = list(self.owners("create")[:2])
        if len(owners) > 1:
            raise ValidationError(_("Say for which owner: several are possible."))
        return owners[0] if owners else self.project()

    def project(self) -> None:
        """Return None, the project itself, where keys may be created for it.

        Raises ValidationError where they may not.
        """
        if not self.may_for_project("create"):
            raise ValidationError(_("A key needs an owner."))


class KeyAuthority(Authority):
    """What an API key may do: with keys of its own owner and environment, within itself.

    A secret in its grace may only read: whoever holds the leaked old one must not make
    themselves a new one.
    """

    _needs = "apikeys:write"

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._plan_rate = rates.read_stored(grant.plan_rate)
        self._ceiling = self._limited(_reach_of_grant(grant))
        self.key_id = grant.key_id
        self.default_environment = grant.environment

    def owners(self, action: Action) -> QuerySet[Any]:
        owners: QuerySet[Any] = apps.get_model(conf.OWNER_MODEL)._base_manager.all()
        if self._grant.owner_id is None or not self._may(action):
            return owners.none()
        return owners.filter(pk=self._grant.owner_id)

    def may_for_project(self, action: Action) -> bool:
        return self._grant.owner_id is None and self._may(action)

    def require(self, action: Action, owner_id: Any) -> None:
        self._require_current(action)
        super().require(action, owner_id)

    def require_any(self, action: Action) -> None:
        self._require_current(action)
        super().require_any(action)

    def _require_current(self, action: Action) -> None:
        if self._grant.in_grace and action != "see":
            raise NotPermitted(_ROTATED)

    def grantable(self, owner: Any) -> Collection[str]:
        scopes = self._ceiling.scopes
        return [
            scope
            for scope in conf.SCOPES
            if not grammar.beyond([scope], scopes) and not _manages_keys(scope)
        ]

    def visible_keys(self) -> APIKeyQuerySet:
        return super().visible_keys().filter(environment=self._grant.environment)

    def visible_events(self) -> AppendOnlyQuerySet:
        # An event names no environment, but its key has one; rows of deleted keys stay.
        keys = APIKey.objects.filter(environment=self._grant.environment)
        return super().visible_events().filter(key_id__in=keys.values("pk"))

    def confirm(self, own: APIKey | None) -> None:
        code = _dead(own)
        if own is None or code:
            raise KeyRefused(code or "revoked_key", self._grant.public_id)
        # Of the primary, and as it is now: the snapshot of this transaction may be older.
        secrets = own.secrets.db_manager(own._state.db).select_for_update()
        sent = secrets.filter(public_id=self._grant.public_id)
        self._confirm_slot(sent.values_list("slot", flat=True).first())
        # It may have been narrowed since it was verified.
        self._ceiling = self._limited(reach_of(own, closed=True))
        if self._needs not in self._ceiling.scopes:
            raise NotPermitted(_NOT_PERMITTED)

    def _confirm_slot(self, slot: int | None) -> None:
        """Refuse the secret that was sent where it was rotated since it was verified."""
        if slot is None:
            raise KeyRefused("retired_secret", self._grant.public_id)
        if slot != CURRENT:
            raise NotPermitted(_NOT_PERMITTED)

    def check(self, action: Action, before: APIKey | None, after: APIKey) -> None:
        found: dict[str, Sequence[str]] = {}
        if after.environment != self._grant.environment:
            found["environment"] = (after.environment,)
        for key in (before, after):
            if key is not None:
                reach = self._limited(reach_of(key))
                found |= excess(reach, self._ceiling, implied=conf.IMPLIED_SCOPES)
        granted = after.granted_scopes - (before.granted_scopes if before else frozenset())
        if managing := set(filter(_manages_keys, granted)):
            found["scopes"] = sorted({*found.get("scopes", ()), *managing})
        if before is not None and after.enabled and not before.enabled:
            found["enabled"] = ("an API key enables none",)
        _refuse(found)

    def _limited(self, reach: Reach) -> Reach:
        # Every key that this one manages is of its own owner, and so of the same plan.
        return replace(reach, rate=reach.rate or self._plan_rate)

    def _may(self, action: Action) -> bool:
        if action == "see":
            return True
        return action != "reveal" and not self._grant.in_grace


class SelfAuthority(KeyAuthority):
    """What an API key may do to itself: rotate, by its current secret."""

    _needs = "self:rotate"

    def check(self, action: Action, before: APIKey | None, after: APIKey) -> None:
        # A key lies within itself; it may do nothing else, and nothing to another.
        if action != "rotate" or after.pk != self.key_id:
            raise NotPermitted(_NOT_PERMITTED)

    def _confirm_slot(self, slot: int | None) -> None:
        # It was current when it was verified, or the door would have been shut.
        if slot != CURRENT:
            raise Conflict(_("The secret of this key is another by now."))


def reach_of(key: APIKey, *, closed: bool = False) -> Reach:
    """Return how far *key* reaches; closed: with the scopes that its own bring along."""
    scopes = key.granted_scopes
    return Reach(
        scopes=sorted(_with_implied(scopes) if closed else scopes),
        # An empty list is everywhere. One that cannot be read lets nobody in.
        allowed_ips=None if key.allowed_ips == [] else _texts(key.allowed_ips),
        expires_at=key.expires_at,
        rate=rates.read_stored(key.rate_limit),
        enabled=key.enabled,
    )


def with_key(rows: QuerySet[Any], identifier: Any) -> Any:
    """Return the row with this primary key, as JSON or a URL has it; None where there is none."""
    # Text or a whole number, as far as any column can hold it: true is not the owner 1.
    if not isinstance(identifier, (str, int)) or isinstance(identifier, bool):
        return None
    if isinstance(identifier, str) and "\x00" in identifier:
        return None
    try:
        return rows.filter(pk=identifier).first()
    except (ValueError, TypeError, OverflowError, ValidationError):
        return None


def _named(owners: QuerySet[Any]) -> Any:
    """Return the primary keys of *owners* where these are few, else *owners*."""
    # "In a subquery, or null" is found by no index: it takes a second among a million keys.
    primary = router.db_for_write(owners.model)
    few = list(owners.using(primary).values_list("pk", flat=True)[: MOST_NAMED + 1])
    return few if len(few) <= MOST_NAMED else owners


def _reach_of_grant(grant: Grant) -> Reach:
    return Reach(
        scopes=grammar.with_implied(grant.scopes, grant.implied_scopes),
        allowed_ips=grant.allowed_ips or None,
        expires_at=grant.expires_at,
        rate=rates.read_stored(grant.rate_limit),
    )


def _manages_keys(scope: str) -> bool:
    return any(map(grammar.manages_keys, _with_implied((scope,))))


def _with_implied(scopes: Collection[str]) -> frozenset[str]:
    return grammar.with_implied(scopes, conf.IMPLIED_SCOPES)


def _texts(stored: object) -> Sequence[str]:
    return tuple(map(str, stored)) if isinstance(stored, list) else ()


def _dead(key: APIKey | None) -> str:
    status = "revoked" if key is None else key.status_at(timezone.now())
    return "" if status == "active" else f"{status}_key"


def _refuse(found: Mapping[str, Sequence[str]]) -> None:
    if found:
        raise BeyondCeiling(found)
