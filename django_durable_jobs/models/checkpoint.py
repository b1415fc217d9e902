"""Stored results of durable calls."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .fields import NameField


class Checkpoint(models.Model):
    """The result of one call of a job: stored once, never changed.

    ``key`` is the place of the call in creation order, as a path: ``3`` is the third call of the job, ``3.1``
    the first call made inside it. Exactly one of ``result`` and ``error`` is set.
    """

    KINDS: ClassVar = [
        ("call", _("call")),
        ("step", _("transactional step")),
        ("sleep", _("sleep")),
        ("message", _("message")),
        ("event", _("event")),
        ("approval", _("approval")),
        ("gather", _("children")),
        ("begun", _("beginning of a wait")),
        ("version", _("version")),
        ("compensation", _("compensation")),
        ("ending", _("beginning of the compensations")),
        ("run", _("beginning of a pipeline")),
        ("task", _("task of a pipeline")),
    ]

    id = models.BigAutoField(primary_key=True)
    # Rows are added only by a statement that locks the job's row, and deleted before it: a constraint in the
    # database would look the job up a second time for each checkpoint.
    job = models.ForeignKey(
        "Job", on_delete=models.CASCADE, related_name="checkpoints", db_constraint=False, db_index=False
    )
    generation = models.SmallIntegerField(_("generation"), db_default=0)
    key = NameField(_("call key"), max_length=200)
    name = NameField(_("name"), max_length=200)
    kind = models.CharField(_("kind"), max_length=12, choices=KINDS, db_default="call")
    result = models.TextField(_("result"), null=True)
    error = models.TextField(_("error"), null=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("checkpoint")
        verbose_name_plural = _("checkpoints")
        default_permissions = ("view",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "generation", "key"], name="ddj_checkpoint_once"),
            models.CheckConstraint(
                name="ddj_checkpoint_result_or_error",
                condition=models.Q(result__isnull=False, error__isnull=True)
                | models.Q(result__isnull=True, error__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.name}"
