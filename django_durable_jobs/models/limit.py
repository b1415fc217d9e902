"""Limits: how many jobs may run at once, and how many may begin in a time."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..rates import Rate
from ..rendering import visible
from .fields import NameField


class Limit(models.Model):
    """What is limited, how far, and what a rate has admitted lately.

    ``key`` says what: ``fleet``, or ``queue NAME``. Whoever admits jobs under this limit locks this row first. How many
    run is counted from the jobs that run, never stored.
    """

    key = NameField(_("limit"), max_length=210, primary_key=True)
    concurrency = models.IntegerField(_("concurrency"), null=True, blank=True)
    rate = models.IntegerField(_("rate"), null=True, blank=True)
    per = models.FloatField(_("per"), db_default=1.0, help_text=_("Seconds of the rate's window."))
    burst = models.IntegerField(_("burst"), null=True, blank=True, help_text=_("How many may begin at one moment."))
    fair = models.BooleanField(_("fair"), db_default=False, help_text=_("Tenants take turns."))
    turn = NameField(_("turn"), max_length=100, null=True, help_text=_("The tenant that was served last."))
    admitted = models.JSONField(
        _("admitted"), null=True, help_text=_("What the rate has admitted lately; see rates.py.")
    )
    admitted_at = models.DateTimeField(_("admitted at"), null=True, blank=True)
    ordered_at = models.DateTimeField(_("ordered at"), null=True, blank=True)
    ordered_by = models.CharField(_("ordered by"), max_length=200, db_default="")
    reason = models.TextField(_("reason"), db_default="")

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return visible(self.key)

    @property
    def bucket(self) -> Rate | None:
        """The rate, if there is one."""
        return None if self.rate is None else Rate(self.rate, self.per, self.burst or self.rate)
