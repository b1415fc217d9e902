"""Batches in the admin: what belongs together, and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..ids import parse_id
from ..models import JobBatch
from ..operations.batches import members
from ..states import FINAL
from .base import ViewOnly
from .showing import badge, in_list, instant, instant_in_list


@admin.register(JobBatch)
class BatchAdmin(ViewOnly):
    """One row per batch, the newest first; members are counted on its own page only."""

    ordering = ("-id",)
    list_display = ("shown_description", "state", "opened", "closed", "ended")
    fields = ("shown_description", "state", "progress", "counts", "callback_jobs", "opened", "closed", "ended")
    readonly_fields = fields

    @admin.display(description=_("description"))
    def shown_description(self, batch: JobBatch) -> str:
        """What it is for, or its id."""
        return in_list(batch.description) or str(batch.id)

    @admin.display(description=_("state"))
    def state(self, batch: JobBatch) -> str:
        """Whether jobs can be added, and whether it has ended."""
        if batch.closed_at is None:
            return badge("pending", "open")
        return badge("running", "closed") if batch.finished_at is None else badge("completed", "ended")

    @admin.display(description=_("progress"))
    def progress(self, batch: JobBatch) -> str:
        """How many members have ended, of how many."""
        counts = _counts(batch)
        ended = sum(number for status, number in counts.items() if status in FINAL)
        return f"{ended} of {sum(counts.values())} ended"

    @admin.display(description=_("members by status"))
    def counts(self, batch: JobBatch) -> str:
        """How many members are in each status."""
        return ", ".join(f"{number} {status}" for status, number in sorted(_counts(batch).items())) or "–"

    @admin.display(description=_("callbacks enqueued"))
    def callback_jobs(self, batch: JobBatch) -> SafeString | str:
        """The jobs that its end, or its first failure, has enqueued."""
        enqueued = batch.enqueued if isinstance(batch.enqueued, dict) else {}
        rows = [(name, *_link(self.admin_site.name, str(key))) for name, key in sorted(enqueued.items())]
        return format_html_join("", '<div>{}: <a class="ddj-mono" href="{}">{}</a></div>', rows) or "–"

    @admin.display(description=_("opened at"))
    def opened(self, batch: JobBatch) -> str:
        """When it was opened."""
        return instant_in_list(batch.created_at)

    @admin.display(description=_("closed at"))
    def closed(self, batch: JobBatch) -> str:
        """Since when only its members add."""
        return instant(batch.closed_at) or "–"

    @admin.display(description=_("ended at"))
    def ended(self, batch: JobBatch) -> str:
        """When its last member had ended."""
        return instant(batch.finished_at) or "–"


def _counts(batch: JobBatch) -> Mapping[str, int]:
    return members(batch.id).counted_by("status")


def _link(site: str, key: str) -> tuple[str, str]:
    job_id = parse_id(key)
    address = "" if job_id is None else reverse(f"{site}:django_durable_jobs_job_change", args=[job_id])
    return address, format_html("{}", key)
