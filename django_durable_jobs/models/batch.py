"""Batches: jobs that belong together, and what is enqueued when they have ended."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..ids import new_job_id


class JobBatch(models.Model):
    """One batch. It has no counters: its members are counted where somebody asks, by their index.

    The row is written when it is opened, closed and ended, not when a member ends.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_job_id, editable=False)
    description = models.CharField(_("description"), max_length=200, db_default="")
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True, help_text=_("Only members add from then."))
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    callbacks = models.JSONField(_("callbacks"), default=dict, help_text=_("The jobs to be enqueued, by their names."))
    enqueued = models.JSONField(_("enqueued"), default=dict, help_text=_("Ids of the callbacks that were enqueued."))
    awaits_discard = models.BooleanField(
        _("awaits discard"), default=False, help_text=_("Whether a member that fails has a callback enqueued.")
    )

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        default_permissions = ("view",)
        # Those that have not ended are few, and the first of it.
        indexes: ClassVar = [models.Index(fields=["finished_at", "id"], name="ddj_batch_finished")]

    def __str__(self) -> str:
        return self.description or str(self.id)
