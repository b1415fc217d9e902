"""The history of what went wrong: one row per attempt that did not succeed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class Attempt(models.Model):
    """An attempt that failed, or was lost with its worker. Successful attempts leave no row."""

    LOST: ClassVar = "lost"
    ENDS: ClassVar = [("failed", _("failed")), (LOST, _("worker lost"))]

    id = models.BigAutoField(primary_key=True)
    # No constraint in the database: see Checkpoint.job.
    job = models.ForeignKey("Job", on_delete=models.CASCADE, related_name="attempts", db_constraint=False)
    number = models.SmallIntegerField(_("attempt"))
    end = models.CharField(_("end"), max_length=6, choices=ENDS)
    error = models.TextField(_("error"))
    traceback = models.TextField(_("traceback"), blank=True)
    worker_name = models.CharField(_("worker"), max_length=200, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), db_default=Now())

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.error}"
