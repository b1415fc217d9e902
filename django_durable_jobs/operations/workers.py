"""The rows of worker processes."""

from __future__ import annotations

from datetime import timedelta

from ..dialects.now import DatabaseNow
from ..errors import WorkerNameTaken
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

    ``tried_for`` says how long this process has been at it: a row of its own that is as young comes from a try
    whose answer was lost, and must not keep it out.
    """
    table = Worker.objects.using(alias())
    if tried_for:
        table.filter(name=name, host=host, pid=pid, started_at__gte=DatabaseNow() - tried_for).delete()
    worker = table.create(
        name=name, host=host, pid=pid, queues=queues, lease_expires_at=DatabaseNow() + lease, seen_at=DatabaseNow()
    )
    if table.alive().filter(name=name, id__lt=worker.id).exists():
        table.filter(id=worker.id).delete()
        raise WorkerNameTaken(f"A live worker has the id {name!r}. Stop it, wait for its lease, or choose another id.")
    dialect().add_queues(queues)
    return worker.id


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
