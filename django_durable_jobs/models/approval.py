"""Decisions that jobs wait for from people."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..rendering import visible


class Approval(models.Model):
    """A question of a job to a person: approved or rejected, once, with a comment; or its time was over before."""

    DECISIONS: ClassVar = [("approved", _("approved")), ("rejected", _("rejected")), ("expired", _("expired"))]

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        "Job", verbose_name=_("job"), on_delete=models.CASCADE, related_name="approvals", db_constraint=False
    )
    generation = models.SmallIntegerField(_("generation"), db_default=0)
    key = models.CharField(_("call key"), max_length=200)
    title = models.CharField(_("title"), max_length=200)
    details = models.TextField(_("details"), blank=True, help_text=_("As JSON."))
    requested_at = models.DateTimeField(_("requested at"), db_default=Now())
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    decision = models.CharField(_("decision"), max_length=8, choices=DECISIONS, null=True, blank=True)
    decided_by = models.CharField(_("decided by"), max_length=200, blank=True)
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True)
    comment = models.TextField(_("comment"), blank=True)

    class Meta:
        verbose_name = _("approval")
        verbose_name_plural = _("approvals")
        default_permissions = ("view",)
        permissions: ClassVar = [("decide_approval", "Can decide what jobs ask")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "generation", "key"], name="ddj_approval_once"),
            models.CheckConstraint(
                name="ddj_approval_decided",
                condition=models.Q(decision__isnull=True, decided_at__isnull=True)
                | models.Q(decision__isnull=False, decided_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return visible(self.title)
