"""SQLite (3.35 or later): one machine, one writer at a time. Claim and finish are single statements.

A statement that writes takes the write lock before it reads, so two workers never decide on the same
snapshot; a transaction of several statements begins IMMEDIATE for the same reason.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

import msgspec
from django.db import OperationalError, transaction

from ..states import TRANSITIONS, Status
from .base import Dialect
from .files import network_file_system_of
from .locks import shut
from .rows import INSERTED, Claim, Claimed, Completion, NewJob, further_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from django.db.backends.base.base import BaseDatabaseWrapper

MINIMUM: Final = (3, 35, 0)
BUSY_TIMEOUT: Final = 5000
"""Milliseconds a statement waits for the write lock."""
SETS_WAL: Final = re.compile(r"journal_mode\s*[=(]\s*['\"]?wal", re.IGNORECASE)
UNUSABLE: Final = ("locked", "full", "unable to open", "readonly", "disk I/O")
_RUNNING: Final = Status.RUNNING.value


class SQLite(Dialect):
    """SQLite, on a file in WAL mode."""

    has_parallel_writers: ClassVar[bool] = False
    has_skip_locked: ClassVar[bool] = False

    @property
    def lock_for_sharing(self) -> str:
        """Say nothing: there are no locks of rows, and a snapshot that is too old to write shows when it writes."""
        return ""

    def now_sql(self) -> str:
        """Return the time in the form that Django stores, with its six digits."""
        shift = f", '{self.clock_offset.total_seconds():+.3f} seconds'" if self.clock_offset else ""
        return f"(strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'{shift}) || '000')"

    def _later_sql(self, seconds: float) -> str:
        shift = seconds + self.clock_offset.total_seconds()
        return f"(strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '{shift:+.3f} seconds') || '000')"

    def prepare_worker_connection(self, connection: BaseDatabaseWrapper) -> None:
        """Use WAL, wait for the lock, and begin transactions with it."""
        connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]  # this backend's own
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")

    def has_open_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Ask the driver: a bare BEGIN that a job left open would lock the file for everybody."""
        try:
            return bool(connection.connection.in_transaction)
        except sqlite3.ProgrammingError:
            return False  # closed beneath Django

    def cut(self, connection: BaseDatabaseWrapper) -> None:
        """End the statement: there is no server, and so nothing else to wait for but another writer."""
        if connection.connection is not None:
            connection.connection.interrupt()

    def reset_session(self, connection: BaseDatabaseWrapper) -> None:
        """Raise if the connection was closed beneath Django; pragmas that a job sets stay set."""
        _ = connection.connection.in_transaction

    def is_conflict(self, error: Exception) -> bool:
        """Answer whether another connection had the lock."""
        return isinstance(error, OperationalError) and "locked" in str(error)

    def is_disconnect(self, error: Exception) -> bool:
        """Answer whether the file cannot be used for now: locked, full disk, unreadable."""
        return isinstance(error, OperationalError) and any(word in str(error) for word in UNUSABLE)

    def is_missing_table(self, error: Exception) -> bool:
        """Answer whether the name of a table leads nowhere."""
        return isinstance(error, OperationalError) and "no such table" in str(error)

    def database_problems(self) -> list[tuple[str, str, str]]:
        """Refuse versions without RETURNING."""
        if sqlite3.sqlite_version_info >= MINIMUM:
            return []
        return [("E006", f"SQLite {sqlite3.sqlite_version} has no RETURNING.", "Use SQLite 3.35 or later.")]

    def database_warnings(self) -> list[tuple[str, str, str]]:
        """Warn about a database that only one process sees, and about settings that fail under two writers."""
        settings = self.connection.settings_dict
        name = str(settings["NAME"])
        if name == ":memory:" or "mode=memory" in name or not name:
            return [
                (
                    "W006",
                    f"The jobs' database {self.alias!r} is SQLite in memory.",
                    "A worker cannot see it: use a file.",
                )
            ]
        found = []
        if (kind := network_file_system_of(name)) is not None:
            found.append(
                (
                    "W009",
                    f"The SQLite database {self.alias!r} lies on a network file system ({kind}): {name}",
                    "Its locks do not hold there, and WAL needs shared memory: use a local disk, or PostgreSQL.",
                )
            )
        options = settings.get("OPTIONS", {})
        wanted = (
            'Put "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 5, '
            '"init_command": "PRAGMA journal_mode = WAL"} into DATABASES.'
        )
        if str(options.get("transaction_mode", "")).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
            found.append(
                (
                    "W007",
                    f"Transactions of the SQLite database {self.alias!r} begin without the write lock.",
                    f'Beside a worker they can end with "database is locked". {wanted}',
                )
            )
        if not SETS_WAL.search(str(options.get("init_command", ""))):
            found.append(
                (
                    "W008",
                    f"The SQLite database {self.alias!r} is not set to WAL.",
                    f"Readers would wait for writers. {wanted}",
                )
            )
        return found

    def in_own_transaction(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in a transaction that has the write lock from its first moment."""
        connection = self.connection
        if connection.in_atomic_block:
            return super().in_own_transaction(work)
        connection.ensure_connection()
        before = connection.transaction_mode  # type: ignore[attr-defined]  # this backend's own
        connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]  # this backend's own
        try:
            return super().in_own_transaction(work)
        finally:
            connection.transaction_mode = before  # type: ignore[attr-defined]  # this backend's own

    @contextmanager
    def job_transaction(self) -> Generator[None]:
        """Take the write lock at the beginning: code that reads first could not get it once another has written."""
        connection = self.connection
        connection.ensure_connection()
        before = connection.transaction_mode  # type: ignore[attr-defined]  # this backend's own
        connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]  # this backend's own
        try:
            with super().job_transaction():
                connection.transaction_mode = before  # type: ignore[attr-defined]  # this backend's own
                yield
        finally:
            connection.transaction_mode = before  # type: ignore[attr-defined]  # this backend's own

    def insert_jobs(self, jobs: Sequence[NewJob], notify: Sequence[str] = ()) -> None:
        """Insert with one prepared statement; a model instance per job would cost five times as much."""
        now = self.now_sql()
        later: dict[float, list[tuple[Any, ...]]] = {}
        plain: list[tuple[Any, ...]] = []
        adapt = self.connection.ops.adapt_datetimefield_value
        further = further_columns(jobs)
        for job in jobs:
            more = job.more or {}
            row = (
                job.id.hex,
                job.definition,
                job.queue,
                job.rank,
                job.payload,
                job.max_attempts,
                job.options,
                self.first_status(job).value,
                *(_adapted(more.get(name), adapt) for name in further),
            )
            if job.delay is not None:
                later.setdefault(job.delay.total_seconds(), []).append(row)
            else:
                plain.append((*row, adapt(job.run_at)))
        columns = ", ".join([*INSERTED, *further, "run_at", "created_at"])
        head = f"INSERT INTO {self.table('Job')} ({columns}) VALUES ({'%s, ' * (len(INSERTED) + len(further))}"
        # executemany() is a statement per row: without a transaction around them, some would stay when one fails.
        together = transaction.atomic(using=self.alias, savepoint=False) if len(jobs) > 1 else nullcontext()
        with together, self.connection.cursor() as cursor:
            if plain:
                cursor.executemany(f"{head}%s, {now})", plain)
            for seconds, rows in later.items():
                cursor.executemany(f"{head}{self._later_sql(seconds)}, {now})", rows)

    def _claim(self, claim: Claim) -> list[Claimed]:
        verb = TRANSITIONS["claim"]
        (source,) = verb.sources
        side = "> 0" if claim.rescued else "= 0"
        chosen = ", ".join(f"'{id_.hex}'" for id_ in claim.only or ())
        only = "" if claim.only is None else f" AND id IN ({chosen})"
        queue_shut, worker_shut = shut(claim.queue_checked), shut(claim.fleet_checked)
        sql = f"""
            UPDATE {self.table("Job")} SET
                status = '{verb.target}', token = token + 1, attempt = attempt + 1,
                max_attempts = max(max_attempts, attempt + 1), worker_id = %s,
                started_at = {self.now_sql()}, lease_expires_at = {self._later_sql(claim.lease.total_seconds())}
            WHERE id IN (
                SELECT id FROM {self.table("Job")}
                WHERE status = '{source}' AND queue = %s AND rescues {side}{only}
                    AND (expires_at IS NULL OR expires_at > {self.now_sql()})
                    AND NOT EXISTS (SELECT 1 FROM {self.table("Queue")} WHERE name = %s AND {queue_shut})
                    AND NOT EXISTS (SELECT 1 FROM {self.table("Worker")} WHERE id = %s AND {worker_shut})
                ORDER BY rank, id LIMIT %s
            ) AND status = '{source}'
            RETURNING {", ".join(Claimed._fields)}
        """
        claimed: list[Claimed] = []
        with self.connection.cursor() as cursor:
            for queue, amount in claim.wants:
                cursor.execute(sql, [claim.worker_id, queue, queue, claim.worker_id, amount])
                rows = list(map(_claimed, cursor.fetchall()))
                claimed += sorted(rows, key=lambda row: (row.rank, row.id))
        return claimed

    def _complete(self, completions: Sequence[Completion]) -> set[UUID]:
        if not completions:
            return set()
        verb = TRANSITIONS["complete"]
        given = msgspec.json.encode([(row.id.hex, row.token, row.result) for row in completions]).decode()
        sql = f"""
            UPDATE {self.table("Job")} AS job SET
                status = '{verb.target}', result = given.result, finished_at = {self.now_sql()},
                worker_id = NULL, lease_expires_at = NULL, expires_at = NULL
            FROM (
                SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS token,
                       json_extract(value, '$[2]') AS result
                FROM json_each(%s)
            ) AS given
            WHERE job.id = given.id AND job.token = given.token AND job.status = '{_RUNNING}'
            RETURNING id
        """
        with self.connection.cursor() as cursor:
            cursor.execute(sql, [given])
            return {UUID(id_) for (id_,) in cursor.fetchall()}


def _claimed(row: Sequence[Any]) -> Claimed:
    """Read a row as the driver gives it: ids as text, times without their zone."""
    *plain, parent, batch, cancel = row
    asked = cancel.replace(tzinfo=UTC) if cancel else None
    return Claimed._make([UUID(plain[0]), *plain[1:], *(UUID(id_) if id_ else None for id_ in (parent, batch)), asked])


def _adapted(value: Any, adapt: Callable[[datetime], Any]) -> Any:
    if isinstance(value, UUID):
        return value.hex
    return adapt(value) if isinstance(value, datetime) else value
