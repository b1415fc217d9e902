"""PostgreSQL apart from claim and finish: clock, connections, errors, tables, enqueue and LISTEN/NOTIFY.

What runs in a project's transaction goes through Django's cursor, so that it is seen by its logs, wrappers and
tests; the worker's hot statements (``postgresql.py``) use psycopg's own, whose parameters the server binds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError, transaction

from ..conf import get_settings
from .base import Dialect
from .rows import INSERTED, NewJob, further_columns

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

CHANNEL: Final = "django_durable_jobs"
COPY_FROM: Final = 200
"""Rows from which COPY is cheaper than one INSERT."""
MINIMUM: Final = 140_000
CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available."""
AWAY: Final = frozenset({"25006", "25P03", "57014", "57P01", "57P02", "57P03", "53300", "53100", "53200"})
"""Read-only, too long between two statements, too long in one, shutdown, starting up, too many connections, disk or
memory full."""
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


def _further(job: NewJob, columns: list[str]) -> list[Any]:
    more = job.more or {}
    return [more.get(name) for name in columns]


def _sqlstate(error: Exception) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


class PostgreSQLSession(Dialect):
    """What every statement on PostgreSQL needs: clock, cursors, errors, enqueue and notifications."""

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
        with connection.wrap_database_errors:
            # Not closed: it holds nothing on the server.
            yield psycopg.Cursor(connection.connection)

    def prepare_worker_connection(self, connection: BaseDatabaseWrapper) -> None:
        """Let the driver prepare what it sends again and again: planning costs more than a checkpoint's insert.

        A process that stands still in the middle of a transaction gets its locks taken away after one lease. Behind a
        pooler (settings without prepared statements) or in Django's pool the session would take that to others.
        """
        if not get_settings().prepared_statements:
            return
        connection.connection.prepare_threshold = 2
        if not connection.settings_dict["OPTIONS"].get("pool"):
            milliseconds = int(get_settings().lease.total_seconds() * 1000)
            with connection.cursor() as cursor:
                cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")

    def has_open_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Ask the driver, without a query."""
        status = connection.connection.info.transaction_status
        return bool(status != psycopg.pq.TransactionStatus.IDLE)

    def end_session(self, connection: BaseDatabaseWrapper) -> None:
        """Close what lies beneath too: with ``OPTIONS["pool"]`` Django would hand the session on as it is."""
        if connection.connection is not None:
            connection.connection.close()
        connection.close()

    def take_pool(self) -> object | None:
        """Forget the pool of this alias; the next connection makes a new one."""
        pools: dict[str, object] = getattr(self.connection, "_connection_pools", {})
        return pools.pop(self.alias, None)

    def reset_session(self, connection: BaseDatabaseWrapper) -> None:
        """Return settings, cursors, notifications and session locks to what a new connection has."""
        with connection.cursor() as cursor:
            cursor.execute("CLOSE ALL; UNLISTEN *; RESET ALL; SELECT pg_advisory_unlock_all()")
        connection.ensure_timezone()

    @contextmanager
    def own_schema(self) -> Generator[None]:
        """Look for our tables where a new connection does, for the rest of the transaction at most."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('search_path'); SET LOCAL search_path TO DEFAULT; "
                "SELECT current_setting('search_path')"
            )
            (theirs,) = cursor.fetchone()
            cursor.nextset()
            cursor.nextset()
            (ours,) = cursor.fetchone()
        yield
        if theirs != ours:
            # Triggers that run at the commit are theirs.
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT set_config('search_path', %s, true)", [theirs])

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

    def is_missing_table(self, error: Exception) -> bool:
        """Answer whether the name of a table leads nowhere."""
        return _sqlstate(error) == "42P01"

    def database_problems(self) -> list[tuple[str, str, str]]:
        """Refuse servers that are too old."""
        version: int = self.connection.pg_version  # type: ignore[attr-defined]  # this backend's own
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
        further = further_columns(jobs)
        row_sql = f"({'%s, ' * (8 + len(further))}{now}, "
        parts: list[str] = []
        params: list[Any] = []
        for job in jobs:
            params += [*job[:7], self.first_status(job).value, *_further(job, further)]
            if job.delay is not None:
                parts.append(f"{row_sql}{now} + %s)")
                params.append(job.delay)
            else:
                parts.append(f"{row_sql}%s)")
                params.append(job.run_at)
        columns = (*INSERTED, *further, "created_at", "run_at")
        sql = f"INSERT INTO {self.table('Job')} ({', '.join(columns)}) VALUES {', '.join(parts)}"
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
        for name, value in (job.more or {}).items():
            columns.append(name)
            values.append("%s")
            params.append(value)
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
            further = further_columns(jobs)
            columns = (*INSERTED, *further, "created_at", "run_at")
            sql = f"COPY {self.table('Job')} ({', '.join(columns)}) FROM STDIN"
            with self.hot_cursor() as raw, raw.copy(sql) as copy:
                for job in jobs:
                    due = now + job.delay if job.delay is not None else job.run_at
                    copy.write_row((*job[:7], self.first_status(job).value, *_further(job, further), now, due))
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
