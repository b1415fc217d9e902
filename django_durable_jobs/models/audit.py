"""What people and programs have ordered: who, when, what, why, and what came of it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class AuditEntry(models.Model):
    """One order. It is stored before it is carried out, so an order whose process died has the outcome "begun"."""

    OUTCOMES: ClassVar = [("begun", _("begun")), ("done", _("done")), ("refused", _("refused"))]

    id = models.BigAutoField(primary_key=True)
    ordered_at = models.DateTimeField(_("ordered at"), db_default=Now())
    by = models.CharField(_("by"), max_length=200)
    surface = models.CharField(_("through"), max_length=10, help_text=_("Admin, API, command or Python."))
    target = models.CharField(_("target"), max_length=10, help_text=_("Job, queue, worker or approval."))
    verb = models.CharField(_("verb"), max_length=20)
    name = NameField(_("name"), max_length=200, help_text=_("Which of them: its id or name."))
    given = models.JSONField(_("given"), default=dict, help_text=_("What else the order said, the reason among it."))
    outcome = models.CharField(_("outcome"), max_length=7, choices=OUTCOMES, default="begun")
    answer = models.TextField(_("answer"), blank=True, help_text=_("Why it was refused."))

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["target", "name", "id"], name="ddj_audit_of")]

    def __str__(self) -> str:
        return visible(f"{self.verb} {self.target} {self.name}")
