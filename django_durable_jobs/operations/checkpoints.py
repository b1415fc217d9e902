"""Storing and reading the results of durable calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..dialects.rows import NewCheckpoint, Saved
from ..errors import LeaseLost
from ..models import Checkpoint
from ..serialization import decode
from .connections import OwnConnection
from .database import alias, dialect

BEGINNING: Final = ".0"
"""What follows the key of a call in that of what it fixed when it began; calls count from 1."""
BEGUN: Final = "begun"
"""The kind of these checkpoints."""
LONGEST_NAME: Final = 200
"""Characters of a checkpoint's name."""

Result = TypeVar("Result")


class Stored(NamedTuple):
    """A checkpoint as replay sees it; either ``result`` or ``error`` is set."""

    name: str
    kind: str
    result: str | None
    error: str | None

    @property
    def begins(self) -> str:
        """Which kind of call has begun here, if this is what one fixed at its beginning: ``["message", ...]``."""
        head, _quote, rest = (self.result or "").partition('"')
        return rest.partition('"')[0] if head == "[" else ""


def fixed_by(beginning: str) -> Any:
    """Read what a call fixed when it began: stored as the kind of the call, and what was fixed."""
    return cast("list[Any]", decode(beginning))[1]


def save(rows: Sequence[NewCheckpoint]) -> Saved:
    """Store checkpoints in one commit; say which (job, key) are stored, and what jobs are ordered to do.

    One that is missing had lost its lease: its writer must stop. A key that is stored already is never
    changed.
    """
    return dialect().save_checkpoints(rows)


def load(job_id: UUID, generation: int) -> dict[str, Stored]:
    """Return a job's checkpoints of one generation by call key, in the order in which they were stored."""
    found = Checkpoint.objects.using(alias()).filter(job_id=job_id, generation=generation)
    # Sorted here: asked for an order, a planner with old statistics may walk through the whole table in it.
    rows = sorted(found.values_list("id", "key", "name", "kind", "result", "error"))
    return {row[1]: Stored(*row[2:]) for row in rows}


class Steady:
    """Outlasts a database that goes away: what fails for that is tried again until the lease must be over.

    An error here would be raised into a job's code that has done nothing wrong.
    """

    def __init__(self, lease: timedelta, *, clock: Clock = SYSTEM) -> None:
        """Take the length of a lease."""
        self._lease = lease.total_seconds()
        self._clock = clock
        self._never = threading.Event()

    def load(self, job_id: UUID, generation: int) -> dict[str, Stored]:
        """Read checkpoints on the thread's own connection; see ``load``."""
        return self.repeat(lambda: load(job_id, generation))

    def repeat(self, work: Callable[[], Result]) -> Result:
        """Do ``work``. Raises ``LeaseLost`` when the database stayed away too long."""
        deadline, pause = self._clock.monotonic() + self._lease, 0.05
        while True:
            try:
                return work()
            except Exception as error:
                away = dialect().is_disconnect(error)
                if not away and not dialect().is_conflict(error):
                    raise
                if away:
                    dialect().connection.close()
                if self._clock.monotonic() >= deadline:
                    raise LeaseLost("The database stayed away for longer than the lease.") from error
            self._clock.wait(self._never, pause)
            pause = min(pause * 2, 2.0)


class SteadySave(Steady):
    """``save`` that outlasts a database that goes away, on a connection of its own. One thread at a time."""

    def __init__(self, lease: timedelta, *, clock: Clock = SYSTEM) -> None:
        """Take the length of a lease."""
        super().__init__(lease, clock=clock)
        self._connection = OwnConnection()

    def __call__(self, rows: Sequence[NewCheckpoint]) -> Saved:
        """Store the rows; see ``save`` and ``repeat``."""
        with self._connection.lent():
            return self.repeat(lambda: save(rows))

    def transact(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in a transaction on this connection.

        It is done again when the database's answer was lost: it must begin by looking whether it has happened.
        """
        with self._connection.lent():
            return self.repeat(lambda: dialect().in_own_transaction(work))

    def close(self) -> None:
        """Close the connection; not while a thread writes."""
        self._connection.close()
