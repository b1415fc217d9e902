"""Storing and reading the results of durable calls."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..dialects.rows import NewCheckpoint
from ..errors import LeaseLost
from ..models import Checkpoint
from .database import alias, dialect


class Stored(NamedTuple):
    """A checkpoint as replay sees it; either ``result`` or ``error`` is set."""

    name: str
    kind: str
    result: str | None
    error: str | None


def save(rows: Sequence[NewCheckpoint]) -> set[tuple[UUID, str]]:
    """Store checkpoints in one commit; return the (job, key) that are stored.

    One that is missing had lost its lease: its writer must stop. A key that is stored already is never
    changed.
    """
    return dialect().save_checkpoints(rows)


def load(job_id: UUID, generation: int) -> dict[str, Stored]:
    """Return a job's checkpoints of one generation by call key."""
    rows = Checkpoint.objects.using(alias()).filter(job_id=job_id, generation=generation)
    return {row[0]: Stored(*row[1:]) for row in rows.values_list("key", "name", "kind", "result", "error")}


class SteadySave:
    """``save`` that outlasts a database that goes away: tried again until the lease must be over.

    An error here would be raised into a job's code that has done nothing wrong.
    """

    def __init__(self, lease: timedelta, *, clock: Clock = SYSTEM) -> None:
        """Take the length of a lease."""
        self._lease = lease.total_seconds()
        self._clock = clock
        self._never = threading.Event()

    def __call__(self, rows: Sequence[NewCheckpoint]) -> set[tuple[UUID, str]]:
        """Store the rows; see ``save``. Raises ``LeaseLost`` when the database stayed away too long."""
        deadline, pause = self._clock.monotonic() + self._lease, 0.05
        while True:
            try:
                return save(rows)
            except Exception as error:
                if not dialect().is_disconnect(error):
                    raise
                dialect().connection.close()
                if self._clock.monotonic() >= deadline:
                    raise LeaseLost("The database stayed away for longer than the lease.") from error
            self._clock.wait(self._never, pause)
            pause = min(pause * 2, 2.0)
