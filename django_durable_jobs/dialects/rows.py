"""The plain tuples that travel between operations and dialects on the hot path: rows, not model instances."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID


class NewJob(NamedTuple):
    """A job that is to be stored. ``run_at`` or ``delay`` is set for one that is due later."""

    id: UUID
    definition: str
    queue: str
    rank: int
    payload: str
    max_attempts: int
    options: str | None
    run_at: datetime | None
    delay: timedelta | None
    more: dict[str, Any] | None = None
    """Columns that few jobs have, by name: of children, forks, sequences."""

    @property
    def waits(self) -> bool:
        """Whether it is stored as waiting."""
        return self.more is not None and "waiting_for" in self.more and self.run_at is None and self.delay is None


INSERTED: Final = ("id", "definition", "queue", "rank", "payload", "max_attempts", "options", "status")
"""The columns that every new job fills, beside two times: of its first seven fields, and its status."""


def further_columns(jobs: Sequence[NewJob]) -> list[str]:
    """Return the columns beyond the usual ones that at least one of these jobs fills."""
    return sorted({name for job in jobs if job.more for name in job.more})


class Want(NamedTuple):
    """How many jobs of a queue a worker takes now."""

    queue: str
    amount: int


class Claim(NamedTuple):
    """What the claims of one round have in common.

    ``rescued`` picks the other half of the queue: jobs that were lost with a worker, which a process claims
    alone.

    Nothing is taken from a limited queue, nor for any queue while the fleet is limited, unless the caller has checked
    that limit and holds it locked. ``only`` are the jobs to choose from, when somebody has chosen.
    """

    worker_id: int
    lease: timedelta
    wants: list[Want]
    rescued: bool = False
    queue_checked: bool = False
    fleet_checked: bool = False
    only: Sequence[UUID] | None = None


class Claimed(NamedTuple):
    """A job as its new holder sees it."""

    id: UUID
    token: int
    queue: str
    definition: str
    payload: str
    attempt: int
    max_attempts: int
    generation: int
    rank: int
    options: str | None
    parent_call: str | None
    sequence_key: str | None
    parent_id: UUID | None
    batch_id: UUID | None
    cancel_requested_at: datetime | None


class Completion(NamedTuple):
    """A job that returned, with the token it was run under."""

    id: UUID
    token: int
    result: str | None


class Promoted(NamedTuple):
    """How many due jobs were moved to their queues, and how long it is until the next job is due.

    ``due_in`` is ``None`` when none waits for a time, and not above zero when one is due already: more than one round
    takes, or somebody else has it in hand.
    """

    moved: int
    due_in: timedelta | None
    lines: Collection[str] = ()
    """Where some of them wait for their turn now, in place of being in their queues."""


class Held(NamedTuple):
    """A lease: which job, under which token."""

    id: UUID
    token: int


class NewCheckpoint(NamedTuple):
    """A call's result, with the token it was made under. Either ``result`` or ``error`` is set."""

    job_id: UUID
    token: int
    generation: int
    key: str
    name: str
    kind: str
    result: str | None
    error: str | None


class Saved(NamedTuple):
    """What became of checkpoints: which (job, key) are stored, and what their jobs are ordered to do."""

    stored: set[tuple[UUID, str]]
    cancelled: set[UUID]
    """Jobs that are to be cancelled."""
    pausing: set[UUID]
    """Jobs that are to be paused."""
