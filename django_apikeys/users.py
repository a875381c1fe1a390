"""``request.user`` of a request that came with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db.models.manager import EmptyManager
from django.utils.functional import SimpleLazyObject

from django_apikeys.conf import conf

if TYPE_CHECKING:
    from django_apikeys.keys.grants import Grant


class APIKeyUser:
    """Who calls with the key of an organisation or of the project: nobody in particular.

    AnonymousUser's interface, but authenticated. It has no permission, whatever the
    authentication backends grant to the anonymous.
    """

    id: None = None
    pk: None = None
    username: Literal[""] = ""
    is_staff: Literal[False] = False
    is_superuser: Literal[False] = False
    is_active: Literal[True] = True
    is_anonymous: Literal[False] = False
    is_authenticated: Literal[True] = True
    groups = EmptyManager(Group)
    user_permissions = EmptyManager(Permission)

    def __init__(self, grant: Grant) -> None:
        self.grant = grant

    def __str__(self) -> str:
        return "APIKeyUser"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, APIKeyUser) and other.grant.key_id == self.grant.key_id

    def __hash__(self) -> int:
        return hash(self.grant.key_id)

    def get_username(self) -> str:
        return self.username

    def get_user_permissions(self, obj: Any = None) -> set[str]:
        return set()

    def get_group_permissions(self, obj: Any = None) -> set[str]:
        return set()

    def get_all_permissions(self, obj: Any = None) -> set[str]:
        return set()

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    def has_perms(self, perm_list: Any, obj: Any = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False

    async def aget_user_permissions(self, obj: Any = None) -> set[str]:
        return set()

    async def aget_group_permissions(self, obj: Any = None) -> set[str]:
        return set()

    async def aget_all_permissions(self, obj: Any = None) -> set[str]:
        return set()

    async def ahas_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    async def ahas_perms(self, perm_list: Any, obj: Any = None) -> bool:
        return False

    async def ahas_module_perms(self, app_label: str) -> bool:
        return False

    # What AnonymousUser refuses too: there is no row.

    def save(self) -> NoReturn:
        raise NotImplementedError("An APIKeyUser has no row.")

    def delete(self) -> NoReturn:
        raise NotImplementedError("An APIKeyUser has no row.")

    def set_password(self, raw_password: str) -> NoReturn:
        raise NotImplementedError("An APIKeyUser has no row.")

    def check_password(self, raw_password: str) -> NoReturn:
        raise NotImplementedError("An APIKeyUser has no row.")


class LazyUser(SimpleLazyObject):  # type: ignore[type-arg]  # generic for the checker alone
    """The owner of a key, loaded when more is asked of them than who they are."""

    is_authenticated: Literal[True] = True
    is_anonymous: Literal[False] = False

    def __init__(self, grant: Grant) -> None:
        super().__init__(lambda: grant.owner)
        self.__dict__["pk"] = grant.owner_id

    def __bool__(self) -> bool:
        return True


def request_user(grant: Grant) -> Any:
    """Return ``request.user`` for *grant*: what the policy says, else its owner.

    That is a user as they are, loaded when touched; for any other owner an APIKeyUser.
    """
    user = conf.policy.request_user(grant)
    if user is not None:
        return user
    owner_model = apps.get_model(conf.OWNER_MODEL)
    if grant.owner_id is not None and issubclass(owner_model, get_user_model()):
        return LazyUser(grant)
    return APIKeyUser(grant)
