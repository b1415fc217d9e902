"""The job: one stored request to run a definition, and the hot table of the whole system.

Each job writes its row three times (enqueue, claim, finish), so every column that is filled and every index
is paid for three times per job. Hence: columns that most jobs leave NULL (NULL costs one bit), options that
nobody searches for in one text, three indexes on PostgreSQL and SQLite of which two hold live rows only, and no
index on finished jobs (the pruner walks the primary key, which sorts by creation).

Nothing here changes a status: ``operations/transition.py`` does.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..ids import new_job_id
from ..querysets.jobs import JobQuerySet
from ..rendering import visible
from ..states import CLOCKED, DUE_LATER, FINAL, LINES, TRANSITIONS, Status
from .fields import NameField
from .indexes import ExpiryIndex, PresentIndex, StatusIndex, TenantIndex


def _values(statuses: frozenset[Status]) -> list[str]:
    return sorted(status.value for status in statuses)


class Job(models.Model):
    """A stored job.

    ``attempt`` counts claims whose end counts; ``token`` counts all claims and never goes back: it is the
    fencing token. ``rank`` is minus the priority, so that the claim index is ascending throughout.
    """

    STATUSES: ClassVar = [(status.value, status.value) for status in Status]

    id = models.UUIDField(_("id"), primary_key=True, default=new_job_id, editable=False)
    # Times are the database's. run_at is set only for jobs that are or were to wait.
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    run_at = models.DateTimeField(_("run at"), null=True, blank=True, help_text=_("Not before this time."))
    started_at = models.DateTimeField(_("started at"), null=True, blank=True, help_text=_("Time of the last claim."))
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    lease_expires_at = models.DateTimeField(_("lease expires at"), null=True, blank=True)
    worker = models.ForeignKey(
        "Worker",
        verbose_name=_("worker"),
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,  # a lookup per claim, to protect rows that only the pruner deletes
        db_index=False,
        related_name="jobs",
    )
    token = models.IntegerField(_("fencing token"), db_default=0, editable=False)
    rank = models.SmallIntegerField(_("rank"), db_default=0, help_text=_("Minus the priority: lower runs first."))
    attempt = models.SmallIntegerField(_("attempt"), db_default=0)
    max_attempts = models.SmallIntegerField(_("max attempts"), db_default=1)
    rescues = models.SmallIntegerField(_("rescues"), db_default=0, help_text=_("How often a worker was lost with it."))
    generation = models.SmallIntegerField(_("generation"), db_default=0, help_text=_("Of its checkpoints."))
    status = models.CharField(_("status"), max_length=9, choices=STATUSES, db_default=Status.PENDING.value)
    queue = NameField(_("queue"), max_length=100)
    definition = NameField(_("definition"), max_length=200)
    payload = models.TextField(_("arguments"), db_default="{}")
    result = models.TextField(_("result"), null=True, blank=True)
    last_error = models.TextField(_("last error"), null=True, blank=True)
    options = models.TextField(_("options"), null=True, blank=True, help_text=_("Overrides for this job, as JSON."))

    # What few jobs have. The columns are here from the first migration, so that features which fill them never
    # rewrite this table.
    parent = models.ForeignKey(
        "self",
        verbose_name=_("parent"),
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        db_index=False,
        related_name="children",
    )
    origin = models.ForeignKey(
        "self",
        verbose_name=_("origin"),
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        db_index=False,
        related_name="copies",
        help_text=_("The job that this one was forked from."),
    )
    batch_id = models.UUIDField(_("batch"), null=True, blank=True)
    occurrence_id = models.UUIDField(_("occurrence"), null=True, blank=True)
    depth = models.SmallIntegerField(_("depth"), null=True, blank=True)
    parent_call = models.CharField(
        _("parent's call"), max_length=200, null=True, blank=True, help_text=_("What of its parent waits for this job.")
    )
    waiting_for = models.CharField(_("waiting for"), max_length=200, null=True, blank=True)
    paused_from = models.CharField(_("paused from"), max_length=9, null=True, blank=True, choices=STATUSES)
    paused_by = models.CharField(_("paused by"), max_length=200, null=True, blank=True)
    pause_reason = models.TextField(_("pause reason"), null=True, blank=True)
    pause_requested_at = models.DateTimeField(_("pause requested at"), null=True, blank=True)
    cancel_requested_at = models.DateTimeField(_("cancel requested at"), null=True, blank=True)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    tenant = NameField(_("tenant"), max_length=100, null=True, blank=True)
    unique_key = NameField(_("unique key"), max_length=200, null=True, blank=True)
    concurrency_key = NameField(_("concurrency key"), max_length=200, null=True, blank=True)
    sequence_key = NameField(_("sequence key"), max_length=200, null=True, blank=True)
    tags = models.JSONField(_("tags"), null=True, blank=True)
    progress = models.JSONField(_("progress"), null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        default_permissions = ("view", "delete")
        permissions: ClassVar = [
            ("view_arguments", "Can see arguments, results and tracebacks of jobs"),
            ("enqueue_job", "Can enqueue jobs over HTTP"),
            ("retry_job", "Can retry jobs"),
            ("cancel_job", "Can cancel jobs"),
            ("pause_job", "Can pause and resume jobs"),
            ("move_job", "Can move jobs to another queue or priority"),
        ]
        indexes: ClassVar = [
            # A claim takes jobs that were never rescued, or only those that were: each half is a stretch of the index.
            StatusIndex(
                fields=["queue", "rescues", "rank", "id"], name="ddj_job_claim", statuses=[Status.PENDING.value]
            ),
            StatusIndex(fields=["lease_expires_at"], name="ddj_job_lease", statuses=[Status.RUNNING.value]),
            StatusIndex(fields=["run_at"], name="ddj_job_due", statuses=_values(CLOCKED)),
            StatusIndex(fields=["waiting_for"], name="ddj_job_waiting", statuses=[Status.WAITING.value]),
            # Whether children of one call are open, or have failed, is one look per status.
            PresentIndex(fields=["parent", "parent_call", "status"], name="ddj_job_children"),
            # The same of batches.
            PresentIndex(fields=["batch_id", "status"], name="ddj_job_batch"),
            # The oldest job of a sequence that waits is the first of a stretch. What has ended is not in it.
            StatusIndex(fields=["sequence_key", "id"], name="ddj_job_sequence", statuses=_values(LINES)),
            ExpiryIndex(fields=["expires_at"], name="ddj_job_expiry", statuses=_values(TRANSITIONS["expire"].sources)),
            TenantIndex(fields=["queue", "tenant", "rank", "id"], name="ddj_job_tenant"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(name="ddj_job_status", condition=Q(status__in=_values(frozenset(Status)))),
            models.CheckConstraint(
                name="ddj_job_lease_iff_running",
                condition=Q(status=Status.RUNNING.value, lease_expires_at__isnull=False, worker__isnull=False)
                | (~Q(status=Status.RUNNING.value) & Q(lease_expires_at__isnull=True, worker__isnull=True)),
            ),
            models.CheckConstraint(
                name="ddj_job_finished_iff_final",
                condition=Q(status__in=_values(FINAL), finished_at__isnull=False)
                | (~Q(status__in=_values(FINAL)) & Q(finished_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="ddj_job_due_has_time",
                condition=~Q(status__in=_values(DUE_LATER)) | Q(run_at__isnull=False),
            ),
            models.CheckConstraint(
                name="ddj_job_paused_from",
                condition=Q(status=Status.PAUSED.value, paused_from__isnull=False)
                | (~Q(status=Status.PAUSED.value) & Q(paused_from__isnull=True)),
            ),
            models.CheckConstraint(
                name="ddj_job_attempt", condition=Q(attempt__gte=0, attempt__lte=models.F("max_attempts"))
            ),
        ]

    def __str__(self) -> str:
        return f"{visible(self.definition)} {self.id}"

    @property
    def priority(self) -> int:
        """The priority as users give it: higher runs first."""
        return -self.rank
