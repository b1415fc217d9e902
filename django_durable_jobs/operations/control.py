"""A worker's side of orders: what is paused, and what the jobs that it holds are ordered to do."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import CharField, DateTimeField, QuerySet, Value

from ..dialects.now import DatabaseNow
from ..dialects.rows import Held
from ..models import Queue, Worker
from .database import alias, jobs
from .queues import token_of

WHOLE_WORKER: Final = ""
"""What stands for the worker itself among paused queues: no queue has this name."""


class Pauses(NamedTuple):
    """What this worker must not claim from: queue names, each with the text that says which pause it is."""

    by_queue: dict[str, str]
    resume_in: timedelta | None
    """How long until the first of them ends by itself; not above zero when one is due."""


class HeldOrders(NamedTuple):
    """The jobs that the database says a worker holds, and those of them that are ordered to end."""

    held: set[Held]
    cancelled: list[UUID]
    pausing: list[UUID]


def pauses_for(worker_id: int) -> Pauses:
    """Return what is paused for a worker, in one query."""
    queues: QuerySet[Any, Any] = Queue.objects.using(alias()).filter(paused_at__isnull=False)
    worker: QuerySet[Any, Any] = Worker.objects.using(alias()).filter(id=worker_id, paused_at__isnull=False)
    whole = Value(WHOLE_WORKER, output_field=CharField())
    never = Value(None, output_field=DateTimeField())
    rows = queues.values_list("name", "paused_at", "resume_at", DatabaseNow()).union(
        worker.values_list(whole, "paused_at", never, DatabaseNow()), all=True
    )
    found = list(rows)
    resume_in = min((resume_at - now for _name, _since, resume_at, now in found if resume_at is not None), default=None)
    return Pauses({name: token_of(since) or "" for name, since, _resume_at, _now in found}, resume_in)


def is_held_back(queue: str, paused: Collection[str]) -> bool:
    """Answer whether no job of a queue must begin."""
    return queue in paused or WHOLE_WORKER in paused


def obeyed(worker_id: int, pauses: dict[str, str]) -> None:
    """Say that no job begins here any more that these pauses concern."""
    Worker.objects.using(alias()).filter(id=worker_id).update(obeys=pauses)


def orders_for(worker_id: int) -> HeldOrders:
    """Return what the jobs that a worker holds are ordered to do; which they are also tells what was taken away."""
    rows = jobs().held_by(worker_id).values_list("id", "token", "cancel_requested_at", "pause_requested_at")
    result = HeldOrders(set(), [], [])
    for job_id, token, cancelled, pausing in rows:
        result.held.add(Held(job_id, token))
        if cancelled is not None:
            result.cancelled.append(job_id)
        elif pausing is not None:
            result.pausing.append(job_id)
    return result


def taken_for_good(leases: Collection[Held]) -> set[Held]:
    """Return those of these leases, which are over, whose jobs were cancelled: their code is of no use to anybody."""
    over = jobs().filter(id__in=[lease.id for lease in leases], cancel_requested_at__isnull=False)
    ids = set(over.values_list("id", flat=True))
    return {lease for lease in leases if lease.id in ids}
