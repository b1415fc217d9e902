"""Queues as rows: which there are, and orders to pause and resume one.

A pause is a barrier. Each claim looks at the rows of the queues that it takes jobs from, and has them locked for
sharing while it does; a pause writes to the row. So it waits for claims that are on their way, and those that come
later see it. What workers have claimed but not begun they hand back, and say so in their own row (``Worker.obeys``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db.models import Count, F, QuerySet

from .. import registry
from ..clock import SYSTEM
from ..dialects.now import DatabaseNow
from ..dialects.rows import Held
from ..errors import AlreadyPaused, NotPaused, OpenTransaction, OptionError, QueueNotFound, TimedOut
from ..events import QueuePausedEvent, QueueResumedEvent
from ..models import Queue, Worker
from ..querysets.jobs import JobQuerySet
from ..rendering import safe_repr
from ..signals import queue_paused, queue_resumed
from ..states import CLOCKED, LINES, OPEN, Status
from .database import alias, can_be_asked_for, dialect, jobs
from .facts import tell_taken_away
from .orders import LONGEST_BY, LONGEST_REASON, LOOK, Mode, check_mode, check_text, seized, tell
from .transition import move

BATCH: Final = 500
LONGEST_WAIT: Final = 86_400.0
"""Seconds."""
LOOK_EVERY: Final = 0.02
"""Seconds between two looks whether workers have obeyed."""
LIVE_BY_INDEX: Final = {
    (Status.PENDING,): {Status.PENDING},
    (Status.RUNNING,): {Status.RUNNING},
    tuple(sorted(CLOCKED)): CLOCKED,
    tuple(sorted(LINES)): {Status.PAUSED},
}
"""The statuses that an index has together, and those of them that are counted by it."""
LIVE: Final = tuple(sorted(OPEN))
RESUMED: Final = {"paused_at": None, "resume_at": None, "pause_mode": "", "pause_reason": "", "paused_by": ""}


def queue_names() -> list[str]:
    """Return every queue that is known: by a row, or as the default of a registered definition."""
    return sorted({*_queues().values_list("name", flat=True), *registry.queues()})


def live_counts(names: Iterable[str]) -> dict[str, dict[Status, int]]:
    """Return for each queue how many of its jobs there are in each status but the final ones, by their indexes."""
    counts: dict[str, dict[Status, int]] = {name: dict.fromkeys(LIVE, 0) for name in names}
    for group, counted in LIVE_BY_INDEX.items():
        found = jobs().in_status(*group).on_queues(counts).order_by().values_list("queue", "status")
        for name, status, number in found.annotate(number=Count("id")):
            if status in counted:
                counts[name][Status(status)] = number
    return counts


def add_missing() -> None:
    """Give each queue that has pending jobs a row, if somebody has deleted it while they were enqueued."""
    last, missing, known = "", [], set(_queues().values_list("name", flat=True))
    pending = jobs().pending().order_by("queue").values_list("queue", flat=True)
    while (name := pending.filter(queue__gt=last).first()) is not None:  # one look in the index for each queue
        last = name
        if name not in known:
            missing.append(name)
    if missing:
        dialect().add_queues(missing)


def paused_queues() -> QuerySet[Queue]:
    """Return the paused queues, by name."""
    return _queues().filter(paused_at__isnull=False).order_by("name")


def is_queue_paused(queue: str) -> bool:
    """Answer whether the queue is paused; ``False`` also for one that does not exist."""
    return can_be_asked_for(queue) and paused_queues().filter(name=queue).exists()


def pause_queue(  # noqa: PLR0913 -- what an order says, by name
    queue: str,
    *,
    mode: Mode = "graceful",
    reason: str = "",
    by: str = "",
    resume_at: datetime | None = None,
    wait: timedelta | float | None = None,
) -> None:
    """Pause a queue for the whole fleet: when this returns, no claim takes a job of it any more.

    Running jobs go on (graceful), or are taken from their workers and go back to the queue with their attempt
    (aggressive). Jobs that a worker has claimed but not begun go back within a second; with ``wait`` (seconds or
    timedelta) this returns when every live worker has said that no job of the queue begins there any more, and raises
    ``TimedOut`` when that takes longer; the queue is paused all the same. At ``resume_at`` workers resume it.

    Jobs can be enqueued meanwhile. In an open transaction on the jobs' database the pause is part of it. Raises
    ``QueueNotFound``, ``AlreadyPaused`` and ``OptionError``; then nothing has changed.
    """
    name, mode = known_queue(queue), check_mode(mode)
    order = {
        "pause_mode": mode,
        "pause_reason": check_text("reason", reason, LONGEST_REASON),
        "paused_by": check_text("by", by, LONGEST_BY),
        "resume_at": _instant(resume_at),
    }
    patience = None if wait is None else as_patience(wait)
    if patience is not None and dialect().connection.in_atomic_block:
        raise OpenTransaction("pause_queue(wait=...) needs the pause to be committed: call it outside of atomic().")
    dialect().in_own_transaction(lambda: _pause(name, order))
    if mode == "aggressive":
        take_away(jobs().filter(queue=name))
    if patience is not None:
        _wait_for_workers(name, patience)


def resume_queue(queue: str, *, reason: str = "", by: str = "") -> None:
    """Let a paused queue go on. Raises ``QueueNotFound``, ``NotPaused`` and ``OptionError``."""
    name = known_queue(queue)
    reason, by = check_text("reason", reason, LONGEST_REASON), check_text("by", by, LONGEST_BY)
    if not _queues().filter(name=name, paused_at__isnull=False).update(**RESUMED):
        raise NotPaused(f"Queue {name!r} is not paused.")
    tell(LOOK, name)
    queue_resumed.tell_after_commit([QueueResumedEvent(queue=name, reason=reason, by=by, by_itself=False)])


async def apause_queue(queue: str, **order: Any) -> None:
    """Do what ``pause_queue`` does without blocking the event loop."""
    await sync_to_async(pause_queue)(queue, **order)


async def aresume_queue(queue: str, **order: Any) -> None:
    """Do what ``resume_queue`` does without blocking the event loop."""
    await sync_to_async(resume_queue)(queue, **order)


def resume_due() -> int:
    """Resume the queues whose ``resume_at`` has come; return how many."""
    due = _queues().filter(paused_at__isnull=False, resume_at__lte=DatabaseNow())
    # One by one: of several workers that try at once, one resumes each queue, and tells of it.
    resumed = [name for name in due.values_list("name", flat=True) if due.filter(name=name).update(**RESUMED)]
    if resumed:
        tell(LOOK, *resumed)
    queue_resumed.tell_after_commit(QueueResumedEvent(queue=name, reason="", by="", by_itself=True) for name in resumed)
    return len(resumed)


def take_away(these: JobQuerySet) -> int:
    """Take running jobs from their workers, which are not asked; they go back to their queues with their attempt.

    In short transactions. A job that is to be cancelled is left to its worker.
    """
    taken, last = 0, None
    while True:
        found = these.running().filter(cancel_requested_at=None).order_by("id")
        batch = list((found if last is None else found.filter(id__gt=last)).values_list("id", "token")[:BATCH])
        if not batch:
            return taken
        taken += dialect().in_own_transaction(partial(_take_away, [Held(*row) for row in batch]))
        last = batch[-1][0]


def _take_away(leases: list[Held]) -> int:
    taken = [
        lease
        for lease in leases
        if move("take_away", jobs().filter(id=lease.id, token=lease.token), attempt=F("attempt") - 1)
    ]
    tell(*map(seized, taken))
    tell_taken_away([lease.id for lease in taken])
    return len(taken)


def _queues() -> QuerySet[Queue]:
    return Queue.objects.using(alias())


def known_queue(queue: object) -> str:
    """Return the name of a queue that has a row; one of a registered definition gets its row now."""
    if isinstance(queue, Queue):
        queue = queue.name
    if isinstance(queue, str) and can_be_asked_for(queue):
        if _queues().filter(name=queue).exists():
            return queue
        if queue in registry.queues() or jobs().pending().filter(queue=queue).exists():
            dialect().add_queues([queue])
            return queue
    known = ", ".join(queue_names()) or "none yet"
    raise QueueNotFound(f"There is no queue {safe_repr(queue, 80)}. Known queues: {known:.500}.")


def _pause(name: str, order: dict[str, Any]) -> None:
    this = _queues().filter(name=name)
    since, by = this.select_for_update().values_list("paused_at", "paused_by").get()
    if since is not None:
        whom = f" by {by}" if by else ""
        raise AlreadyPaused(f"Queue {name!r} is paused already, since {since:%Y-%m-%d %H:%M:%S} UTC{whom}.")
    this.update(paused_at=DatabaseNow(), **order)
    tell(LOOK)
    said = {"mode": order["pause_mode"], "reason": order["pause_reason"], "by": order["paused_by"]}
    queue_paused.tell_after_commit([QueuePausedEvent(queue=name, **said, resume_at=order["resume_at"])])


def _instant(resume_at: object) -> datetime | None:
    if resume_at is None:
        return None
    if not isinstance(resume_at, datetime) or resume_at.tzinfo is None:
        raise OptionError(f"resume_at must be a datetime with a time zone, not {safe_repr(resume_at, 80)}.")
    if resume_at <= dialect().now():
        raise OptionError(f"resume_at must lie in the future, not at {resume_at.isoformat()}.")
    return resume_at


def as_patience(wait: object) -> float:
    """Return a length of time to wait in seconds, or raise ``OptionError``."""
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_WAIT:
        raise OptionError(f"wait must be more than 0 seconds and at most a day, not {safe_repr(wait, 80)}.")
    return float(seconds)


def _wait_for_workers(name: str, patience: float) -> None:
    """Wait until each worker that lived before the pause has handed back what it had not begun, or is gone."""
    since = _queues().filter(name=name).values_list("paused_at", flat=True).get()
    deadline, never = SYSTEM.monotonic() + patience, threading.Event()
    while True:
        alive = Worker.objects.using(alias()).alive().filter(started_at__lte=since)
        late = [worker for worker, obeys in alive.values_list("name", "obeys") if obeys.get(name) != token_of(since)]
        if not late or since is None:
            return
        if SYSTEM.monotonic() >= deadline:
            raise TimedOut(
                f"Queue {name!r} is paused, but after {patience:g} s {late[0]!r} has not said that it obeys."
            )
        SYSTEM.wait(never, LOOK_EVERY)


def token_of(paused_at: datetime | None) -> str | None:
    """Return the text by which a worker says which pause it has obeyed."""
    return None if paused_at is None else paused_at.isoformat()
