"""What is sent to jobs while they live: messages to one job, and events for all that wait for them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..rendering import visible
from .fields import NameField
from .indexes import UnannouncedIndex


class Message(models.Model):
    """A message to one job, or an event (no job), which any number of jobs may read.

    A message is consumed once, in one transaction with the checkpoint that holds it: ``consumed_key`` is the call.
    An event is consumed by nobody: its ``consumed_at`` says since when all jobs that waited for it have been told.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        "Job",
        verbose_name=_("job"),
        on_delete=models.CASCADE,
        related_name="messages",
        db_constraint=False,  # as with checkpoints: a row is added under the lock of its job
        db_index=False,
        null=True,
        blank=True,
    )
    name = NameField(_("name"), max_length=150)
    event_key = NameField(_("event key"), max_length=200, null=True, blank=True)
    payload = models.TextField(_("payload"))
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    consumed_at = models.DateTimeField(_("consumed at"), null=True, blank=True)
    consumed_key = models.CharField(_("consumed by call"), max_length=200, null=True, blank=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        default_permissions = ("view",)
        indexes: ClassVar = [
            models.Index(fields=["job", "name", "id"], name="ddj_message_inbox"),
            # Events of one name and key in order, from a job's creation on: what came before is not walked through.
            models.Index(fields=["name", "event_key", "created_at", "id"], name="ddj_message_channel"),
            UnannouncedIndex(fields=["id"], name="ddj_message_unannounced"),
        ]

    def __str__(self) -> str:
        return visible(self.name)
