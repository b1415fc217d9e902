"""The portable dialect: every hot statement through the ORM, and the questions that other dialects answer anew.

MariaDB and MySQL run on this. Each public method is one unit that either happens or does not; those that a
worker calls open their own transaction. Every write by a worker compares its fencing token in the statement
that writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import IntegrityError, NotSupportedError, transaction
from django.db.models import F, Q
from django.db.models.constants import OnConflict
from django.db.models.functions import Greatest

from ..states import CLOCKED, TRANSITIONS, Status
from .now import DatabaseNow
from .rows import Claim, Claimed, Completion, Held, NewCheckpoint, NewJob, Promoted, Saved, Want
from .transactions import Transactions

if TYPE_CHECKING:
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet

Result = TypeVar("Result")


class Dialect(Transactions):
    """What the package needs from a database: every hot statement, portably."""

    # Enqueue ------------------------------------------------------------------------------------------------

    def insert_jobs(self, jobs: Sequence[NewJob], notify: Sequence[str] = ()) -> None:
        """Store new jobs, all or none, and send notifications at the same commit.

        Runs inside the caller's transaction if there is one.
        """
        job_model = self.model("Job")
        job_model.objects.using(self.alias).bulk_create(
            [
                job_model(
                    id=job.id,
                    definition=job.definition,
                    queue=job.queue,
                    rank=job.rank,
                    payload=job.payload,
                    max_attempts=job.max_attempts,
                    options=job.options,
                    created_at=DatabaseNow(),
                    status=self.first_status(job).value,
                    run_at=DatabaseNow() + job.delay if job.delay is not None else job.run_at,
                    **(job.more or {}),
                )
                for job in jobs
            ],
            batch_size=500,
        )

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

    def lock_keys(self, model: str, keys: Iterable[str]) -> None:
        """Lock the rows of these keys for the rest of the transaction; rows that are not there are made.

        One statement: looking first and inserting then would be a deadlock of two that find nothing.
        """
        ordered, column = sorted(keys), self.connection.ops.quote_name("key")
        rows = ", ".join(["(%s)"] * len(ordered))
        with self.connection.cursor() as cursor:
            # An update that changes nothing: it locks the row.
            cursor.execute(
                f"INSERT INTO {self.table(model)} ({column}) VALUES {rows} {self.on_conflict(column)}", ordered
            )

    def latest(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return the query for rows as others have committed them by now, in a transaction of any isolation level.

        Elsewhere than on MySQL a snapshot that is too old shows at the lock of a row that changed, as a conflict.
        """
        return rows

    def on_conflict(self, column: str) -> str:
        """Return the end of an INSERT that takes the rows which are there already for its own."""
        return f"ON CONFLICT ({column}) DO UPDATE SET {column} = excluded.{column}"

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
        claimed: list[Claimed] = []
        for queue, amount in self._open(claim):
            rows = list(
                jobs.pending()
                .filter(side, queue=queue)
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

    def _open(self, claim: Claim) -> list[Want]:
        """Return what is wanted of queues that are not paused; nothing for a worker that is.

        Their rows stay locked for sharing, so that a pause waits for this claim. A row that somebody is about to change
        is not waited for: then nothing is taken from there this time.
        """
        if claim.worker_id in self._closed("Worker", "id", [claim.worker_id]):
            return []
        closed = self._closed("Queue", "name", [want.queue for want in claim.wants])
        return [want for want in claim.wants if want.queue not in closed]

    def _closed(self, model: str, column: str, keys: list[Any]) -> set[Any]:
        """Return those that are paused, or that somebody is about to change; one without a row is neither."""
        marks, table = ", ".join(["%s"] * len(keys)), self.table(model)
        with self.connection.cursor() as cursor:
            # All are read: a row that the condition leaves out would not stay locked.
            look = f"SELECT {column}, paused_at FROM {table} WHERE {column} IN ({marks}) ORDER BY {column}"
            cursor.execute(f"{look} {self.lock_for_sharing}", keys)
            found = dict(cursor.fetchall())
            missing = [key for key in keys if key not in found]
            if missing:
                marks = ", ".join(["%s"] * len(missing))
                cursor.execute(f"SELECT {column} FROM {table} WHERE {column} IN ({marks})", missing)
                missing = [key for (key,) in cursor.fetchall()]
        return {*(key for key, paused_at in found.items() if paused_at is not None), *missing}

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
        return Promoted(self.in_own_transaction(lambda: self._promote(most, notify=notify)), self._next_due())

    def _promote(self, most: int, *, notify: bool) -> int:
        jobs = self.model("Job").objects.using(self.alias)
        due = jobs.due().order_by("run_at").select_for_update(skip_locked=self.has_skip_locked)
        queue_of = dict(due.values_list("id", "queue")[:most])
        if not queue_of:
            return 0
        if notify:
            self.notify(sorted(set(queue_of.values())))
        moved: int = (
            jobs.due()
            .filter(id__in=sorted(queue_of))
            # Of a job that waited nobody says any more what for.
            .update(status=TRANSITIONS["promote"].target.value, waiting_for=None, finished_at=None)
        )
        return moved

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
