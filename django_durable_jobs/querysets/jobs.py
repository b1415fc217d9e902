"""Questions about jobs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Q, QuerySet

from ..dialects.now import DatabaseNow
from ..states import CLOCKED, FINAL, UNSUCCESSFUL, Status

if TYPE_CHECKING:
    from ..models import Job


class JobQuerySet(QuerySet["Job"]):
    """What the rest of the package asks about jobs."""

    def in_status(self, *statuses: Status) -> JobQuerySet:
        """Jobs in one of these statuses."""
        # No IN: SQLite uses a partial index only for the expression that the index was made with, letter by letter.
        return self.filter(reduce(or_, (Q(status=value) for value in sorted(status.value for status in statuses))))

    def on_queues(self, queues: Iterable[str]) -> JobQuerySet:
        """Jobs of these queues."""
        return self.filter(queue__in=list(queues))

    def pending(self) -> JobQuerySet:
        """Jobs that a worker may claim now."""
        return self.in_status(Status.PENDING)

    def running(self) -> JobQuerySet:
        """Jobs that a worker holds."""
        return self.in_status(Status.RUNNING)

    def in_claim_order(self) -> JobQuerySet:
        """The order of claims: by priority, then by creation."""
        return self.order_by("rank", "id")

    def final(self) -> JobQuerySet:
        """Jobs whose life has ended."""
        return self.in_status(*FINAL)

    def waiting_for_time(self) -> JobQuerySet:
        """Jobs that a clock will make pending."""
        return self.in_status(*CLOCKED)

    def due(self) -> JobQuerySet:
        """Jobs whose time has come but that are not pending yet."""
        return self.waiting_for_time().filter(run_at__lte=DatabaseNow())

    def abandoned(self) -> JobQuerySet:
        """Running jobs whose lease is over."""
        return self.running().filter(lease_expires_at__lt=DatabaseNow())

    def held_by(self, worker_id: int) -> JobQuerySet:
        """Running jobs of one worker."""
        return self.running().filter(worker_id=worker_id)

    # Children: asked so that their index answers with one entry, however many have ended, and whatever the planner
    # believes to know of them.

    def of_call(self, parent: Any, call: Any) -> JobQuerySet:
        """The children that one call of a job has made."""
        return self.filter(parent=parent, parent_call=call)

    def last_status(self) -> QuerySet[Job, Any]:
        """The status that sorts last: one beyond ``LAST_FINAL`` says that not all of these children have ended."""
        return self.order_by("-status").values_list("status", flat=True)[:1]

    def unsuccessful(self) -> JobQuerySet:
        """Jobs that ended without a result."""
        return self.filter(status__in=sorted(status.value for status in UNSUCCESSFUL))

    def counted_by(self, column: str) -> dict[Any, int]:
        """How many of these jobs there are for each value of a column; ask for few statuses only."""
        return dict(self.order_by().values_list(column).annotate(number=Count("id")))

    def light(self) -> JobQuerySet:
        """Leave out the columns that may be large, for lists."""
        return self.defer("payload", "result", "options")
