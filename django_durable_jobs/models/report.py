"""Execution reports of pipelines."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class ExecutionReport(models.Model):
    """What the tasks of a pipeline's run came to: one row per job, written when the run ends."""

    OUTCOMES: ClassVar = [
        ("completed", _("completed")),
        ("completed_with_errors", _("completed with errors")),
        ("failed", _("failed")),
        ("failed_stale", _("failed, stale")),
        ("timeout", _("timeout")),
        ("cancelled", _("cancelled")),
    ]

    job = models.OneToOneField(
        "Job",
        verbose_name=_("job"),
        on_delete=models.CASCADE,
        related_name="report",
        primary_key=True,
        db_constraint=False,  # written under the lock of its job
    )
    outcome = models.CharField(_("outcome"), max_length=21, choices=OUTCOMES)
    tasks = models.TextField(_("tasks"), help_text=_("Each task with its attempts, as JSON."))
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), db_default=Now())

    class Meta:
        verbose_name = _("execution report")
        verbose_name_plural = _("execution reports")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.outcome
