"""Jobs that follow each other in strict order: which one of a sequence is at its front."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class Sequence(models.Model):
    """The front of one sequence: the only job of its key that is not lined up.

    Whoever lets the next job go on locks this row first. It is there while the sequence has open jobs.
    """

    key = NameField(_("sequence key"), max_length=200, primary_key=True)
    job_id = models.UUIDField(_("job at the front"), null=True)

    class Meta:
        verbose_name = _("sequence")
        verbose_name_plural = _("sequences")
        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return visible(self.key)
