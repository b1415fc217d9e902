"""Orders to all jobs of a queue, and to the queue as a whole: clear, move, drain, delete.

They work in short transactions of some hundred jobs each, so an order that is interrupted has been carried out in part
and can be repeated. Only jobs that were there when it began are looked at; what comes meanwhile is left alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import Exists, OuterRef, Q

from ..clock import SYSTEM
from ..errors import OpenTransaction, OptionError, QueueNotEmpty, TimedOut
from ..models import Checkpoint, Limit, Queue
from ..querysets.jobs import JobQuerySet
from ..states import CLOCKED, LINES, Status
from .arrange import MOVABLE
from .cancel import Cancelled, cancel_unbegun
from .database import alias, dialect, jobs
from .enqueue import forget_queue
from .limited_claim import QUEUE
from .orders import LONGEST_BY, LONGEST_REASON, check_flag, check_text, tell
from .queues import LOOK_EVERY, as_patience, known_queue, live_counts, pause_queue, paused_queues

BATCH: Final = 500
READ: Final = 50_000
"""How many ids are read at once: the backlog is sorted for each statement that reads some."""
BY_INDEX: Final = ((Status.PENDING,), tuple(CLOCKED), tuple(LINES))
"""Statuses of jobs that no worker holds, as the indexes have them together: none holds a job that has ended."""
CLEARED: Final = tuple(sorted(MOVABLE - {Status.RETRYING}))
"""Statuses in which a job can be that nobody has begun."""


def clear_queue(queue: str, *, reason: str = "", by: str = "") -> int:
    """Cancel the jobs of a queue that nobody has begun, and return how many.

    Not begun is a job without an attempt that counts and without a recorded call. What runs goes on; what backs off or
    waits in the midst of its work stays. Cancelled jobs are kept as any other: their parents and the next jobs of their
    sequences go on, ``retry`` brings one back. Raises ``QueueNotFound`` and ``OptionError``.
    """
    name = known_queue(queue)
    reason, by = check_text("reason", reason, LONGEST_REASON), check_text("by", by, LONGEST_BY)
    text = "cleared" + (f" by {by}" if by else "") + (f": {reason}" if reason else "")
    return sum(len(_clear(batch, text).cancelled) for batch in _batches(name, unbegun()))


def move_jobs(queue: str, to: str) -> int:
    """Put all jobs of a queue that no worker holds and that have not ended into another one; return how many.

    Each keeps its priority and its age. Raises ``QueueNotFound`` and ``OptionError``; then nothing has changed.
    """
    name, other = known_queue(queue), known_queue(to)
    if name == other:
        raise OptionError(f"The jobs of queue {name!r} are there already: name another queue.")
    moved = 0
    for batch in _batches(name, Q()):
        moved += dialect().in_own_transaction(partial(_move, batch, name, other))
    return moved


def drain_queue(queue: str, *, wait: timedelta | float | None = None, reason: str = "", by: str = "") -> int:
    """Pause a queue, unless it is, so that what runs ends and nothing begins; return how many jobs run still.

    With ``wait`` (seconds or timedelta, up to a day) it returns when none runs, and raises ``TimedOut`` when that takes
    longer; the queue is paused all the same. Raises ``QueueNotFound``, ``OptionError``, and ``OpenTransaction`` for a
    wait in a transaction.
    """
    name = known_queue(queue)
    patience = None if wait is None else as_patience(wait)
    if patience is not None and dialect().connection.in_atomic_block:
        raise OpenTransaction("drain_queue(wait=...) needs the pause to be committed: call it outside of atomic().")
    if not paused_queues().filter(name=name).exists():
        pause_queue(name, reason=reason, by=by)
    running = jobs().running().filter(queue=name)
    deadline, never = SYSTEM.monotonic() + (patience or 0.0), threading.Event()
    while (left := running.count()) and patience is not None:
        if SYSTEM.monotonic() >= deadline:
            raise TimedOut(f"Queue {name!r} is paused, but after {patience:g} s jobs of it run: {left}.")
        SYSTEM.wait(never, LOOK_EVERY)
    return left


def delete_queue(queue: str, *, force: bool = False, reason: str = "", by: str = "") -> None:
    """Delete the row of a queue, with its pause and its limits; jobs that have ended keep its name.

    Raises ``QueueNotEmpty`` while jobs of it have not ended; ``force`` clears it first, which leaves those that have
    begun, so it may be refused all the same. A job that is enqueued later, or at that very moment, brings the queue
    back, open and without limits. Raises ``QueueNotFound`` and ``OptionError``.
    """
    name = known_queue(queue)
    if check_flag("force", force):
        clear_queue(name, reason=reason, by=by)
    dialect().in_own_transaction(lambda: _delete(name))
    forget_queue(name)


async def aclear_queue(queue: str, *, reason: str = "", by: str = "") -> int:
    """Do what ``clear_queue`` does without blocking the event loop."""
    return await sync_to_async(clear_queue)(queue, reason=reason, by=by)


async def amove_jobs(queue: str, to: str) -> int:
    """Do what ``move_jobs`` does without blocking the event loop."""
    return await sync_to_async(move_jobs)(queue, to)


async def adrain_queue(queue: str, **order: Any) -> int:
    """Do what ``drain_queue`` does without blocking the event loop."""
    return await sync_to_async(drain_queue)(queue, **order)


async def adelete_queue(queue: str, **order: Any) -> None:
    """Do what ``delete_queue`` does without blocking the event loop."""
    await sync_to_async(delete_queue)(queue, **order)


def unbegun() -> Q:
    """Return the condition of a job that nobody has begun."""
    recorded = Checkpoint.objects.using(alias()).filter(job_id=OuterRef("id"))
    return Q(~Exists(recorded), status__in=CLEARED, attempt=0)


def _clear(ids: list[UUID], reason: str) -> Cancelled:
    return cancel_unbegun(ids, unbegun(), reason=reason)


def _batches(queue: str, only: Q) -> Iterator[list[UUID]]:
    """Give the ids of the queue's jobs that no worker holds, some at a time; each job once."""
    now = dialect().now()
    for statuses in BY_INDEX:
        found = jobs().in_status(*statuses).filter(only, queue=queue, created_at__lte=now)
        yield from _walk(found.order_by("id"))


def _walk(found: JobQuerySet) -> Iterator[list[UUID]]:
    last: UUID | None = None
    while ids := list((found if last is None else found.filter(id__gt=last)).values_list("id", flat=True)[:READ]):
        for start in range(0, len(ids), BATCH):
            yield ids[start : start + BATCH]
        last = ids[-1]


def _move(ids: list[UUID], queue: str, other: str) -> int:
    # Locked first, as an order to one job does: none is claimed in between.
    these = jobs().filter(id__in=ids, queue=queue, status__in=MOVABLE)
    held = list(these.order_by("id").select_for_update().values_list("id", flat=True))
    moved = jobs().filter(id__in=held).update(queue=other)
    tell(other)
    return moved


def _delete(name: str) -> None:
    # In the order of those who limit a queue: the limit, then the queue.
    Limit.objects.using(alias()).filter(key=f"{QUEUE}{name}").delete()
    row = Queue.objects.using(alias()).filter(name=name)
    list(row.select_for_update())
    counts = live_counts([name]).get(name, {})
    if any(counts.values()):
        said = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
        raise QueueNotEmpty(
            f"Queue {name!r} has jobs that have not ended ({said}): clear it, move them, or let them end."
        )
    row.delete()
