"""Values that a job keeps under names of its own, and may overwrite."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class NamedValue(models.Model):
    """A value of ``save_checkpoint(name, value)``; apart from the checkpoints of calls, which never change."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        "Job",
        verbose_name=_("job"),
        on_delete=models.CASCADE,
        related_name="named_values",
        db_constraint=False,  # written under the lock of its job
        db_index=False,
    )
    name = NameField(_("name"), max_length=200)
    value = models.TextField(_("value"))
    saved_at = models.DateTimeField(_("saved at"), db_default=Now())

    class Meta:
        verbose_name = _("named value")
        verbose_name_plural = _("named values")
        default_permissions = ("view",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["job", "name"], name="ddj_named_value_once")]

    def __str__(self) -> str:
        return visible(self.name)
