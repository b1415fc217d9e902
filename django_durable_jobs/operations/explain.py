"""Why a job is not running: one answer, in words and as a code, with the thing to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from asgiref.sync import sync_to_async

from ..errors import JobNotFound
from ..ids import Identified, id_of
from ..models import Job, Queue, Worker
from ..outcomes import CHILDREN, LINED_UP
from ..rendering import visible
from ..states import FINAL, Status
from .database import alias, dialect, jobs
from .limited_claim import FLEET, used_up
from .sequences import blocked_by
from .wake import APPROVAL, EVENT, MESSAGE

COUNTED: Final = 1000
"""Up to this many jobs are counted that are in front of one."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The one reason. ``subject`` and ``key`` name what to look at: a job, a queue or a worker; empty for nothing."""

    code: str
    text: str
    subject: str = ""
    key: str = ""


def explain(job: Identified | UUID | str) -> Explanation:
    """Say why a job is not running, or what it does if it is. Raises ``JobNotFound``.

    ====================== ===================================================================================
    ``ENDED``              it has ended
    ``RUNNING``            a worker runs it; ``CANCELLING`` and ``PAUSING`` when its code is asked to stop
    ``PAUSED``             it was paused
    ``NOT_DUE``            its time has not come, also that of its next attempt
    ``SLEEPING``           its code waits for a time
    ``WAITING_MESSAGE``    its code waits for a message; ``WAITING_EVENT``, ``WAITING_APPROVAL`` likewise
    ``WAITING_CHILDREN``   its code waits for its children
    ``WAITING_SEVERAL``    its code waits for the first of several of these
    ``BEHIND``             another job of its sequence must end first
    ``KEY_FULL``           no more jobs of its definition or concurrency key may run at once
    ``QUEUE_PAUSED``       its queue is paused
    ``NO_WORKER``          no live worker serves its queue
    ``WORKERS_PAUSED``     all that serve it are paused
    ``LIMIT_FULL``         no more jobs of its queue, or of the fleet, may run at once
    ``RATE_USED_UP``       of its queue, or of the fleet, so many have begun that the next must wait
    ``NEXT``               it is in its queue, and a worker with a free slot takes what is first
    ====================== ===================================================================================
    """
    job_id = id_of(job)
    row = jobs().light().filter(id=job_id).select_related("worker").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status = Status(row.status)
    if status in FINAL:
        return Explanation("ENDED", f"It has ended: it is {status}.")
    match status:
        case Status.RUNNING:
            return _running(row)
        case Status.PAUSED:
            by, why = _said(row.paused_by, row.pause_reason)
            text = f"It was paused{by} while it was {row.paused_from}{why}; resume it."
            return Explanation("PAUSED", text, "job", str(row.id))
        case Status.WAITING:
            return _waiting(row)
        case Status.PENDING:
            return _pending(row)
    what = "its next attempt" if status is Status.RETRYING else "it"
    late = row.run_at is not None and row.run_at <= dialect().now()
    text = "a worker is about to put it into its queue" if late else f"{what} is due at {_time(row.run_at)}"
    return Explanation("NOT_DUE", f"Its time: {text}.")


async def aexplain(job: Identified | UUID | str) -> Explanation:
    """Do what ``explain`` does without blocking the event loop."""
    return await sync_to_async(explain)(job)


def _running(row: Job) -> Explanation:
    name = row.worker.name if row.worker is not None else ""
    if row.cancel_requested_at is not None:
        text, code = "is asked to stop it at its next durable call: it is to be cancelled", "CANCELLING"
    elif row.pause_requested_at is not None:
        text, code = "is asked to stop it at its next durable call: it is to be paused", "PAUSING"
    else:
        text, code = f"has run it since {_time(row.started_at)}", "RUNNING"
    return Explanation(code, f"Worker {visible(name)} {text}.", "worker", name)


def _waiting(row: Job) -> Explanation:
    waits = row.waiting_for or ""
    until = f", until {_time(row.run_at)} at most" if row.run_at is not None else ""
    if waits.startswith(LINED_UP):
        return _in_line(row)
    for prefix, code, what in (
        (MESSAGE, "WAITING_MESSAGE", "the message"),
        (EVENT, "WAITING_EVENT", "the event"),
        (APPROVAL, "WAITING_APPROVAL", "the decision"),
    ):
        if waits.startswith(prefix):
            name = waits.removeprefix(prefix)
            name = name if code == "WAITING_MESSAGE" else name.partition(" ")[2]
            return Explanation(code, f"Its code waits for {what} {visible(name)!r}{until}.", "job", str(row.id))
    if waits.startswith(CHILDREN):
        call = waits.partition(" ")[2].partition("/")[2]
        text = f"Its code waits for the children of its call {visible(call)}{until}."
        return Explanation("WAITING_CHILDREN", text, "job", str(row.id))
    if row.run_at is None or waits != "time":
        return Explanation(
            "WAITING_SEVERAL", f"Its code waits for the first of several things{until}.", "job", str(row.id)
        )
    return Explanation("SLEEPING", f"Its code sleeps until {_time(row.run_at)}.", "job", str(row.id))


def _in_line(row: Job) -> Explanation:
    front = blocked_by(row.id)
    if front is None:
        return Explanation("BEHIND", "It is the next in its line; a worker is about to let it go on.")
    if row.concurrency_key is not None:
        text = f"All places of its concurrency key are taken; job {front.id} has one of them."
        return Explanation("KEY_FULL", text, "job", str(front.id))
    text = f"Job {front.id} of its sequence must end first; that is {front.status}."
    return Explanation("BEHIND", text, "job", str(front.id))


def _said(by: str | None, reason: str | None) -> tuple[str, str]:
    return f" by {visible(by)}" if by else "", f": {visible(reason)}" if reason else ""


def _pending(row: Job) -> Explanation:
    queue = Queue.objects.using(alias()).filter(name=row.queue, paused_at__isnull=False).first()
    named = f"queue {row.queue!r}"
    if queue is not None:
        by, why = _said(queue.paused_by, queue.pause_reason)
        text = f"Its {named} has been paused since {_time(queue.paused_at)}{by}{why}."
        return Explanation("QUEUE_PAUSED", text, "queue", row.queue)
    alive = Worker.objects.using(alias()).alive().values_list("queues", "paused_at", "name")
    serving = [(paused_at, name) for queues, paused_at, name in alive if row.queue in queues]
    if not serving:
        text = f"No live worker serves its {named}: start one, with --queue {row.queue} or for all queues."
        return Explanation("NO_WORKER", text, "queue", row.queue)
    if all(paused_at is not None for paused_at, _name in serving):
        names = ", ".join(visible(name) for _paused_at, name in serving[:3])
        return Explanation(
            "WORKERS_PAUSED", f"The workers of its {named} are paused: {names}.", "worker", serving[0][1]
        )
    for limit in used_up(row.queue):
        what = "the fleet" if limit.key == FLEET else f"its {named}"
        subject = ("", "") if limit.key == FLEET else ("queue", row.queue)
        if limit.seconds is None:
            text = f"{limit.allowed} jobs of {what} may run at once, and so many do."
            return Explanation("LIMIT_FULL", text, *subject)
        text = f"Of {what} {limit.allowed} have begun lately; the next may in {limit.seconds:.1f} s."
        return Explanation("RATE_USED_UP", text, *subject)
    return Explanation("NEXT", f"It is in its {named}, {_place(row)}.", "queue", row.queue)


def _place(row: Job) -> str:
    if row.rescues > 0:
        return "to run in a process of its own, since a worker was lost with it"
    before = jobs().pending().filter(queue=row.queue, rescues=0)
    first = before.filter(rank__lt=row.rank) | before.filter(rank=row.rank, id__lt=row.id)
    number = first.order_by().values("pk")[:COUNTED].count()
    if not number:
        return "the first to be taken by a worker with a free slot"
    return f"behind {number if number < COUNTED else f'{COUNTED} or more'} job{'s' if number > 1 else ''}"


def _time(instant: Any) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC" if instant is not None else "no set time"
