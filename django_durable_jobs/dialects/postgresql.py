"""PostgreSQL (14 or later) through psycopg 3: claim and finish as one statement, COPY, LISTEN/NOTIFY.

The worker's hot statements go through psycopg's own cursor (parameters bound by the server); what runs in a
project's transaction goes through Django's, so that it is seen by its logs, wrappers and tests.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, transaction

from ..states import TRANSITIONS, Status
from .base import Dialect
from .rows import Claim, Claimed, Completion, Held, NewCheckpoint, NewJob

if TYPE_CHECKING:
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

CHANNEL: Final = "django_durable_jobs"
COPY_FROM: Final = 200
"""Rows from which COPY is cheaper than one INSERT."""
MINIMUM: Final = 140_000
CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available."""
AWAY: Final = frozenset({"25006", "57014", "57P01", "57P02", "57P03", "53300", "53100", "53200"})
"""Read-only, statement timeout, shutdown, starting up, too many connections, disk or memory full."""
_RUNNING: Final = Status.RUNNING.value


class PostgreSQL(Dialect):
    """PostgreSQL."""

    has_notifications: ClassVar[bool] = True

    def now_sql(self) -> str:
        """Return the statement's time: ``now()`` would stand still in a caller's long transaction."""
        seconds = self.clock_offset.total_seconds()
        return f"(statement_timestamp() + interval '{seconds} seconds')" if seconds else "statement_timestamp()"

    def tune_tables(self, schema_editor: BaseDatabaseSchemaEditor, *, back: bool) -> None:
        """Vacuum early and without pause: each job leaves two dead rows, and claims step over what is not cleared."""
        values = {**_STORAGE, "fillfactor": 85}
        for name, parameters in (("Job", values), ("Worker", _STORAGE)):
            what = f"RESET ({', '.join(parameters)})" if back else f"SET ({_assignments(parameters)})"
            schema_editor.execute(f"ALTER TABLE {self.table(name)} {what}")

    # Connections --------------------------------------------------------------------------------------------

    @contextmanager
    def hot_cursor(self) -> Generator[psycopg.Cursor[Any]]:
        """Open a psycopg cursor on the thread's connection; its errors come out as Django's."""
        connection = self.connection
        connection.ensure_connection()
        with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
            yield cursor

    def has_open_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Ask the driver, without a query."""
        status = connection.connection.info.transaction_status
        return bool(status != psycopg.pq.TransactionStatus.IDLE)

    def reset_session(self, connection: BaseDatabaseWrapper) -> None:
        """Return settings, cursors, notifications and session locks to what a new connection has."""
        with connection.cursor() as cursor:
            cursor.execute("CLOSE ALL; UNLISTEN *; RESET ALL; SELECT pg_advisory_unlock_all()")
        connection.ensure_timezone()

    def is_conflict(self, error: Exception) -> bool:
        """Answer whether another transaction was in the way."""
        return isinstance(error, DatabaseError) and _sqlstate(error) in CONFLICTS

    def is_disconnect(self, error: Exception) -> bool:
        """Answer whether the server is away or refuses writes for now (failover, start, limits)."""
        if isinstance(error, InterfaceError):
            return True
        if not isinstance(error, DatabaseError):
            return False
        state = _sqlstate(error)
        return (
            state in AWAY or (state is None and isinstance(error, OperationalError)) or (state or "").startswith("08")
        )

    def database_problems(self) -> list[tuple[str, str, str]]:
        """Refuse servers that are too old."""
        version: int = self.connection.pg_version  # type: ignore[attr-defined]
        if version >= MINIMUM:
            return []
        return [
            (
                "E006",
                f"The jobs' database {self.alias!r} is PostgreSQL {version // 10_000}.",
                "Use PostgreSQL 14 or later.",
            )
        ]

    # Enqueue ------------------------------------------------------------------------------------------------

    def insert_jobs(self, jobs: Sequence[NewJob], notify: Sequence[str] = ()) -> None:
        """Insert one or some by VALUES, with the notification in the same statement; many by COPY."""
        if len(jobs) >= COPY_FROM:
            self._copy_jobs(jobs, notify)
            return
        if len(jobs) == 1:
            self._insert_job(jobs[0], notify)
            return
        now = self.now_sql()
        row_sql = f"(%s, %s, %s, %s, %s, %s, %s, %s, {now}, "
        parts: list[str] = []
        params: list[Any] = []
        for job in jobs:
            params += job[:7]
            params.append(self.first_status(job).value)
            if job.delay is not None:
                parts.append(f"{row_sql}{now} + %s)")
                params.append(job.delay)
            else:
                parts.append(f"{row_sql}%s)")
                params.append(job.run_at)
        sql = f"INSERT INTO {self.table('Job')} ({', '.join(_INSERTED)}) VALUES {', '.join(parts)}"
        if notify:
            # A statement of its own would be a second commit where no transaction is open.
            sql = f"WITH added AS ({sql}) SELECT pg_notify('{CHANNEL}', payload) FROM unnest(%s::text[]) AS payload"
            params.append(list(notify))
        with self.connection.cursor() as cursor:
            cursor.execute(sql, params)

    def _insert_job(self, job: NewJob, notify: Sequence[str]) -> None:
        """Insert one job by the shortest statement: the server reads it anew for each job."""
        columns = ["id", "definition", "queue", "rank", "payload", "max_attempts", "created_at", "status"]
        values = ["%s"] * 6 + [self.now_sql(), f"'{self.first_status(job)}'"]
        params: list[Any] = list(job[:6])
        if job.options is not None:
            columns.append("options")
            values.append("%s")
            params.append(job.options)
        if job.run_at is not None or job.delay is not None:
            columns.append("run_at")
            values.append("%s" if job.delay is None else f"{self.now_sql()} + %s")
            params.append(job.run_at if job.delay is None else job.delay)
        sql = f"INSERT INTO {self.table('Job')} ({', '.join(columns)}) VALUES ({', '.join(values)})"
        if notify:
            sql += f" RETURNING pg_notify('{CHANNEL}', %s)"
            params.append(notify[0])
        with self.connection.cursor() as cursor:
            cursor.execute(sql, params)

    def _copy_jobs(self, jobs: Sequence[NewJob], notify: Sequence[str]) -> None:
        with transaction.atomic(using=self.alias, savepoint=False):
            with self.connection.cursor() as cursor:
                cursor.execute(f"SELECT {self.now_sql()}", [])
                (now,) = cursor.fetchone()
            sql = f"COPY {self.table('Job')} ({', '.join(_INSERTED)}) FROM STDIN"
            with self.hot_cursor() as raw, raw.copy(sql) as copy:
                for job in jobs:
                    due = now + job.delay if job.delay is not None else job.run_at
                    copy.write_row((*job[:7], self.first_status(job).value, now, due))
            self.notify(notify)

    def notify(self, payloads: Iterable[str]) -> None:
        """Send one notification per payload, delivered at the commit; the server drops doubles."""
        with self.connection.cursor() as cursor:
            for payload in payloads:
                cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])

    def listen(self, seconds: float, connection: BaseDatabaseWrapper) -> Iterator[str | None]:
        """Yield payloads of notifications as they come in, and ``None`` at least every ``seconds``.

        ``connection`` belongs to the listener alone. The first ``None`` says that listening has begun.
        """
        connection.ensure_connection()
        raw = connection.connection
        with connection.wrap_database_errors:
            raw.execute(f"LISTEN {CHANNEL}")
            yield None
            while True:
                for notification in raw.notifies(timeout=seconds, stop_after=1):
                    yield notification.payload
                yield None

    # Claim and finish ---------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> list[Claimed]:
        """Claim in one statement; see ``_claim_sql``."""
        with self.hot_cursor() as cursor:
            sql = f"WITH {self._claim_sql(claim.rescued)} SELECT * FROM claimed ORDER BY rank, id"
            cursor.execute(sql, _claim_params(claim))
            return list(map(Claimed._make, cursor.fetchall()))

    def complete(self, completions: Sequence[Completion]) -> set[UUID]:
        """Finish in one statement; see ``_complete_sql``."""
        with self.hot_cursor() as cursor:
            cursor.execute(f"WITH {self._complete_sql()} SELECT id FROM done", _complete_params(completions))
            return {id_ for (id_,) in cursor.fetchall()}

    def complete_and_claim(self, completions: Sequence[Completion], claim: Claim) -> tuple[set[UUID], list[Claimed]]:
        """Finish these and claim those in one statement: one round trip and one commit for both."""
        sql = (
            f"WITH {self._complete_sql()}, {self._claim_sql(claim.rescued)} "
            f"SELECT {', '.join(Claimed._fields)} FROM claimed "
            f"UNION ALL SELECT id, {', '.join(['NULL'] * (len(Claimed._fields) - 1))} FROM done ORDER BY rank, id"
        )
        with self.hot_cursor() as cursor:
            cursor.execute(sql, {**_complete_params(completions), **_claim_params(claim)})
            rows = cursor.fetchall()
        return {row[0] for row in rows if row[1] is None}, [Claimed._make(row) for row in rows if row[1] is not None]

    def _complete_sql(self) -> str:
        verb = TRANSITIONS["complete"]
        return f"""
            done AS (
                UPDATE {self.table("Job")} AS job SET
                    status = '{verb.target}', result = given.result, finished_at = {self.now_sql()},
                    worker_id = NULL, lease_expires_at = NULL
                FROM unnest(%(done_ids)b::uuid[], %(done_tokens)b::int[], %(results)s::text[]) AS given(id, token, result)
                WHERE job.id = ANY (%(done_ids)b::uuid[]) AND job.id = given.id
                    AND job.token = given.token AND job.status = '{_RUNNING}'
                RETURNING job.id
            )"""

    def _claim_sql(self, rescued: bool) -> str:  # noqa: FBT001 -- chooses between two texts of one statement
        """Build the claim: lock the first rows of each queue in index order, then move them.

        MATERIALIZED keeps the planner from running the locking subquery more than once, which would lock and
        return more rows than the limit. ANY (ARRAY(...)) keeps it on the primary key: joined, the rows of a LIMIT
        that is not a constant are guessed as a tenth of the queue, and the whole table is read to hash it.
        """
        verb = TRANSITIONS["claim"]
        (source,) = verb.sources
        now = self.now_sql()
        columns = ", ".join(f"job.{name}" for name in Claimed._fields)
        return f"""
            picked AS MATERIALIZED (
                SELECT job.id
                FROM unnest(%(queues)s::text[], %(amounts)s::int[]) AS wanted(queue, amount)
                CROSS JOIN LATERAL (
                    SELECT id FROM {self.table("Job")} AS job
                    WHERE job.status = '{source}' AND job.queue = wanted.queue AND job.rescues {"> 0" if rescued else "= 0"}
                    ORDER BY job.rank, job.id LIMIT wanted.amount
                    FOR UPDATE SKIP LOCKED
                ) AS job
            ),
            claimed AS (
                UPDATE {self.table("Job")} AS job SET
                    status = '{verb.target}', token = token + 1, attempt = attempt + 1,
                    max_attempts = greatest(max_attempts, attempt + 1), worker_id = %(worker)s,
                    started_at = {now}, lease_expires_at = {now} + %(lease)s
                WHERE job.id = ANY (ARRAY(SELECT id FROM picked)) AND job.status = '{source}'
                RETURNING {columns}
            )"""

    # Leases and checkpoints ---------------------------------------------------------------------------------

    def renew(self, worker_id: int, leases: Sequence[Held], length: timedelta) -> set[Held]:
        """Extend leases in one statement. Rows are locked in id order, as every statement over many rows does."""
        sql = f"""
            WITH mine AS MATERIALIZED (
                SELECT job.id FROM {self.table("Job")} AS job
                JOIN unnest(%s::uuid[], %s::int[]) AS held(id, token) ON job.id = held.id AND job.token = held.token
                WHERE job.status = '{_RUNNING}' AND job.worker_id = %s
                ORDER BY job.id FOR NO KEY UPDATE OF job
            )
            UPDATE {self.table("Job")} AS job SET lease_expires_at = {self.now_sql()} + %s
            FROM mine WHERE job.id = mine.id
            RETURNING job.id, job.token
        """
        with self.hot_cursor() as cursor:
            cursor.execute(sql, ([held.id for held in leases], [held.token for held in leases], worker_id, length))
            return {Held(*row) for row in cursor.fetchall()}

    def save_checkpoints(self, rows: Sequence[NewCheckpoint]) -> set[tuple[UUID, str]]:
        """Lock the jobs by their tokens and insert, in one statement and one commit."""
        if self.connection.in_atomic_block:
            return super().save_checkpoints(rows)
        sql = f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(%s::uuid[], %s::int[], %s::smallint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
                    AS given(job_id, token, generation, key, name, kind, result, error)
            ), held AS MATERIALIZED (
                SELECT job.id, job.token FROM {self.table("Job")} AS job
                WHERE job.id IN (SELECT job_id FROM given) AND job.status = '{_RUNNING}'
                ORDER BY job.id FOR SHARE
            )
            INSERT INTO {self.table("Checkpoint")} (job_id, generation, key, name, kind, result, error, created_at)
            SELECT job_id, generation, key, name, kind, result, error, {self.now_sql()}
            FROM given JOIN held ON held.id = given.job_id AND held.token = given.token
            RETURNING job_id, key
        """
        try:
            with self.hot_cursor() as cursor:
                cursor.execute(sql, [list(column) for column in zip(*rows, strict=True)])
                return set(cursor.fetchall())
        except IntegrityError:
            # A key is there already: an earlier try of ours whose answer was lost. The portable way sorts it out.
            return super().save_checkpoints(rows)


_STORAGE: Final[dict[str, float]] = {
    # The defaults wait for 20 % of the table to die: on a million kept jobs that is 200,000 dead rows.
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 1000,
    "autovacuum_vacuum_cost_delay": 0,
}


def _assignments(parameters: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in parameters.items())


_INSERTED: Final = (
    "id",
    "definition",
    "queue",
    "rank",
    "payload",
    "max_attempts",
    "options",
    "status",
    "created_at",
    "run_at",
)


def _sqlstate(error: Exception) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def _claim_params(claim: Claim) -> dict[str, Any]:
    return {
        "queues": [want.queue for want in claim.wants],
        "amounts": [want.amount for want in claim.wants],
        "worker": claim.worker_id,
        "lease": claim.lease,
    }


def _complete_params(completions: Sequence[Completion]) -> dict[str, Any]:
    return {
        "done_ids": [row.id for row in completions],
        "done_tokens": [row.token for row in completions],
        "results": [row.result for row in completions],
    }
