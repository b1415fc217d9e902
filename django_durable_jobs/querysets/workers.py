"""Questions about workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.models import Case, QuerySet, Value, When

from ..dialects.now import DatabaseNow

if TYPE_CHECKING:
    from ..models import Worker


class WorkerQuerySet(QuerySet["Worker"]):
    """What the rest of the package asks about workers."""

    def alive(self) -> WorkerQuerySet:
        """Workers that were heard of within their lease and have not stopped."""
        return self.filter(stopped_at=None, lease_expires_at__gte=DatabaseNow())

    def lost(self) -> WorkerQuerySet:
        """Workers that neither stopped nor were heard of within their lease."""
        return self.filter(stopped_at=None, lease_expires_at__lt=DatabaseNow())

    def with_state(self) -> WorkerQuerySet:
        """The same rows with ``state``: alive, lost or stopped, as the database's clock has it."""
        state = Case(
            When(stopped_at__isnull=False, then=Value("stopped")),
            When(lease_expires_at__gte=DatabaseNow(), then=Value("alive")),
            default=Value("lost"),
        )
        return self.annotate(state=state)
