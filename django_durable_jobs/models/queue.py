"""Queues by name; a row appears with the first job."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class Queue(models.Model):
    """A named queue."""

    name = NameField(_("name"), max_length=100, primary_key=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return visible(self.name)
