"""Registers the app: finds the project's ``jobs`` modules and the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class DurableJobsConfig(AppConfig):
    """Durable jobs."""

    name = "django_durable_jobs"
    verbose_name = _("Durable jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import every installed app's ``jobs`` module, so that its definitions are registered."""
        from . import checks  # noqa: F401, PLC0415 -- registers itself; needs loaded apps

        autodiscover_modules("jobs")
