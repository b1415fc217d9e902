"""Queues by name; a row appears with the first job."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class Queue(models.Model):
    """A named queue, and whether it is paused. Claims look at that in the statement that claims."""

    name = NameField(_("name"), max_length=100, primary_key=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    pause_mode = models.CharField(_("pause mode"), max_length=10, db_default="")
    pause_reason = models.TextField(_("pause reason"), db_default="")
    paused_by = models.CharField(_("paused by"), max_length=200, db_default="")
    resume_at = models.DateTimeField(_("resumes at"), null=True, blank=True)
    limited = models.BooleanField(_("limited"), db_default=False, help_text=_("Claimed from under its limit only."))

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("pause_queue", "Can pause and resume queues"),
            ("limit_queue", "Can limit queues"),
            ("clear_queue", "Can cancel all jobs of a queue that have not begun"),
            ("delete_queue", "Can delete queues"),
        ]

    def __str__(self) -> str:
        return visible(self.name)
