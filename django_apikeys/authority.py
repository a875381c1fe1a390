"""What a person may do with keys, as the policy has it: asked by API and admin alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from django_apikeys.conf import conf
from django_apikeys.exceptions import BeyondCeiling, NotPermitted
from django_apikeys.keys import scopes as grammar
from django_apikeys.models import APIKey, APIKeyEvent

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.db.models import QuerySet

    from django_apikeys.models import APIKeyQuerySet, AppendOnlyQuerySet
    from django_apikeys.policy import Action

_NOT_PERMITTED = _("You may not do this with API keys of this owner.")


class Authority:
    """The policy's answers for one person."""

    def __init__(self, person: Any) -> None:
        self._person = person

    def owners(self, action: Action) -> QuerySet[Any]:
        """Return the owners for whose keys the person may do *action*."""
        return conf.policy.owners(self._person, action)

    def may_for_project(self, action: Action) -> bool:
        """Tell whether the person may do *action* with keys that have no owner."""
        return conf.policy.may_manage_project_keys(self._person, action)

    def visible_keys(self) -> APIKeyQuerySet:
        """Return the keys that the person may see."""
        visible = Q(owner__in=self.owners("see"))
        if self.may_for_project("see"):
            visible |= Q(owner=None)
        return APIKey.objects.listed().filter(visible)

    def visible_events(self) -> AppendOnlyQuerySet:
        """Return the events that the person may see, those of deleted keys included."""
        of_project = self.may_for_project("see")
        return APIKeyEvent.objects.visible(self.owners("see"), of_project=of_project)

    def require(self, action: Action, owner_id: Any) -> None:
        """Raise NotPermitted unless the person may do *action* for this owner.

        owner_id: None is the project itself.
        """
        if owner_id is None:
            allowed = self.may_for_project(action)
        else:
            allowed = self.owners(action).filter(pk=owner_id).exists()
        if not allowed:
            raise NotPermitted(_NOT_PERMITTED)

    def require_any(self, action: Action) -> None:
        """Raise NotPermitted where the person may do *action* for nobody at all."""
        if not (self.owners(action).exists() or self.may_for_project(action)):
            raise NotPermitted(_NOT_PERMITTED)

    def grantable(self, owner: Any) -> Collection[str]:
        """Return the scopes that the person may give to a key of *owner*."""
        return conf.policy.grantable_scopes(self._person, owner)

    def require_grantable(self, scopes: Collection[str], owner: Any) -> None:
        """Raise BeyondCeiling, which names them, where some of *scopes* are not theirs to give."""
        beyond = grammar.beyond(scopes, self.grantable(owner), conf.SCOPES)
        if beyond:
            raise BeyondCeiling(
                _("You may not grant: %(scopes)s.") % {"scopes": ", ".join(beyond)}
            )

    def owner_named(self, identifier: Any) -> Any:
        """Return the owner with this primary key, for whom the person may create keys.

        Raises ValidationError where the person sees no such owner, NotPermitted where
        they do but may not create.
        """
        owner = with_key(self.owners("create"), identifier)
        if owner is not None:
            return owner
        if with_key(self.owners("see"), identifier) is not None:
            raise NotPermitted(_NOT_PERMITTED)
        raise ValidationError(_("There is no such owner."))

    def only_owner(self) -> Any:
        """Return the one owner for whom the person may create keys; None is the project.

        Raises ValidationError where there are several.
        """
        owners = list(self.owners("create")[:2])
        if len(owners) > 1:
            raise ValidationError(_("Say for which owner: several are possible."))
        return owners[0] if owners else self.project()

    def project(self) -> None:
        """Return None, the project itself, where the person may create keys for it.

        Raises ValidationError where they may not.
        """
        if not self.may_for_project("create"):
            raise ValidationError(_("A key needs an owner."))


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
