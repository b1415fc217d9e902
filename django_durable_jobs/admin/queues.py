"""Queues in the admin: what waits and what runs in each."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..models import Limit, Queue
from ..operations.catalogue import Verb
from ..operations.database import alias
from ..operations.limited_claim import QUEUE
from ..operations.queues import live_counts
from ..rendering import visible
from ..states import Status
from .actions import actions_for
from .ordering import TakesOrders
from .showing import badge, in_list, instant

LATER: Final = (Status.SCHEDULED, Status.RETRYING, Status.WAITING, Status.PAUSED)


@admin.register(Queue)
class QueueAdmin(TakesOrders):
    """One row per queue, with counts of its live jobs."""

    ordering = ("name",)
    list_display = ("shown_name", "state", "limits", "pending", "running", "later", "created")
    fields = ("shown_name", "state", "since", "by", "why", "until", "limits", "pending", "running", "later", "created")
    readonly_fields = fields
    target = "queue"
    actions = actions_for(Queue, "queue")

    def applies(self, verb: Verb, row: Any) -> bool:
        """Answer whether an order makes sense for a queue as it is now."""
        if verb.permission == "limit_queue":
            return verb.name == "limit" or row.limited
        if verb.name not in {"pause", "resume"}:
            return True
        return super().applies(verb, row)

    def prepare(self, rows: list[Any]) -> None:
        """Count live jobs by queue: their statuses have partial indexes, history is not touched."""
        limits = {row.key: row for row in Limit.objects.using(alias())}
        for queue in rows:
            queue.limit = limits.get(f"{QUEUE}{queue.name}")
        counts = live_counts(queue.name for queue in rows)
        for queue in rows:
            queue.live = counts[queue.name]

    @admin.display(description=_("name"))
    def shown_name(self, queue: Queue) -> str:
        """The name."""
        return in_list(queue.name)

    @admin.display(description=_("state"))
    def state(self, queue: Queue) -> str:
        """Open, or paused and how."""
        return badge("paused" if queue.paused_at else "open")

    @admin.display(description=_("paused since"))
    def since(self, queue: Queue) -> str:
        """Since when it is paused, and how."""
        return f"{instant(queue.paused_at)}, {queue.pause_mode}" if queue.paused_at else "–"

    @admin.display(description=_("paused by"))
    def by(self, queue: Queue) -> str:
        """Who paused it."""
        return in_list(queue.paused_by) or "–"

    @admin.display(description=_("reason"))
    def why(self, queue: Queue) -> str:
        """Why it is paused."""
        return visible(queue.pause_reason) or "–"

    @admin.display(description=_("resumes at"))
    def until(self, queue: Queue) -> str:
        """When workers resume it by themselves."""
        return instant(queue.resume_at) or "–"

    @admin.display(description=_("limits"))
    def limits(self, queue: Queue) -> str:
        """What is limited, by whom and why."""
        row: Limit | None = queue.limit  # type: ignore[attr-defined]  # see prepare
        if row is None:
            return "–"
        said = [f"{row.concurrency} at once"] if row.concurrency is not None else []
        if row.rate is not None:
            most = f", {row.burst} at one moment" if row.burst is not None else ""
            said.append(f"{row.rate} in {row.per:g} s{most}")
        said += ["tenants take turns"] if row.fair else []
        who = ", ".join(filter(None, [row.ordered_by, row.reason]))
        return in_list("; ".join(said) + (f" ({who})" if who else ""))

    @admin.display(description=_("pending"))
    def pending(self, queue: Queue) -> str:
        """Jobs that a worker may claim now."""
        return self._link(queue, Status.PENDING)

    @admin.display(description=_("running"))
    def running(self, queue: Queue) -> str:
        """Jobs that a worker holds."""
        return self._link(queue, Status.RUNNING)

    @admin.display(description=_("others that have not ended"))
    def later(self, queue: Queue) -> SafeString:
        """Jobs that wait: for a time, for something, for an order."""
        shown = [(status, self._link(queue, status)) for status in LATER if queue.live[status]]  # type: ignore[attr-defined]  # see prepare
        return format_html_join(", ", "{} {}", shown) or SafeString("–")

    @admin.display(description=_("first used"))
    def created(self, queue: Queue) -> str:
        """When its row was made."""
        return instant(queue.created_at)

    def _link(self, queue: Queue, status: Status) -> str:
        address = reverse(f"{self.admin_site.name}:django_durable_jobs_job_changelist")
        query = urlencode({"queue": queue.name, "status": status.value})
        return format_html('<a href="{}?{}">{}</a>', address, query, queue.live[status])  # type: ignore[attr-defined]  # see prepare
