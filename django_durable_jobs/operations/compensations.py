"""What undoes a job: registered while its code runs, run by a worker once the job has failed or is to be cancelled.

A registered compensation is a checkpoint of kind ``compensation``. When the job has ended but for them, a row of kind
``ending`` says so and how; from then on the job's function does not run any more. Then the compensations run, the
last one first: the n-th of them that was registered is the call ``c.<n>``. So ``c.1`` is the last of all, and
once it is stored the job is undone. Those that a fork took over with calls of the old job are not among them; those of
calls that the job has left for a new generation (``generations.py``) are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from django.db.models import Exists, OuterRef

from ..conf import get_settings
from ..dialects.rows import Claimed, NewCheckpoint
from ..errors import JobFailed
from ..models import Checkpoint
from ..serialization import decode, encode, encode_error
from .checkpoints import Stored, load
from .database import alias, jobs
from .steps import once

COMPENSATION: Final = "compensation"
ENDING: Final = "ending"
PATH: Final = "c"
"""Where compensations have their keys; the job's own calls have numbers."""
ENDING_KEY: Final = f"{PATH}.0"
LAST_KEY: Final = f"{PATH}.1"
ANOTHERS: Final = "null"
"""What a fork has in the place of a compensation that it took over: its calls were the old job's, which undoes them."""
LOSSES: Final = 3
"""Workers that one compensation may take with it; then it counts as failed."""


class Registered(NamedTuple):
    """One registered compensation: its number in the order of registration, and what is to be called."""

    number: int
    definition: str
    payload: str
    options: str | None

    @property
    def key(self) -> str:
        """The key of its call."""
        return f"{PATH}.{self.number}"


class Ended(NamedTuple):
    """How a job ended before its compensations ran."""

    status: str
    error: str
    traceback: str
    asked: datetime | None = None
    """When it was ordered to cancel, if it was."""


def registered_form(definition: str, payload: str, options: str | None) -> str:
    """Put a compensation into the form in which it is stored."""
    return encode([definition, payload, options], limit=get_settings().result_limit)


def ended_form(ended: Ended) -> str:
    """Put the ending that waits for the compensations into the form in which it is stored."""
    return encode(list(ended), limit=get_settings().result_limit)


def ended_of(stored: Stored) -> Ended:
    """Read the same."""
    return Ended(*cast("list[Any]", decode(cast("str", stored.result))))


def undoes(row: Stored) -> bool:
    """Answer whether a checkpoint is a compensation that this job is to run."""
    return row.kind == COMPENSATION and row.result != ANOTHERS


def registered(checkpoints: Mapping[str, Stored]) -> list[Registered]:
    """Return the compensations among a job's checkpoints, which are given as they were stored: in this order."""
    forms = [cast("str", row.result) for row in checkpoints.values() if undoes(row)]
    return [Registered(number, *cast("list[Any]", decode(form))) for number, form in enumerate(forms, 1)]


def begin(job: Claimed, row: NewCheckpoint, ended: Ended) -> dict[str, Stored] | None:
    """Store how the job ended, once, and return its checkpoints; ``None`` when nothing is to be undone.

    In a transaction, under the job's token. From here on the order to cancel is obeyed, so it is taken off the job,
    which may wait in a compensation without being woken by it, until its end is stored.
    """

    def decide() -> str | None:
        if not has_any(job.id, job.generation):
            return None
        this = jobs().filter(id=job.id)
        asked = this.values_list("cancel_requested_at", flat=True).get()
        this.update(cancel_requested_at=None, rescues=0)
        return ended_form(ended._replace(asked=asked))

    return None if once(job, row, decide, heed=False) is None else load(job.id, job.generation)


def has_any(job_id: UUID, generation: int) -> bool:
    """Answer whether a job has registered compensations."""
    rows = Checkpoint.objects.using(alias()).filter(job_id=job_id, generation=generation, kind=COMPENSATION)
    return rows.exclude(result=ANOTHERS).exists()


def being_undone(job_id: UUID, generation: int) -> bool:
    """Answer whether a job has ended but for its compensations."""
    rows = Checkpoint.objects.using(alias()).filter(job_id=job_id, generation=generation, key=ENDING_KEY)
    return rows.exists()


def kinds(ids: Collection[UUID], *wanted: str) -> dict[UUID, set[str]]:
    """Return which of these kinds of checkpoints each job has in its present generation, for those that have any."""
    # Two looks by key. In a join the list of jobs binds one table only, and a planner with old statistics was seen to
    # walk through the other.
    generations = dict(jobs().filter(id__in=ids).values_list("id", "generation"))
    rows = Checkpoint.objects.using(alias()).filter(job_id__in=ids, kind__in=wanted)
    rows = rows.exclude(kind=COMPENSATION, result=ANOTHERS)
    found: dict[UUID, set[str]] = {}
    for job_id, generation, kind in rows.values_list("job_id", "generation", "kind").distinct():
        if generation == generations.get(job_id):
            found.setdefault(job_id, set()).add(kind)
    return found


def is_undone() -> Exists:
    """Say of jobs whether all their compensations have run: what was undone must not count as done."""
    rows = Checkpoint.objects.using(alias())
    return Exists(rows.filter(job=OuterRef("id"), generation=OuterRef("generation"), key=LAST_KEY))


def note_lost(job_id: UUID, generation: int, error: str, *, losses: int) -> int:
    """Note that a worker was lost with a job that is to be undone; return how many losses count from now on.

    In the transaction that takes the job back. A compensation that took several workers with it counts as failed,
    so that the others run.
    """
    checkpoints = load(job_id, generation)
    table = Checkpoint.objects.using(alias())
    if ENDING_KEY not in checkpoints:
        table.create(
            job_id=job_id,
            generation=generation,
            key=ENDING_KEY,
            name=ENDING,
            kind=ENDING,
            result=ended_form(Ended("failed", error, "")),
        )
        return 1
    if losses < LOSSES:
        return losses
    left = [one for one in registered(checkpoints) if one.key not in checkpoints]
    if left:
        guilty = left[-1]
        failure = JobFailed(f"{losses} workers were lost while it ran.")
        table.create(
            job_id=job_id,
            generation=generation,
            key=guilty.key,
            name=guilty.definition,
            kind="call",
            error=encode_error(failure),
        )
    return 1
