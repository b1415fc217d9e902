"""Keeping leases alive, and ending those of a worker that is known to be dead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db.models import F

from ..dialects.now import DatabaseNow
from ..dialects.rows import Held
from ..models import Worker
from .database import alias, dialect, jobs
from .facts import tell_paused
from .transition import move

__all__ = ["Held", "expire_leases_of", "release_unknown", "renew"]


def renew(worker_id: int, leases: Sequence[Held], length: timedelta) -> set[Held]:
    """Extend the worker's leases from now; return those that are still its own."""
    return dialect().renew(worker_id, leases, length) if leases else set()


def release_unknown(worker_id: int, known: Sequence[Held]) -> int:
    """Hand back jobs that this worker holds by the database, but not by its own knowledge.

    A claim whose answer got lost leaves such jobs; their code never began here, so the attempt is given back.
    """
    ours = set(known)

    def work() -> int:
        mine = jobs().held_by(worker_id).select_for_update().values_list("id", "token")
        if dialect().has_parallel_writers:
            # In id order, as every transaction that locks several jobs. SQLite would walk through all jobs for it.
            mine = mine.order_by("id")
        strange = [Held(*row) for row in mine if Held(*row) not in ours]
        moved = sum(
            move("release", jobs().filter(id=one.id), token=one.token, attempt=F("attempt") - 1) for one in strange
        )
        tell_paused([one.id for one in strange])
        return moved

    return dialect().in_own_transaction(work)


def expire_leases_of(worker_name: str, *, host: str | None = None, pid: int | None = None) -> int:
    """End the leases of a worker whose process is known to be dead, so that they are rescued at once.

    For the parent of the process only: it has seen it end. With ``host`` and ``pid`` a live worker elsewhere keeps
    its jobs, even if it has the same name. Returns the number of jobs concerned.
    """
    this = {key: value for key, value in (("host", host), ("pid", pid)) if value is not None}

    def work() -> int:
        dead = Worker.objects.using(alias()).filter(name=worker_name, stopped_at=None, **this)
        ids = list(dead.values_list("id", flat=True))
        dead.update(lease_expires_at=DatabaseNow() - timedelta(seconds=1))
        return jobs().running().filter(worker_id__in=ids).update(lease_expires_at=DatabaseNow() - timedelta(seconds=1))

    return dialect().in_own_transaction(work)
