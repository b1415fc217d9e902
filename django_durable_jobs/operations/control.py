"""A worker's side of orders: what is paused, and what the jobs that it holds are ordered to do."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import Case, CharField, DateTimeField, Exists, QuerySet, Value, When

from ..dialects.now import DatabaseNow
from ..dialects.rows import Held
from ..models import Limit, Queue, Worker
from .database import alias, jobs
from .limited_claim import FLEET, QUEUE
from .queues import token_of

WHOLE_WORKER: Final = ""
"""What stands for the worker itself among paused queues, the fleet among limited ones: no queue has this name."""


_PAUSED, _LIMITED, _MARKED, _UNMARKED = "paused", "limited", "marked", "unmarked"
"""What a row of the query is: a paused queue, a limit, or this worker with or without the mark of a limited fleet."""


class Gates(NamedTuple):
    """What this worker must not claim from, and what only under a limit: each with the text that says which it is."""

    paused: dict[str, str]
    limited: dict[str, str]
    resume_in: timedelta | None
    """How long until the first pause ends by itself; not above zero when one is due."""
    stopping: bool
    """Whether this worker is asked to stop."""


class HeldOrders(NamedTuple):
    """The jobs that the database says a worker holds, and those of them that are ordered to end."""

    held: set[Held]
    cancelled: list[UUID]
    pausing: list[UUID]


def gates_for(worker_id: int) -> Gates:
    """Return what is paused and what is limited for a worker, in one query."""
    queues: QuerySet[Any, Any] = Queue.objects.using(alias()).filter(paused_at__isnull=False)
    worker: QuerySet[Any, Any] = Worker.objects.using(alias()).filter(id=worker_id)
    limits: QuerySet[Any, Any] = Limit.objects.using(alias())
    whole, never = _text(WHOLE_WORKER), Value(None, output_field=DateTimeField())
    marked = Case(When(limited=True, then=_text(_MARKED)), default=_text(_UNMARKED), output_field=CharField())
    rows = queues.values_list("name", "paused_at", "resume_at", DatabaseNow(), _text(_PAUSED)).union(
        worker.values_list(whole, "paused_at", "stop_requested_at", DatabaseNow(), marked),
        limits.values_list("key", "ordered_at", never, DatabaseNow(), _text(_LIMITED)),
        all=True,
    )
    found = list(rows)
    limited = {_queue_of(key): token_of(since) or "" for key, since, *_rest, what in found if what == _LIMITED}
    if any(what == (_UNMARKED if WHOLE_WORKER in limited else _MARKED) for *_rest, what in found):
        # It began to work while the fleet's limit was set or taken back.
        fleet = Exists(Limit.objects.using(alias()).filter(key=FLEET))
        Worker.objects.using(alias()).filter(id=worker_id).update(limited=fleet)
    paused = {name: token_of(since) or "" for name, since, *_rest, what in found if what != _LIMITED and since}
    # The second instant of the worker's own row is when it was asked to stop.
    ends = [(until - now, what) for _name, _since, until, now, what in found if until is not None]
    pauses = (length for length, what in ends if what == _PAUSED)
    stopping = any(what != _PAUSED for _length, what in ends)
    return Gates(paused, limited, min(pauses, default=None), stopping)


def _text(value: str) -> Value:
    return Value(value, output_field=CharField())


def _queue_of(key: str) -> str:
    return WHOLE_WORKER if key == FLEET else key.removeprefix(QUEUE)


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
