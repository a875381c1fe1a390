"""Who may do what with the keys of an organisation: the answer to APIKEYS_POLICY."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from django.contrib.auth import get_user_model

from django_apikeys.policy import Action, BasePolicy
from example_project.crm.models import Organisation, Role

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django.db.models import QuerySet

    from django_apikeys.models import APIKey

MAY: Mapping[Role, tuple[Action, ...]] = {
    Role.OWNER: get_args(Action),
    Role.ADMIN: ("see", "revoke"),
    Role.MEMBER: ("see",),
}


class OrganisationPolicy(BasePolicy):
    """Keys belong to organisations; what a person may do is up to their role."""

    owner_fields = ("is_active", "plan", "slug")

    def owners(self, person: Any, action: Action) -> QuerySet[Organisation]:
        # A key's request.user has no pk, and to the ORM None would mean "no member".
        if person.pk is None or not person.is_active:
            return Organisation.objects.none()
        roles = [role for role, actions in MAY.items() if action in actions]
        return Organisation.objects.filter(
            memberships__user=person.pk, memberships__role__in=roles
        )

    def is_active(self, owner: Mapping[str, Any]) -> bool:
        return bool(owner["is_active"])

    def plan(self, owner: Mapping[str, Any]) -> str:
        return str(owner["plan"])

    def basic_usernames(self, owner: Mapping[str, Any]) -> Collection[str]:
        return (owner["slug"],)

    def find_owner(self, text: str) -> Organisation:
        """Return the organisation with this slug, else name, else primary key."""
        for lookup in ("slug", "name"):
            found = Organisation.objects.filter(**{lookup: text})[:2]
            if len(found) == 1:  # names may be shared: then nobody is meant
                return found[0]
        organisation: Organisation = super().find_owner(text)
        return organisation

    def owner_name(self, owner: Organisation) -> str:
        return owner.name

    def notice_recipients(self, key: APIKey) -> Sequence[str]:
        """The Owners of the organisation, who can do something about it."""
        if key.owner is None or not key.owner.is_active:
            return ()
        people = get_user_model().objects.filter(
            memberships__organisation=key.owner, memberships__role=Role.OWNER, is_active=True
        )
        return [person.email for person in people.order_by("pk") if person.email]
