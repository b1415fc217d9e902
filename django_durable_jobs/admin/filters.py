"""Filters of the lists. Their choices are known without reading the table they filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import registry
from ..ids import lowest_id_at
from ..models import Approval, AuditEntry
from ..operations.catalogue import Target
from ..operations.database import dialect
from ..operations.queues import queue_names
from ..states import DUE_LATER, Status
from .showing import in_list

SHOWN: Final = 100
"""How many choices a filter shows; the search takes a definition's full name as well."""
SLACK: Final = timedelta(minutes=10)
"""How far the clock of a host that makes ids may be from the database's."""

PERIODS: Final = {
    "hour": (timedelta(hours=1), _("Past hour")),
    "day": (timedelta(days=1), _("Past 24 hours")),
    "week": (timedelta(days=7), _("Past 7 days")),
    "month": (timedelta(days=30), _("Past 30 days")),
}


_ALWAYS: Final = datetime(1900, 1, 1, tzinfo=UTC)
TRUE_OF_LIVE: Final[dict[str, dict[str, Any]]] = {
    Status.PENDING.value: {"queue__gt": ""},
    Status.RUNNING.value: {"lease_expires_at__gt": _ALWAYS},
    **{status.value: {"run_at__gt": _ALWAYS} for status in DUE_LATER},
}
"""The first column of the index of each status (see ``models/job.py``), and what holds for it in every such row."""


class _ExactFilter(SimpleListFilter):
    """Rows whose column is the chosen text."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Compare; no text of ours holds a NUL, and some databases refuse the question."""
        value = self.value()
        if value is None:
            return queryset
        return queryset.none() if "\0" in value else queryset.filter(**{str(self.parameter_name): value})


class StatusFilter(_ExactFilter):
    """By status."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Every status there is."""
        return [(status.value, status.value) for status in Status]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Say of live jobs what is true of each of them: it is what makes SQLite use the index that has only those."""
        rows = super().queryset(request, queryset)
        return rows.filter(**TRUE_OF_LIVE.get(self.value() or "", {}))


class QueueFilter(_ExactFilter):
    """By queue."""

    title = _("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """The queues that have a row, or that a definition uses."""
        return [(name, in_list(name)) for name in queue_names()[:SHOWN]]


class DefinitionFilter(_ExactFilter):
    """By definition."""

    title = _("definition")
    parameter_name = "definition"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """The definitions that this process knows."""
        return [(name, in_list(name)) for name in list(registry.names())[:SHOWN]]


class CreatedFilter(SimpleListFilter):
    """By time of creation, through the primary key: ids begin with it, and there is no other index.

    A job that was enqueued with an id of the caller's own may be missing from a period.
    """

    title = _("created")
    parameter_name = "created"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Some periods."""
        return [(key, label) for key, (_length, label) in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Begin at the first id of the period."""
        period = PERIODS.get(self.value() or "")
        if period is None:
            return queryset
        since = dialect().now() - period[0]
        return queryset.filter(id__gte=lowest_id_at(since - SLACK), created_at__gte=since)


class StateFilter(SimpleListFilter):
    """Workers by state; needs ``WorkerQuerySet.with_state``."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """The three states."""
        return [("alive", _("alive")), ("lost", _("lost")), ("stopped", _("stopped"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Compare."""
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(state=value) if value in {"alive", "lost", "stopped"} else queryset.none()


class DecisionFilter(SimpleListFilter):
    """Approvals by what was decided."""

    title = _("decision")
    parameter_name = "decision"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Open, and the decisions that there are."""
        return [("open", _("open")), *Approval.DECISIONS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Compare; an open one has no decision."""
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(decision=None if value == "open" else value)


class TargetFilter(_ExactFilter):
    """Audit entries by what was ordered something."""

    title = _("target")
    parameter_name = "target"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Every kind of thing that takes orders."""
        return [(target, target) for target in get_args(Target)]


class OutcomeFilter(_ExactFilter):
    """Audit entries by what came of the order."""

    title = _("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Begun, done and refused."""
        return list(AuditEntry.OUTCOMES)
