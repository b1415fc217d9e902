"""Worker processes, as the fleet sees them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..querysets.workers import WorkerQuerySet
from ..rendering import visible
from .fields import NameField


class Worker(models.Model):
    """One ``runjobs`` process. Its jobs point here while they run."""

    id = models.BigAutoField(primary_key=True)
    name = NameField(_("worker id"), max_length=200)
    host = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    queues = models.JSONField(_("queues"), help_text=_("Concurrency by queue name."))
    started_at = models.DateTimeField(_("started at"), db_default=Now())
    seen_at = models.DateTimeField(_("seen at"), db_default=Now(), help_text=_("Time of the last heartbeat."))
    lease_expires_at = models.DateTimeField(_("lease expires at"), help_text=_("Counted as lost after this time."))
    stopped_at = models.DateTimeField(_("stopped at"), null=True, blank=True)
    lost_with = models.IntegerField(
        _("lost with"), null=True, blank=True, help_text=_("How many jobs it held when it was found lost.")
    )
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    pause_mode = models.CharField(_("pause mode"), max_length=10, db_default="")
    pause_reason = models.TextField(_("pause reason"), db_default="")
    paused_by = models.CharField(_("paused by"), max_length=200, db_default="")
    stop_requested_at = models.DateTimeField(_("stop requested at"), null=True, blank=True)
    obeys = models.JSONField(
        _("obeys"), default=dict, help_text=_("Pauses it has obeyed: no job of these queues begins here any more.")
    )

    limited = models.BooleanField(_("limited"), db_default=False, help_text=_("Claims under the fleet's limit only."))

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("pause_worker", "Can pause and resume workers"),
            ("stop_worker", "Can stop workers"),
        ]

    def __str__(self) -> str:
        return visible(self.name)
