"""The rows of worker processes, and orders to pause and resume one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import QuerySet

from ..dialects.now import DatabaseNow
from ..errors import AlreadyPaused, NotPaused, TransitionRefused, WorkerNameTaken, WorkerNotFound
from ..events import WorkerPausedEvent, WorkerResumedEvent, WorkerStartedEvent, WorkerStoppedEvent
from ..faults import fault
from ..models import Worker
from ..rendering import safe_repr
from ..signals import worker_paused, worker_resumed, worker_started, worker_stopped
from .database import alias, can_be_asked_for, dialect, jobs
from .orders import LONGEST_BY, LONGEST_REASON, LOOK, Mode, check_mode, check_text, tell
from .queues import take_away


def register(  # noqa: PLR0913 -- the columns of a row, by name
    name: str,
    *,
    host: str,
    pid: int,
    queues: dict[str, int],
    lease: timedelta,
    tried_for: timedelta = timedelta(0),
) -> int:
    """Add a row for a starting worker and return its id; a live worker of the same name refuses it.

    Of several that start at the same instant, exactly one gets the name: each adds a row that does not count yet,
    and after that is committed they decide one after the other.

    ``tried_for`` says how long this process has been at it: a row of its own that is as young comes from a try
    whose answer was lost, and must not keep it out.
    """
    table = Worker.objects.using(alias())
    if tried_for:
        table.filter(name=name, host=host, pid=pid, started_at__gte=DatabaseNow() - tried_for).delete()
    worker = table.create(
        name=name,
        host=host,
        pid=pid,
        queues=queues,
        lease_expires_at=DatabaseNow() + lease,
        seen_at=DatabaseNow(),
        stopped_at=DatabaseNow(),
    )
    if not dialect().in_own_transaction(lambda: _begin(worker)):
        table.filter(id=worker.id).delete()
        raise WorkerNameTaken(f"A live worker has the id {name!r}. Stop it, wait for its lease, or choose another id.")
    dialect().add_queues(queues)
    worker_started.tell_after_commit([WorkerStartedEvent(worker=name, host=host, pid=pid, queues=tuple(queues))])
    return worker.id


def _begin(worker: Worker) -> bool:
    """Let the worker count as alive unless another one of its name does.

    Whoever decides meanwhile holds a row that is locked here: either its row was there before this one, or it will
    find this one.
    """
    rows = Worker.objects.using(alias()).filter(name=worker.name, lease_expires_at__gte=DatabaseNow())
    rivals = list(rows.select_for_update().order_by("id").values_list("id", "stopped_at"))
    fault("before-worker-begins")
    if any(stopped_at is None for id_, stopped_at in rivals if id_ != worker.id):
        return False
    return bool(Worker.objects.using(alias()).filter(id=worker.id).update(stopped_at=None))


def beat(worker_id: int, lease: timedelta) -> bool:
    """Say that the worker lives; ``False`` when its row is gone."""
    row = Worker.objects.using(alias()).filter(id=worker_id)
    return bool(row.update(seen_at=DatabaseNow(), lease_expires_at=DatabaseNow() + lease, lost_with=None))


def restore(  # noqa: PLR0913 -- as above
    worker_id: int, name: str, *, host: str, pid: int, queues: dict[str, int], lease: timedelta
) -> None:
    """Add the row of a working worker again, under its old id: its jobs point there.

    Somebody deleted it, or the pruner did while the machine slept. Without a row nobody sees this worker, nor how
    many jobs it held when it is lost.
    """
    Worker.objects.using(alias()).create(
        id=worker_id,
        name=name,
        host=host,
        pid=pid,
        queues=queues,
        lease_expires_at=DatabaseNow() + lease,
        seen_at=DatabaseNow(),
    )


def serves(worker_id: int, queues: dict[str, int]) -> None:
    """Say which queues the worker serves by now, and how many jobs of each at once."""
    Worker.objects.using(alias()).filter(id=worker_id).update(queues=queues)


def stopped(worker_id: int) -> None:
    """Say that the worker has ended in order."""
    this = Worker.objects.using(alias()).filter(id=worker_id)
    if this.update(stopped_at=DatabaseNow()) and worker_stopped.receivers:
        names = this.values_list("name", flat=True)
        worker_stopped.tell_after_commit(WorkerStoppedEvent(worker=name) for name in names)


def has_registered(name: str, pid: int) -> bool:
    """Answer whether the process that was started under this name has begun to work."""
    return Worker.objects.using(alias()).filter(name=name, pid=pid).exists()


def pause_worker(worker: Worker | str, *, mode: Mode = "graceful", reason: str = "", by: str = "") -> None:
    """Pause a live worker, on whatever host: when this returns, it claims no job any more.

    What it runs goes on (graceful), or is taken away and goes back to its queues with its attempt (aggressive). What it
    has claimed but not begun it hands back. It keeps its heartbeat and its chores. Raises ``WorkerNotFound``,
    ``AlreadyPaused`` and ``OptionError``; then nothing has changed.
    """
    mode = check_mode(mode)
    order = {
        "pause_mode": mode,
        "pause_reason": check_text("reason", reason, LONGEST_REASON),
        "paused_by": check_text("by", by, LONGEST_BY),
    }
    name = worker.name if isinstance(worker, Worker) else worker
    worker_id = dialect().in_own_transaction(lambda: _pause(name, order))
    if mode == "aggressive":
        take_away(jobs().filter(worker_id=worker_id))


def resume_worker(worker: Worker | str, *, reason: str = "", by: str = "") -> None:
    """Let a paused worker go on. Raises ``WorkerNotFound``, ``NotPaused`` and ``OptionError``."""
    name = worker.name if isinstance(worker, Worker) else worker
    reason, by = check_text("reason", reason, LONGEST_REASON), check_text("by", by, LONGEST_BY)
    alive = _alive(name)
    resumed = {"paused_at": None, "pause_mode": "", "pause_reason": "", "paused_by": ""}
    if not alive.filter(paused_at__isnull=False).update(**resumed):
        if not alive.exists():
            raise _not_found(name)
        raise NotPaused(f"Worker {name!r} is not paused.")
    tell(LOOK)
    worker_resumed.tell_after_commit([WorkerResumedEvent(worker=name, reason=reason, by=by)])


def stop_worker(worker: Worker | str, *, reason: str = "", by: str = "") -> None:
    """Ask a live worker, on whatever host, for a clean stop, as SIGTERM does; it follows within a second.

    It claims nothing more, waits for its jobs as long as its ``--grace`` says, hands back what still runs, and its
    process ends. Whoever keeps it running (a supervisor, systemd) may start another one in its place. Raises
    ``WorkerNotFound``, ``TransitionRefused`` for one that is stopping already, and ``OptionError``.
    """
    name = worker.name if isinstance(worker, Worker) else worker
    # They stand in the audit: the row has no place for them, as it is soon gone.
    check_text("reason", reason, LONGEST_REASON), check_text("by", by, LONGEST_BY)
    alive = _alive(name)
    if not alive.filter(stop_requested_at=None).update(stop_requested_at=DatabaseNow()):
        if not alive.exists():
            raise _not_found(name)
        raise TransitionRefused(f"Worker {name!r} has been asked to stop already.")
    tell(LOOK)


async def astop_worker(worker: Worker | str, *, reason: str = "", by: str = "") -> None:
    """Do what ``stop_worker`` does without blocking the event loop."""
    await sync_to_async(stop_worker)(worker, reason=reason, by=by)


async def apause_worker(worker: Worker | str, **order: Any) -> None:
    """Do what ``pause_worker`` does without blocking the event loop."""
    await sync_to_async(pause_worker)(worker, **order)


async def aresume_worker(worker: Worker | str, **order: Any) -> None:
    """Do what ``resume_worker`` does without blocking the event loop."""
    await sync_to_async(resume_worker)(worker, **order)


def _alive(name: object) -> QuerySet[Worker]:
    rows = Worker.objects.using(alias()).alive()
    return rows.filter(name=name) if can_be_asked_for(name) else rows.none()


def _not_found(name: object) -> WorkerNotFound:
    return WorkerNotFound(f"No live worker has the id {safe_repr(name, 80)}.")


def _pause(name: object, order: dict[str, Any]) -> int:
    row = _alive(name).select_for_update().values_list("id", "paused_at", "paused_by").first()
    if row is None:
        raise _not_found(name)
    worker_id, since, by = row
    if since is not None:
        whom = f" by {by}" if by else ""
        raise AlreadyPaused(f"Worker {name!r} is paused already, since {since:%Y-%m-%d %H:%M:%S} UTC{whom}.")
    Worker.objects.using(alias()).filter(id=worker_id).update(paused_at=DatabaseNow(), **order)
    tell(LOOK)
    said = {"mode": order["pause_mode"], "reason": order["pause_reason"], "by": order["paused_by"]}
    worker_paused.tell_after_commit([WorkerPausedEvent(worker=str(name), **said)])
    return worker_id
