"""What every dialect answers about time, transactions and errors, and about what a database cannot do.

The statements that move jobs stand in ``base.py`` and in each database's own module.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.apps import apps
from django.db import InterfaceError, OperationalError, connections, transaction

from .sessions import Sessions

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

Result = TypeVar("Result")

RETRIES_OF_A_CONFLICT = 8
"""How often a statement that lost against another one is repeated before its error is let out."""


class Transactions(Sessions):
    """A database apart from its statements. Flags are questions; the default is the modest answer."""

    has_notifications: ClassVar[bool] = False
    """Can one connection wake another (LISTEN/NOTIFY)?"""
    has_parallel_writers: ClassVar[bool] = True
    """Can two connections write at once?"""
    has_skip_locked: ClassVar[bool] = True
    """Does a claim pass over rows that another claim has locked?"""
    exact_collation: ClassVar[str | None] = None
    """Which collation makes a text equal to itself only, where that is not the default?"""

    def __init__(self, alias: str) -> None:
        """Serve the connection of this alias, each thread its own."""
        self.alias = alias
        self.clock_offset = timedelta(0)
        """Moves the database's time; for tests only."""
        self._tables: dict[str, str] = {}

    @property
    def lock_for_sharing(self) -> str:
        """The end of a SELECT that keeps what it reads from being changed, and passes over what somebody changes."""
        return "FOR SHARE SKIP LOCKED"

    @property
    def has_partial_indexes(self) -> bool:
        """Whether an index can hold the rows of some statuses only."""
        return self.connection.features.supports_partial_indexes

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The calling thread's connection."""
        return connections[self.alias]

    def model(self, name: str) -> Any:
        """Return one of our models; models stand a floor above, so they are looked up, not imported."""
        return apps.get_model("django_durable_jobs", name)

    def table(self, name: str) -> str:
        """Return the quoted table name of one of our models."""
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = self.connection.ops.quote_name(self.model(name)._meta.db_table)
        return table

    # Time ---------------------------------------------------------------------------------------------------

    def now_sql(self) -> str:
        """Return SQL for the present instant by the database's clock, moved by ``clock_offset``."""
        return f"CURRENT_TIMESTAMP{self._offset_sql()}"

    def _offset_sql(self) -> str:
        seconds = self.clock_offset.total_seconds()
        return f" + INTERVAL '{seconds}' SECOND" if seconds else ""

    def now(self) -> datetime:
        """Return the present instant by the database's clock, aware, in UTC."""
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT {self.now_sql()}", [])
            (value,) = cursor.fetchone()
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)

    def tune_tables(self, schema_editor: BaseDatabaseSchemaEditor, *, back: bool) -> None:
        """Set storage parameters of our tables, or take them back; called by a migration."""

    # Checks and errors --------------------------------------------------------------------------------------

    def database_problems(self) -> list[tuple[str, str, str]]:
        """Return (check id, message, hint) for what this database or its settings cannot give us."""
        return []

    def database_warnings(self) -> list[tuple[str, str, str]]:
        """Return the same for what works, but not well."""
        return []

    def is_conflict(self, error: Exception) -> bool:
        """Answer whether ``error`` says that another transaction was in the way, so that repeating helps."""
        return False

    def is_disconnect(self, error: Exception) -> bool:
        """Answer whether ``error`` says that the database is away or read-only for now."""
        return isinstance(error, (InterfaceError, OperationalError))

    def is_missing_table(self, error: Exception) -> bool:
        """Answer whether ``error`` says that a table is not there."""
        return False

    def in_own_transaction(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` in one transaction, again when it loses against another one (deadlock, lock wait).

        Inside a caller's transaction it runs once: repeating would repeat only half of it.
        """
        if self.connection.in_atomic_block:
            with transaction.atomic(using=self.alias):
                return work()

        def in_transaction() -> Result:
            with transaction.atomic(using=self.alias):
                return work()

        return self.again_after_conflict(in_transaction)

    @contextmanager
    def job_transaction(self) -> Generator[None]:
        """Open a transaction for the code of a job, on its thread's connection: the outermost one, and once."""
        with transaction.atomic(using=self.alias, durable=True):
            yield

    @contextmanager
    def own_schema(self) -> Generator[None]:
        """Let statements inside reach our tables, whatever schema the code of a job has chosen on this connection.

        To be used inside a transaction; what the code has chosen is in force again afterwards.
        """
        yield

    def again_after_conflict(self, work: Callable[[], Result]) -> Result:
        """Run ``work``, which is one transaction of its own, again when it loses against another one."""
        for attempt in range(RETRIES_OF_A_CONFLICT + 1):
            try:
                return work()
            except Exception as error:
                if attempt == RETRIES_OF_A_CONFLICT or not self.is_conflict(error):
                    raise
            time.sleep(random.uniform(0, 0.002 * 2**attempt))  # noqa: S311 -- spreads contenders, no secret
        raise AssertionError("unreachable")
