"""The rows of worker processes."""

from __future__ import annotations

from datetime import timedelta

from ..dialects.now import DatabaseNow
from ..errors import WorkerNameTaken
from ..faults import fault
from ..models import Worker
from .database import alias, dialect


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


def stopped(worker_id: int) -> None:
    """Say that the worker has ended in order."""
    Worker.objects.using(alias()).filter(id=worker_id).update(stopped_at=DatabaseNow())


def has_registered(name: str, pid: int) -> bool:
    """Answer whether the process that was started under this name has begun to work."""
    return Worker.objects.using(alias()).filter(name=name, pid=pid).exists()
