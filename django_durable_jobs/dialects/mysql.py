"""MariaDB (10.6 or later) and MySQL (8.0.1 or later): the portable statements, with their own clock and errors."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext, suppress
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.db import DatabaseError, transaction

from ..conf import get_settings
from .base import Dialect
from .rows import INSERTED, NewJob, further_columns

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet

CONFLICTS: Final = frozenset({1205, 1213, 1020})
"""Lock wait timeout, deadlock, and MariaDB's "record has changed since last read"."""
AWAY: Final = frozenset(
    {1021, 1040, 1047, 1053, 1203, 1290, 1317, 1792, 1836, 1927, 1969, 2002, 2003, 2006, 2013, 2055, 3024, 4031}
)
"""Disk full, too many connections, a cluster's node that is not ready, server shutting down, read-only, killed
statement or connection, time limit of statements, and the client's ways to say that nobody answers."""

NO_SUCH_TABLE: Final = 1146
BATCH: Final = 500
"""Jobs that one statement inserts."""
IN_TRANSACTION: Final = 1
AUTOCOMMIT: Final = 2
"""Bits of the status that the server sends with every answer."""


class MySQL(Dialect):
    """MariaDB and MySQL."""

    exact_collation: ClassVar[str | None] = "utf8mb4_bin"
    minimum: ClassVar = {True: (10, 6), False: (8, 0, 1)}

    def now_sql(self) -> str:
        """Return the statement's time; Django keeps the session's time zone at UTC."""
        seconds = self.clock_offset.total_seconds()
        return f"(UTC_TIMESTAMP(6) + INTERVAL {seconds:.6f} SECOND)" if seconds else "UTC_TIMESTAMP(6)"

    @property
    def lock_for_sharing(self) -> str:
        """Say the same in the words of each of the two."""
        connection: Any = self.connection
        return "LOCK IN SHARE MODE SKIP LOCKED" if connection.mysql_is_mariadb else "FOR SHARE SKIP LOCKED"

    def latest(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Read with a lock: at REPEATABLE READ anything else is as the caller's transaction first saw it."""
        return rows.select_for_update()

    def insert_jobs(self, jobs: Sequence[NewJob], notify: Sequence[str] = ()) -> None:
        """Insert by VALUES, some hundred at a time."""
        further = further_columns(jobs)
        names = (*INSERTED, *further)
        known = self.model("Job")._meta
        fields = [known.get_field(name) for name in names]
        # Values as the fields store them: an id is a text here.
        row = f"({', '.join(['%s'] * len(names))}, {self.now_sql()}, "
        quote = self.connection.ops.quote_name
        columns = ", ".join(map(quote, [*(field.column for field in fields), "created_at", "run_at"]))
        together = transaction.atomic(using=self.alias, savepoint=False) if len(jobs) > BATCH else nullcontext()
        with together, self.connection.cursor() as cursor:
            for start in range(0, len(jobs), BATCH):
                parts: list[str] = []
                params: list[Any] = []
                for job in jobs[start : start + BATCH]:
                    more = job.more or {}
                    given = (*job[:7], self.first_status(job).value, *(more.get(name) for name in further))
                    values = zip(fields, given, strict=True)
                    params += [field.get_db_prep_save(value, self.connection) for field, value in values]
                    if job.delay is not None:
                        parts.append(f"{row}{self.now_sql()} + INTERVAL {job.delay.total_seconds():.6f} SECOND)")
                    else:
                        parts.append(f"{row}%s)")
                        params.append(self.connection.ops.adapt_datetimefield_value(job.run_at))
                cursor.execute(f"INSERT INTO {self.table('Job')} ({columns}) VALUES {', '.join(parts)}", params)

    def on_conflict(self, column: str) -> str:
        """Say the same in these servers' own words."""
        return f"ON DUPLICATE KEY UPDATE {column} = {column}"

    def prepare_worker_connection(self, connection: BaseDatabaseWrapper) -> None:
        """Claim at READ COMMITTED: at REPEATABLE READ a claim locks gaps and sees a stale snapshot.

        A process that stands still in the middle of a transaction gets its locks taken away after one lease (MariaDB;
        MySQL has no such limit).
        """
        ours: Any = connection
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            if ours.mysql_is_mariadb:
                seconds = ceil(get_settings().lease.total_seconds())
                cursor.execute(f"SET SESSION idle_transaction_timeout = {seconds}")

    def has_open_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Ask the driver, if it is one that keeps the server's word about it (PyMySQL); without a query."""
        status = getattr(connection.connection, "server_status", None)
        return status is not None and (bool(status & IN_TRANSACTION) or not status & AUTOCOMMIT)

    def reset_session(self, connection: BaseDatabaseWrapper) -> None:
        """End what a driver did not tell us of, and give named locks back; session variables are not known to us."""
        if not hasattr(connection.connection, "server_status"):
            connection.connection.rollback()
        with connection.cursor() as cursor:
            cursor.execute("DO RELEASE_ALL_LOCKS()")

    @contextmanager
    def own_schema(self) -> Generator[None]:
        """Go back to our database for a moment, should the code have said USE."""
        ours = self.connection.settings_dict["NAME"]
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT DATABASE()")
            (theirs,) = cursor.fetchone()
        if theirs == ours:
            yield
            return
        self._use(ours)
        try:
            yield
        finally:
            # No rollback undoes it. A connection that broke comes back with ours.
            if theirs is not None:
                with suppress(DatabaseError):
                    self._use(theirs)

    def _use(self, database: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(f"USE {self.connection.ops.quote_name(database)}")

    def is_conflict(self, error: Exception) -> bool:
        """Answer whether a deadlock or a lock wait ended the statement."""
        return isinstance(error, DatabaseError) and bool(error.args) and error.args[0] in CONFLICTS

    def is_disconnect(self, error: Exception) -> bool:
        """Answer whether the server is away; other operational errors are answers."""
        if not isinstance(error, DatabaseError):
            return False
        number = error.args[0] if error.args else 0
        # PyMySQL says (0, '') for a connection that is closed already.
        return number in AWAY or (number == 0 and super().is_disconnect(error))

    def is_missing_table(self, error: Exception) -> bool:
        """Answer whether the name of a table leads nowhere."""
        return isinstance(error, DatabaseError) and error.args[:1] == (NO_SUCH_TABLE,)

    def database_problems(self) -> list[tuple[str, str, str]]:
        """Refuse servers without SKIP LOCKED."""
        from django.db.backends.mysql.base import DatabaseWrapper  # noqa: PLC0415 -- only with a MySQL driver

        connection = self.connection
        assert isinstance(connection, DatabaseWrapper)  # noqa: S101 -- narrows the type
        least = self.minimum[connection.mysql_is_mariadb]
        if connection.mysql_version >= least:
            return []
        name = "MariaDB" if connection.mysql_is_mariadb else "MySQL"
        found, wanted = (".".join(map(str, version)) for version in (connection.mysql_version, least))
        return [
            (
                "E006",
                f"The jobs' database {self.alias!r} is {name} {found}, which has no SKIP LOCKED.",
                f"Use {name} {wanted} or later.",
            )
        ]
