"""The portable dialect: every hot statement through the ORM, and the questions that other dialects answer anew.

MariaDB and MySQL run on this. Each public method is one unit that either happens or does not; those that a
worker calls open their own transaction. Every write by a worker compares its fencing token in the statement
that writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db import IntegrityError, NotSupportedError, transaction
from django.db.models import F, Q
from django.db.models.constants import OnConflict
from django.db.models.functions import Greatest

from ..outcomes import LINED_UP
from ..states import CLOCKED, TRANSITIONS, Status
from .locks import Locks
from .now import DatabaseNow
from .rows import Claim, Claimed, Completion, Held, NewCheckpoint, NewJob, Promoted, Saved

if TYPE_CHECKING:
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper

Result = TypeVar("Result")

IN_TIME: Final = Q(expires_at=None) | Q(expires_at__gt=DatabaseNow())
"""What a claim asks of a job that must begin by some time."""


class Dialect(Locks):
    """What the package needs from a database: every hot statement, portably."""

    # Enqueue ------------------------------------------------------------------------------------------------

    def insert_jobs(self, jobs: Sequence[NewJob], notify: Sequence[str] = ()) -> None:
        """Store new jobs, all or none, and send notifications at the same commit.

        Runs inside the caller's transaction if there is one. Only columns that are filled are named: a migration of a
        project enqueues with those that the table has by then.
        """
        raise NotImplementedError

    @staticmethod
    def first_status(job: NewJob) -> Status:
        """Return the status a new job is stored with: waiting in a sequence, or scheduled when it is due later."""
        if job.waits:
            return Status.WAITING
        return Status.PENDING if job.run_at is None and job.delay is None else Status.SCHEDULED

    def add_queues(self, names: Iterable[str]) -> None:
        """Make sure that these queues have a row; those that have one are not locked.

        Only the name is named: a migration of a project enqueues with the columns that the tables have by then.
        """
        ordered, ignore, ops = sorted(names), OnConflict.IGNORE, self.connection.ops
        if not ordered:
            return
        rows = ", ".join(["(%s)"] * len(ordered))
        insert, suffix = ops.insert_statement(on_conflict=ignore), ops.on_conflict_suffix_sql([], ignore, [], [])
        with self.connection.cursor() as cursor:
            cursor.execute(f"{insert} {self.table('Queue')} (name) VALUES {rows} {suffix}", ordered)

    def notify(self, payloads: Iterable[str]) -> None:
        """Wake listening workers when the present transaction commits; a hint that may be lost."""

    def listen(self, seconds: float, connection: BaseDatabaseWrapper) -> Iterator[str | None]:
        """Yield what ``notify`` sent; only where ``has_notifications``."""
        raise NotSupportedError(f"{connection.vendor} has no notifications (waiting {seconds} s for one).")

    # Claim and finish ---------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> list[Claimed]:
        """Take up to the wanted number of pending jobs of each queue, in claim order.

        Exactly one worker gets a job. Never more rows than wanted.
        """
        return self.in_own_transaction(lambda: self._claim(claim))

    def complete(self, completions: Sequence[Completion]) -> set[UUID]:
        """Store results, group commit: return the ids that took effect; the others' leases were lost."""
        return self.in_own_transaction(lambda: self._complete(completions))

    def complete_and_claim(self, completions: Sequence[Completion], claim: Claim) -> tuple[set[UUID], list[Claimed]]:
        """Do both in one transaction: one commit for the work done and the work to do."""
        return self.in_own_transaction(lambda: (self._complete(completions), self._claim(claim)))

    def _claim(self, claim: Claim) -> list[Claimed]:
        jobs = self.model("Job").objects.using(self.alias)
        side = Q(rescues__gt=0) if claim.rescued else Q(rescues=0)
        if claim.only is not None:
            side &= Q(id__in=claim.only)
        claimed: list[Claimed] = []
        for queue, amount in self._open(claim):
            rows = list(
                jobs.pending()
                .filter(side, IN_TIME, queue=queue)
                .in_claim_order()
                .select_for_update(skip_locked=True)
                .values_list(*Claimed._fields, named=False)[:amount]
            )
            if not rows:
                continue
            jobs.pending().filter(id__in=[row[0] for row in rows]).update(
                status=TRANSITIONS["claim"].target.value,
                token=F("token") + 1,
                max_attempts=Greatest(F("max_attempts"), F("attempt") + 1),
                attempt=F("attempt") + 1,
                worker_id=claim.worker_id,
                started_at=DatabaseNow(),
                lease_expires_at=DatabaseNow() + claim.lease,
            )
            # The rows are locked since they were read, so the new values are known without reading again.
            claimed += [
                row._replace(
                    token=row.token + 1, attempt=row.attempt + 1, max_attempts=max(row.max_attempts, row.attempt + 1)
                )
                for row in map(Claimed._make, rows)
            ]
        return claimed

    def _complete(self, completions: Sequence[Completion]) -> set[UUID]:
        jobs = self.model("Job").objects.using(self.alias)
        return {
            completion.id
            for completion in sorted(completions)
            if jobs.running()
            .filter(id=completion.id, token=completion.token)
            .update(
                status=TRANSITIONS["complete"].target.value,
                result=completion.result,
                finished_at=DatabaseNow(),
                worker_id=None,
                lease_expires_at=None,
                expires_at=None,
            )
        }

    # Due times ----------------------------------------------------------------------------------------------

    def promote(self, most: int, *, notify: bool) -> Promoted:
        """Move up to ``most`` due jobs to their queues, earliest first, and say when the next one is due.

        Each due job is moved by one of those who try at once.
        """
        due_in = self._next_due()
        if due_in is None or due_in > timedelta(0):
            return Promoted(0, due_in)
        moved, lines = self.in_own_transaction(lambda: self._promote(most, notify=notify))
        return Promoted(moved, self._next_due(), lines)

    def _promote(self, most: int, *, notify: bool) -> tuple[int, set[str]]:
        jobs = self.model("Job").objects.using(self.alias)
        due = jobs.due().order_by("run_at").select_for_update(skip_locked=self.has_skip_locked)
        rows = list(due.values_list("id", "queue", "waiting_for", "sequence_key")[:most])
        if not rows:
            return 0, set()
        if notify:
            self.notify(sorted({queue for _id, queue, *_rest in rows}))
        these = jobs.due().filter(id__in=sorted(row[0] for row in rows))
        lined = {job_id: line for job_id, _queue, wait, line in rows if wait == LINED_UP}
        moved: int = 0
        if lined:
            rule = TRANSITIONS["line_up_due"]
            moved = these.filter(id__in=lined).in_status(*rule.sources).update(status=rule.target.value, run_at=None)
        # Of a job that waited nobody says any more what for.
        free = these.exclude(id__in=lined)
        moved += free.update(status=TRANSITIONS["promote"].target.value, waiting_for=None, finished_at=None)
        return moved, set(lined.values())

    def _next_due(self) -> timedelta | None:
        # Where indexes are not partial, that of due times leads with the status: one look per status reads one row.
        looks = [CLOCKED] if self.has_partial_indexes else [{status} for status in CLOCKED]
        timed = self.model("Job").objects.using(self.alias).filter(run_at__isnull=False)
        rows = [
            timed.in_status(*look).order_by("run_at").values_list("run_at", DatabaseNow()).first() for look in looks
        ]
        return min((due_at - now for due_at, now in filter(None, rows)), default=None)

    # Leases -------------------------------------------------------------------------------------------------

    def renew(self, worker_id: int, leases: Sequence[Held], length: timedelta) -> set[Held]:
        """Extend these leases; return those that are still held."""

        def work() -> set[Held]:
            jobs = (
                self.model("Job")
                .objects.using(self.alias)
                .held_by(worker_id)
                .filter(id__in=[held.id for held in leases])
            )
            present = {Held(*row) for row in jobs.order_by("id").select_for_update().values_list("id", "token")}
            still = present & set(leases)
            jobs.filter(id__in=[held.id for held in still]).update(lease_expires_at=DatabaseNow() + length)
            return still

        return self.in_own_transaction(work)

    # Checkpoints --------------------------------------------------------------------------------------------

    def save_checkpoints(self, rows: Sequence[NewCheckpoint]) -> Saved:
        """Store checkpoints of several jobs in one commit; say which are stored, and what their jobs are ordered to do.

        The rows of the jobs are locked under their tokens first: a bare guarded INSERT would let a worker
        that lost its lease slip a row in beside the next attempt.
        """
        return self.in_own_transaction(lambda: self._save_checkpoints(rows))

    def _save_checkpoints(self, rows: Sequence[NewCheckpoint]) -> Saved:
        held = (
            self.model("Job")
            .objects.using(self.alias)
            .running()
            .filter(id__in={row.job_id for row in rows})
            .order_by("id")
            .select_for_update()
            .values_list("id", "token", "cancel_requested_at", "pause_requested_at")
        )
        # By job and token: a group may hold rows of a lost attempt beside those of the present one.
        owned = {(job_id, token): orders for job_id, token, *orders in held}
        kept = [row for row in rows if (row.job_id, row.token) in owned]
        table = self.model("Checkpoint").objects.using(self.alias)
        try:
            with transaction.atomic(using=self.alias):
                table.bulk_create([table.model(**_without_token(row)) for row in kept])
        except IntegrityError:
            # A key is there already: an earlier try of ours whose answer was lost. What is stored stays.
            for row in kept:
                self._save_or_recognise(row)
        cancelled = {row.job_id for row in kept if owned[row.job_id, row.token][0] is not None}
        pausing = {row.job_id for row in kept if owned[row.job_id, row.token][1] is not None}
        return Saved({(row.job_id, row.key) for row in kept}, cancelled, pausing - cancelled)

    def _save_or_recognise(self, row: NewCheckpoint) -> None:
        values = _without_token(row)
        place = {name: values.pop(name) for name in ("job_id", "generation", "key")}
        stored, created = self.model("Checkpoint").objects.using(self.alias).get_or_create(**place, defaults=values)
        if not created and any(getattr(stored, name) != value for name, value in values.items()):
            raise IntegrityError(f"Checkpoint {row.key} of job {row.job_id} is stored with another value.")


def _without_token(row: NewCheckpoint) -> dict[str, Any]:
    values = row._asdict()
    del values["token"]
    return values
