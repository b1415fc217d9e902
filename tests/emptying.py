"""Emptying the tables after a test with real commits, on PostgreSQL.

TRUNCATE makes new files for every table and index, small as they are: a hundred of them for a test, 50 ms, and seconds
at the next checkpoint. So small tables are emptied by DELETE. Large ones are truncated, since what DELETE leaves
would have to be read over by the tests that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db.backends.postgresql.operations import DatabaseOperations

OURS: Final = "django_durable_jobs_"
SMALL: Final = 200_000
"""Bytes of a table that is emptied by DELETE."""

_by_truncate = DatabaseOperations.sql_flush


def empty_by_delete() -> None:
    """Have Django empty tables so."""
    DatabaseOperations.sql_flush = _sql_flush  # type: ignore[method-assign]  # on purpose


def _sql_flush(self: Any, style: Any, tables: Sequence[str], **options: Any) -> list[str]:
    if options.get("reset_sequences") or not tables:
        return _by_truncate(self, style, tables, **options)
    with self.connection.cursor() as cursor:
        sizes = "SELECT relname FROM pg_class WHERE relname = ANY (%s) AND relkind = 'r' AND pg_relation_size(oid) > %s"
        # No constraint leads to a table of ours: PostgreSQL does not truncate what another table refers to.
        cursor.execute(sizes, [[name for name in tables if name.startswith(OURS)], SMALL])
        large = [name for (name,) in cursor.fetchall()]
    # Constraints are checked at the commit, so the order does not matter.
    deletes = [f"DELETE FROM {self.quote_name(name)};" for name in tables if name not in large]
    return [*(_by_truncate(self, style, large, **options) if large else []), *deletes]
