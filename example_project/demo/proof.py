"""The proof of ``demo --kill``: what the ledger and the checkpoints say about each call.

The ledger has one row per run of a call's body, written before anything else; a checkpoint is a call's stored
result. Both name the call by its job and its number in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from stdlib_index.models import LedgerRow, Run

from django_durable_jobs.models import Checkpoint


class Call(NamedTuple):
    """One call of one job."""

    job: UUID
    number: int


@dataclass(frozen=True)
class Work:
    """The calls that a run consists of, each with the path of its file."""

    run: Run
    paths: Mapping[Call, str]
    parent: UUID

    @property
    def jobs(self) -> list[UUID]:
        """The package jobs, children of one parent."""
        return sorted({call.job for call in self.paths})

    def count_checkpointed(self) -> int:
        """Count the calls whose result is stored."""
        return Checkpoint.objects.filter(job__in=self.jobs).count()

    def checkpoints(self) -> list[Call]:
        """Return a call for each stored result."""
        rows = Checkpoint.objects.filter(job__in=self.jobs).values_list("job_id", "key")
        return [Call(job, int(key)) for job, key in rows]

    def ledger(self, worker: str | None = None) -> list[Call]:
        """Return a call for each run of a call's body, of one worker or of all."""
        rows = LedgerRow.objects.filter(run=self.run)
        if worker is not None:
            rows = rows.filter(worker=worker)
        return [Call(job, number) for job, number in rows.order_by("id").values_list("job", "number")]

    def in_flight(self, worker: str, checkpointed: set[Call]) -> list[Call]:
        """Return the calls that a dead worker had begun, and of which it had stored no result."""
        return sorted(set(self.ledger(worker)) - checkpointed)


@dataclass(frozen=True)
class Verdict:
    """Whether the promise was kept, and the numbers that show it."""

    claims: list[tuple[bool, str]]

    @property
    def holds(self) -> bool:
        """Whether every claim is true."""
        return all(true for true, _text in self.claims)


def judge(work: Work, worker: str, checkpointed: set[Call], slots: int) -> Verdict:
    """Compare the finished run with what was checkpointed when `worker` was killed.

    The calls in flight are read again from the dead worker's ledger rows: the database server may have committed
    one more, already on its way, after the process was gone.
    """
    calls = set(work.paths)
    runs = Counter(work.ledger())
    stored = Counter(work.checkpoints())
    in_flight = set(work.in_flight(worker, checkpointed))
    rest = calls - checkpointed - in_flight
    once = sum(runs[call] == 1 for call in checkpointed)
    twice = sum(runs[call] == 2 for call in in_flight)  # noqa: PLR2004 - twice
    again = {call for call, times in runs.items() if times > 1}
    return Verdict(
        [
            (
                once == len(checkpointed),
                f"Checkpointed before the kill: {len(checkpointed)} calls. Ran exactly once: {once} of them.",
            ),
            (
                len(in_flight) <= slots and all(runs[call] in {1, 2} for call in in_flight),
                f"In flight at the kill: {len(in_flight)} (slots: {slots}). Ran twice: {twice} of them.",
            ),
            (again <= in_flight, f"Any other call that ran more than once: {len(again - in_flight)}."),
            (
                all(runs[call] == 1 for call in rest),
                f"Begun after the kill: {len(rest)}. Ran exactly once: {sum(runs[call] == 1 for call in rest)}.",
            ),
            (
                runs.total() == len(calls) + twice and set(runs) == calls,
                f"Ledger rows: {runs.total()} = {len(calls)} calls + {twice} that ran a second time.",
            ),
            (
                set(stored) == calls and stored.total() == len(calls),
                f"Stored results: {stored.total()} for {len(calls)} calls, one each.",
            ),
        ]
    )
