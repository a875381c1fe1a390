"""Findings of ``manage.py check`` about the policy."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Any, TypeGuard

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own names
from django.core.exceptions import FieldError, ImproperlyConfigured

from django_apikeys.conf import conf
from django_apikeys.policy import BasePolicy, UserPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.models import Model

    from django_apikeys.policy import Policy

_GIVEN_COLUMNS = ("is_active", "plan", "plan_limits", "basic_usernames")


def policy_findings() -> list[CheckMessage]:
    """E003: the policy is not one for the owner model. W017: it limits nobody."""
    try:
        policy = conf.policy
        owner_model = apps.get_model(conf.OWNER_MODEL)
        plans = conf.PLANS
    except (ImproperlyConfigured, LookupError, ValueError):
        return []  # E001 says so, or Django's check of the foreign key
    unfit = _unfit_for(policy, owner_model) or _unread_columns(policy)
    has_limits = any(plans.values())
    return [*unfit, *(_without_plans(policy) if has_limits else ())]


def _unfit_for(policy: Policy, owner_model: type[Model]) -> list[CheckMessage]:
    problem = ""
    if isinstance(policy, UserPolicy) and not issubclass(owner_model, get_user_model()):
        problem = f"{type(policy).__name__} is for keys of users, and APIKEYS_OWNER_MODEL is not."
    else:
        try:
            str(owner_model._base_manager.values("pk", *policy.columns()).query)
        except FieldError as error:
            problem = f"owner_fields of {type(policy).__name__}: {error}"
    if not problem:
        return []
    return [
        Error(
            problem,
            hint="Let APIKEYS_POLICY name a policy of yours that fits APIKEYS_OWNER_MODEL.",
            id="django_apikeys.E003",
        )
    ]


def _unread_columns(policy: Policy) -> list[CheckMessage]:
    read = set(policy.columns())
    name = type(policy).__name__
    findings: list[CheckMessage] = []
    for method in _GIVEN_COLUMNS:
        asked = _columns_asked(getattr(policy, method, None))
        if unread := sorted(asked - read):
            columns = ", ".join(map(repr, unread))
            findings.append(
                Error(
                    f"{name}.{method} looks at columns of the owner that are not read: "
                    f"{columns}. Every key is answered by a KeyError.",
                    hint=f"Name them in owner_fields of {name}.",
                    id="django_apikeys.E003",
                )
            )
    return findings


def _columns_asked(method: Callable[..., Any] | None) -> set[str]:
    """Return the columns that *method* looks at by ``owner["plan"]``, as its source has it.

    It is read and not called: what a policy does with an owner who is none, nobody knows.
    """
    try:
        source = inspect.getsource(inspect.unwrap(method))  # type: ignore[arg-type]  # a TypeError
        function = ast.parse(textwrap.dedent(source)).body[0]
    except (OSError, TypeError, SyntaxError):
        return set()  # there is no source, or none that stands alone
    if not isinstance(function, ast.FunctionDef) or not function.args.args:
        return set()
    owner = function.args.args[-1].arg
    nodes = list(ast.walk(function))
    return set() if any(_is_prepared(node, owner) for node in nodes) else set(_keys(nodes, owner))


def _is_prepared(node: ast.AST, owner: str) -> bool:
    """Tell whether *node* looks first what there is, catches what is not, or adds to it."""
    if isinstance(node, ast.Compare):
        return any(_is_name(side, owner) for side in node.comparators)
    return isinstance(node, (ast.Try, ast.With)) or (
        _is_name(node, owner) and isinstance(node.ctx, ast.Store)
    )


def _keys(nodes: Iterable[ast.AST], owner: str) -> Iterable[str]:
    for node in nodes:
        if (
            isinstance(node, ast.Subscript)
            and _is_name(node.value, owner)
            and isinstance(node.slice, ast.Constant)
        ):
            yield str(node.slice.value)


def _is_name(node: ast.AST, name: str) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id == name


def _without_plans(policy: Policy) -> list[CheckMessage]:
    class_ = type(policy)
    if (
        getattr(class_, "plan", None) is not BasePolicy.plan
        or getattr(class_, "plan_limits", None) is not BasePolicy.plan_limits
    ):
        return []
    return [
        Warning(
            f"APIKEYS_PLANS limits nobody: {class_.__name__} names no owner's plan.",
            hint=(
                "Let APIKEYS_POLICY name a policy of yours with a method plan(owner), or with "
                "plan_limits(owner): docs/policy.md has one."
            ),
            id="django_apikeys.W017",
        )
    ]
