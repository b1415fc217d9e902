"""Enqueues that are answered with one job: debounce, throttle and unique keys."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class Coalescing(models.Model):
    """The job that answers for a key: until it begins (debounce), until a time (throttle), while it lives (unique)."""

    # One text and no further columns: MariaDB locks gaps of any unique index but the primary key. No longer than MySQL
    # is known to take in a unique column: Django warns every project of more.
    key = NameField(_("key"), max_length=250, primary_key=True, help_text=_("Way, definition and key."))
    job_id = models.UUIDField(_("job"), null=True)
    until = models.DateTimeField(_("until"), null=True)

    class Meta:
        verbose_name = _("coalesced enqueue")
        verbose_name_plural = _("coalesced enqueues")
        default_permissions: ClassVar[tuple[str, ...]] = ()
        indexes: ClassVar = [models.Index(fields=["until"], name="ddj_coalescing_until")]

    def __str__(self) -> str:
        return visible(self.key)
