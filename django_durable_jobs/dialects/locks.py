"""The rows that a statement locks before it does something: of keys, and of the queues and the worker of a claim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .rows import Claim, Want
from .transactions import Transactions

if TYPE_CHECKING:
    from uuid import UUID

    from django.db.models import QuerySet


class Locks(Transactions):
    """The part of a dialect that keeps others away for the rest of a transaction."""

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

    def lock_batch_for_sharing(self, batch_id: UUID) -> tuple[bool, bool] | None:
        """Keep a batch from being closed or ended for the rest of the transaction; others may do the same meanwhile.

        Returns whether it is closed, and whether it has ended; ``None`` when there is none.
        """
        field = self.model("JobBatch")._meta.pk
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT closed_at IS NOT NULL, finished_at IS NOT NULL FROM {self.table('JobBatch')} "
                f"WHERE id = %s {self.lock_for_sharing.removesuffix(' SKIP LOCKED')}",
                [field.get_db_prep_value(batch_id, self.connection)],
            )
            row = cursor.fetchone()
        return None if row is None else (bool(row[0]), bool(row[1]))

    def on_conflict(self, column: str) -> str:
        """Return the end of an INSERT that takes the rows which are there already for its own."""
        return f"ON CONFLICT ({column}) DO UPDATE SET {column} = excluded.{column}"

    def _open(self, claim: Claim) -> list[Want]:
        """Return what is wanted of queues that are neither paused nor limited; nothing for a worker that is.

        Their rows stay locked for sharing, so that a pause waits for this claim. A row that somebody is about to change
        is not waited for: then nothing is taken from there this time.
        """
        if claim.worker_id in self._closed("Worker", "id", [claim.worker_id], checked=claim.fleet_checked):
            return []
        closed = self._closed("Queue", "name", [want.queue for want in claim.wants], checked=claim.queue_checked)
        return [want for want in claim.wants if want.queue not in closed]

    def _closed(self, model: str, column: str, keys: list[Any], *, checked: bool) -> set[Any]:
        """Return those that are paused, or limited, or that somebody is about to change; one without a row is none."""
        marks, table = ", ".join(["%s"] * len(keys)), self.table(model)
        with self.connection.cursor() as cursor:
            # All are read: a row that the condition leaves out would not stay locked.
            look = f"SELECT {column}, {shut(checked)} FROM {table} WHERE {column} IN ({marks}) ORDER BY {column}"
            cursor.execute(f"{look} {self.lock_for_sharing}", keys)
            found = dict(cursor.fetchall())
            missing = [key for key in keys if key not in found]
            if missing:
                marks = ", ".join(["%s"] * len(missing))
                cursor.execute(f"SELECT {column} FROM {table} WHERE {column} IN ({marks})", missing)
                missing = [key for (key,) in cursor.fetchall()]
        return {*(key for key, is_shut in found.items() if is_shut), *missing}


def shut(checked: bool) -> str:  # noqa: FBT001 -- chooses between two texts of one condition
    """Return the condition of a queue or a worker under which nothing is claimed there."""
    return "(paused_at IS NOT NULL)" if checked else "(paused_at IS NOT NULL OR limited)"
