"""The app: its checks are registered when it is ready."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _


class APIKeysConfig(AppConfig):
    """django_apikeys."""

    name = "django_apikeys"
    verbose_name = _("API keys")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from django_apikeys import checks as findings  # noqa: PLC0415 - needs the apps

        checks.register(findings.check_settings, "django_apikeys")
        checks.register(findings.check_policy, "django_apikeys")
        checks.register(findings.check_peppers, checks.Tags.database)
        checks.register(findings.check_deployment, "django_apikeys", deploy=True)
        checks.register(findings.check_views, "django_apikeys")
