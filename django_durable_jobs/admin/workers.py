"""Workers in the admin: who lives, what they serve, what they hold."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext_lazy as _

from ..models import Worker
from ..operations.catalogue import Verb
from ..operations.database import jobs
from ..rendering import visible
from .actions import actions_for
from .filters import StateFilter
from .ordering import TakesOrders
from .showing import badge, in_list, instant, instant_in_list

HELD_SHOWN: Final = 100


@admin.register(Worker)
class WorkerAdmin(TakesOrders):
    """One row per worker process."""

    ordering = ("-id",)
    list_filter = (StateFilter,)
    list_display = ("shown_name", "shown_state", "shown_queues", "held", "shown_host", "pid", "started", "seen")
    fields = (
        "shown_name",
        "shown_state",
        "shown_queues",
        "shown_host",
        "pid",
        "started",
        "seen",
        "lease",
        "stopped",
        "lost_with",
        "since",
        "by",
        "why",
        "held_jobs",
    )
    readonly_fields = fields
    target = "worker"
    actions = actions_for(Worker, "worker")

    def applies(self, verb: Verb, row: Any) -> bool:
        """Only what lives can be ordered anything."""
        if verb.name == "stop":
            return row.state == "alive" and row.stop_requested_at is None
        return row.state == "alive" and super().applies(verb, row)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        """Let the database say who lives: its clock is the one that counts."""
        queryset: Any = super().get_queryset(request)
        found: QuerySet[Worker] = queryset.with_state()
        return found

    def prepare(self, rows: list[Any]) -> None:
        """Count held jobs: only running ones are looked at, by their partial index."""
        held = jobs().running().filter(worker_id__in=[worker.id for worker in rows]).counted_by("worker_id")
        for worker in rows:
            worker.held_number = held.get(worker.id, 0)

    @admin.display(description=_("worker id"))
    def shown_name(self, worker: Worker) -> str:
        """The name."""
        return in_list(worker.name)

    @admin.display(description=_("state"))
    def shown_state(self, worker: Any) -> str:
        """Alive, paused, lost or stopped."""
        return badge("paused" if worker.state == "alive" and worker.paused_at else worker.state)

    @admin.display(description=_("paused since"))
    def since(self, worker: Worker) -> str:
        """Since when it is paused, and how."""
        return f"{instant(worker.paused_at)}, {worker.pause_mode}" if worker.paused_at else "–"

    @admin.display(description=_("paused by"))
    def by(self, worker: Worker) -> str:
        """Who paused it."""
        return in_list(worker.paused_by) or "–"

    @admin.display(description=_("reason"))
    def why(self, worker: Worker) -> str:
        """Why it is paused."""
        return visible(worker.pause_reason) or "–"

    @admin.display(description=_("queues"))
    def shown_queues(self, worker: Worker) -> str:
        """Queues and how many jobs of each run at once."""
        queues = worker.queues if isinstance(worker.queues, dict) else {}
        return ", ".join(in_list(f"{name}={number}") for name, number in sorted(queues.items())) or "–"

    @admin.display(description=_("jobs held"))
    def held(self, worker: Any) -> int:
        """How many jobs it runs or is about to run."""
        number: int = worker.held_number
        return number

    @admin.display(description=_("host"))
    def shown_host(self, worker: Worker) -> str:
        """The host."""
        return in_list(worker.host)

    @admin.display(description=_("started"))
    def started(self, worker: Worker) -> str:
        """Time of its start."""
        return instant_in_list(worker.started_at)

    @admin.display(description=_("last heard of"))
    def seen(self, worker: Worker) -> str:
        """Time of its last heartbeat."""
        return instant_in_list(worker.seen_at)

    @admin.display(description=_("lost after"))
    def lease(self, worker: Worker) -> str:
        """When it counts as lost unless it is heard of."""
        return instant(worker.lease_expires_at)

    @admin.display(description=_("stopped"))
    def stopped(self, worker: Worker) -> str:
        """Time of its end in order."""
        return instant(worker.stopped_at) or "–"

    @admin.display(description=_("jobs held"))
    def held_jobs(self, worker: Any) -> str:
        """The jobs it holds, each a link, the oldest first."""
        held = jobs().held_by(worker.id).order_by("id").values_list("id", "definition")[: HELD_SHOWN + 1]
        rows = [
            (reverse(f"{self.admin_site.name}:django_durable_jobs_job_change", args=[id_]), id_, in_list(definition))
            for id_, definition in held
        ]
        links = format_html_join("", '<div><a class="ddj-mono" href="{}">{}</a> {}</div>', rows[:HELD_SHOWN])
        return format_html("{} …", links) if len(rows) > HELD_SHOWN else links or "–"
