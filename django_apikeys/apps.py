"""The app: its checks and its receivers are connected when it is ready."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.contrib.auth.signals import user_logged_in
from django.core import checks
from django.db.models.signals import pre_delete
from django.utils.translation import gettext_lazy as _


class APIKeysConfig(AppConfig):
    """django_apikeys."""

    name = "django_apikeys"
    verbose_name = _("API keys")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and what notes deleted rows and logins."""
        from django_apikeys import checks as findings  # noqa: PLC0415 - needs the apps
        from django_apikeys import logins, models, retrievable_checks, services  # noqa: PLC0415

        pre_delete.connect(services.note_deleted_row, sender=models.APIKey)
        user_logged_in.connect(logins.note_login, dispatch_uid="django_apikeys.logins")

        checks.register(findings.check_settings, "django_apikeys")
        checks.register(findings.check_policy, "django_apikeys")
        checks.register(findings.check_peppers, checks.Tags.database)
        checks.register(findings.check_owner_column, checks.Tags.database)
        checks.register(retrievable_checks.check_kept_secrets, checks.Tags.database)
        checks.register(findings.check_deployment, "django_apikeys", deploy=True)
        checks.register(findings.check_views, "django_apikeys")

        if apps.is_installed("drf_spectacular"):
            from django_apikeys.contrib import drf_spectacular  # noqa: F401, PLC0415 - registers
