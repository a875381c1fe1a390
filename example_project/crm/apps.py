from __future__ import annotations

from django.apps import AppConfig


class CRMConfig(AppConfig):
    name = "example_project.crm"
    verbose_name = "CRM"
