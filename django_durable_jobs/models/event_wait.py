"""Which jobs wait for which events."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField


class EventWait(models.Model):
    """A job's wait for an event: there from before its last look until it has got one, or its time is over.

    ``key`` is the place of the wait in the job's code. ``called`` says that an event came since the last look.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        "Job",
        verbose_name=_("job"),
        on_delete=models.CASCADE,
        related_name="event_waits",
        db_constraint=False,  # written under the lock of its job
        db_index=False,
    )
    key = NameField(_("call key"), max_length=200)
    name = NameField(_("name"), max_length=150)
    event_key = NameField(_("event key"), max_length=200, null=True, blank=True)
    called = models.BooleanField(_("called"), db_default=False)

    class Meta:
        verbose_name = _("wait for an event")
        verbose_name_plural = _("waits for events")
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["name", "event_key", "job"], name="ddj_event_wait_channel")]
        constraints: ClassVar = [models.UniqueConstraint(fields=["job", "key"], name="ddj_event_wait_once")]

    def __str__(self) -> str:
        return visible(self.name)
