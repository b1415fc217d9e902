"""Lines of jobs: which of them are at the front, and so may run, while the others wait for their turn."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class Sequence(models.Model):
    """The front of one line: the jobs of its key that are not lined up; in a sequence it is one.

    Whoever lets the next job go on locks this row first. It is there while the line has open jobs, and while an order
    limits it.
    """

    key = NameField(_("sequence key"), max_length=200, primary_key=True)
    job_id = models.UUIDField(_("job at the front"), null=True)
    others = models.JSONField(_("others at the front"), null=True, help_text=_("Of a line with several places."))
    places = models.IntegerField(_("places"), null=True, help_text=_("How many may be at the front; empty for one."))
    ordered = models.IntegerField(_("places by an order"), null=True)
    rate = models.IntegerField(_("rate by an order"), null=True)
    per = models.FloatField(_("per"), db_default=1.0, help_text=_("Seconds of the rate's window."))
    let_go = models.JSONField(_("let go"), null=True, help_text=_("What counts under the rate; see key_rates.py."))
    opens_at = models.DateTimeField(_("opens at"), null=True, help_text=_("When the next may go on under the rate."))
    ordered_at = models.DateTimeField(_("ordered at"), null=True)
    ordered_by = models.CharField(_("ordered by"), max_length=200, db_default="")
    reason = models.TextField(_("reason"), db_default="")

    class Meta:
        verbose_name = _("sequence")
        verbose_name_plural = _("sequences")
        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return visible(self.key)

    @property
    def is_ordered(self) -> bool:
        """Whether an order limits it."""
        return self.ordered is not None or self.rate is not None
