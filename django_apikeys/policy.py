"""Who may see and manage which keys: the seam for the host's own rules.

APIKEYS_POLICY names a class; ``BasePolicy`` answers everything with the least, and
``UserPolicy``, the default, lets each user manage their own keys. ``authority`` asks
it for a person, ``verification`` for a request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist, ValidationError

from django_apikeys.conf import conf

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import Model, QuerySet

    from django_apikeys.keys.grants import Grant
    from django_apikeys.models import APIKey

Action = Literal["see", "create", "change", "rotate", "revoke", "reveal", "delete"]
Person = Any  # a user, AnonymousUser included


class OwnerColumns(dict[str, Any]):
    """Columns of an owner by name, as far as ``columns()`` of the policy has them read."""

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(
            f"{name!r} is not read of the owner: name it in owner_fields of the policy."
        )


class Policy(Protocol):
    """What the host decides. One object, made without arguments, kept for the process."""

    owner_fields: Sequence[str]
    """Columns of the owner that methods of yours look at."""

    def columns(self) -> Sequence[str]:
        """Return the columns of the owner that a request needs.

        They come in its one SELECT, and are handed to ``is_active``, ``plan``,
        ``plan_limits`` and ``basic_usernames`` as a dict.
        """

    def owners(self, person: Person, action: Action) -> QuerySet[Any]:
        """Return the owners for whose keys *person* may do *action*.

        Called by every list, and filtered further; it should not evaluate anything.
        """

    def may_manage_project_keys(self, person: Person, action: Action) -> bool:
        """Tell whether *person* may do *action* with keys that have no owner."""

    def grantable_scopes(self, person: Person, owner: Any) -> Collection[str]:
        """Return the scopes that *person* may give to a key of *owner* (None: the project)."""

    def is_active(self, owner: Mapping[str, Any]) -> bool:
        """Tell whether keys of this owner are let in."""

    def plan(self, owner: Mapping[str, Any]) -> str | None:
        """Return the name of the owner's plan, of APIKEYS_PLANS."""

    def plan_limits(self, owner: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what this owner has otherwise than their plan says.

        Of ``rate`` and ``quota``, as in APIKEYS_PLANS; an empty dict: nothing.
        """

    def basic_usernames(self, owner: Mapping[str, Any]) -> Collection[str]:
        """Return the user names that may stand beside a secret in HTTP Basic."""

    def request_user(self, grant: Grant) -> Any:
        """Return ``request.user`` for a key, or None for the default."""

    def find_owner(self, text: str) -> Any:
        """Return the owner whom *text* names on a command line.

        Raises ObjectDoesNotExist where there is none.
        """

    def owner_name(self, owner: Any) -> str:
        """Return what lists and events call the owner."""

    def notice_recipients(self, key: APIKey) -> Sequence[str]:
        """Return the e-mail addresses that are told of *key*: it expires, say.

        Called by ``apikeys notify``, which logs what it raises, and tries again later.
        Each address gets a message of its own; none: nobody gets one.
        """


class BasePolicy:
    """Nobody may do anything; owners are active, without a plan, named by ``str()``."""

    owner_fields: Sequence[str] = ()

    @property
    def owner_model(self) -> type[Model]:
        """The model that APIKEYS_OWNER_MODEL names."""
        return apps.get_model(conf.OWNER_MODEL)

    def columns(self) -> Sequence[str]:
        return self.owner_fields

    def owners(self, person: Person, action: Action) -> QuerySet[Any]:
        return self.owner_model._default_manager.none()

    def may_manage_project_keys(self, person: Person, action: Action) -> bool:
        return bool(getattr(person, "is_active", False) and getattr(person, "is_superuser", False))

    def grantable_scopes(self, person: Person, owner: Any) -> Collection[str]:
        return conf.SCOPES.keys()

    def is_active(self, owner: Mapping[str, Any]) -> bool:
        return True

    def plan(self, owner: Mapping[str, Any]) -> str | None:
        return None

    def plan_limits(self, owner: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def basic_usernames(self, owner: Mapping[str, Any]) -> Collection[str]:
        return ()

    def request_user(self, grant: Grant) -> Any:
        return None

    def find_owner(self, text: str) -> Any:
        try:
            return self.owner_model._default_manager.get(pk=text)
        except (ValueError, ValidationError) as error:
            raise ObjectDoesNotExist(text) from error

    def owner_name(self, owner: Any) -> str:
        return str(owner)

    def notice_recipients(self, key: APIKey) -> Sequence[str]:
        return ()


class UserPolicy(BasePolicy):
    """Keys belong to users, and each active user manages their own.

    A subclass names in ``owner_fields`` what it looks at itself, and no more: the columns of
    this class are read whatever that says.
    """

    def columns(self) -> Sequence[str]:
        """Return the subclass's own, the user names, and ``is_active`` where there is one."""
        return sorted({*self.owner_fields, *_user_names(), *_activity()})

    def owners(self, person: Person, action: Action) -> QuerySet[Any]:
        users = get_user_model()._default_manager
        if isinstance(person, AnonymousUser) or not getattr(person, "is_active", False):
            return users.none()
        return users.filter(pk=person.pk)

    def is_active(self, owner: Mapping[str, Any]) -> bool:
        # Not owner.get(): of a column that was not read nobody knows that it is true.
        return all(owner[name] for name in _activity())

    def basic_usernames(self, owner: Mapping[str, Any]) -> Collection[str]:
        return [str(owner[name]) for name in _user_names() if owner.get(name)]

    def find_owner(self, text: str) -> AbstractBaseUser:
        users = get_user_model()._default_manager
        try:
            return users.get_by_natural_key(text)
        except ObjectDoesNotExist:
            found: AbstractBaseUser = super().find_owner(text)
            return found

    def owner_name(self, owner: Any) -> str:
        return str(owner.get_username())

    def notice_recipients(self, key: APIKey) -> Sequence[str]:
        """The owner's address, where they are active and have one."""
        owner: Any = key.owner
        if owner is None or not owner.is_active:
            return ()
        address = getattr(owner, owner.get_email_field_name(), None)
        return (address,) if address else ()


def _user_names() -> Collection[str]:
    user_model = get_user_model()
    return _columns_of(user_model, user_model.USERNAME_FIELD, user_model.get_email_field_name())


def _activity() -> Collection[str]:
    return _columns_of(get_user_model(), "is_active")


@lru_cache(maxsize=8)
def _columns_of(model: type[Model], *names: str) -> Collection[str]:
    """Return those of *names* that *model* stores: not each user model has them all."""
    return sorted({field.name for field in model._meta.concrete_fields}.intersection(names))
