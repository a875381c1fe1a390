"""Findings of ``manage.py check`` about the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own names
from django.core.exceptions import FieldError, ImproperlyConfigured

from django_apikeys.conf import conf
from django_apikeys.policy import BasePolicy, UserPolicy

if TYPE_CHECKING:
    from django.db.models import Model

    from django_apikeys.policy import Policy


def policy_findings() -> list[CheckMessage]:
    """E003: the policy is not one for the owner model. W017: it limits nobody."""
    try:
        policy = conf.policy
        owner_model = apps.get_model(conf.OWNER_MODEL)
        plans = conf.PLANS
    except (ImproperlyConfigured, LookupError, ValueError):
        return []  # E001 says so, or Django's check of the foreign key
    unfit = _unfit_for(policy, owner_model)
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
