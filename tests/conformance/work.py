"""How much a database reads for a statement, counted by the database itself, and tables large enough to tell.

A plan is a guess about costs; what was read is a fact. So the tests of hot queries run them on 100,000 rows and
compare the count with a limit, instead of looking for names of plan nodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Model

from django_durable_jobs.models import Job

STEPS_PER_ROW: Final = 3
"""SQLite counts steps of its virtual machine: a scan takes 3 and more for each row (a row that is changed, 200)."""


@dataclass
class Work:
    """What was read while the block ran."""

    rows: int = -1


@contextmanager
def counted_work(model: type[Model] = Job) -> Iterator[Work]:
    """Count the rows (entries of indexes included) that the statements of the block read from a table."""
    work = Work()
    counter = _COUNTERS[connection.vendor]
    with counter(model._meta.db_table) as count:
        before = count()
        yield work
        work.rows = count() - before


@contextmanager
def _sqlite(_table: str) -> Iterator[Callable[[], int]]:
    hundreds = 0

    def step() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    connection.ensure_connection()
    connection.connection.set_progress_handler(step, 100)
    try:
        yield lambda: hundreds * 100 // STEPS_PER_ROW
    finally:
        connection.connection.set_progress_handler(None, 0)


@contextmanager
def _postgresql(table: str) -> Iterator[Callable[[], int]]:
    def count() -> int:
        _single("SELECT pg_stat_force_next_flush()")
        tables = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname = %s"
        indexes = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = %s"
        return int(_single(f"SELECT ({tables}) + ({indexes})", table, table))

    yield count


@contextmanager
def _mysql(_table: str) -> Iterator[Callable[[], int]]:
    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%%'", [])
            return sum(int(value) for _name, value in cursor.fetchall())

    yield count


_COUNTERS: Final = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}


def _single(sql: str, *params: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        (value,) = cursor.fetchone()
    return value


_IDS: Final = {
    "sqlite": "SELECT replace(value, '-', '') AS id FROM json_each(%s)",
    "postgresql": "SELECT value::uuid AS id FROM json_array_elements_text(%s::json)",
    "mysql": "SELECT id FROM JSON_TABLE(%s, '$[*]' COLUMNS (id CHAR(36) PATH '$')) AS given",
}
"""How many ids become rows in one statement."""


def insert_jobs(ids: list[UUID], **columns: Any) -> None:
    """Insert jobs that differ by their id only, in one statement."""
    given = {"definition": "tests.jobs.noop", "queue": "default", "payload": "{}", "max_attempts": 3, **columns}
    now = "created_at"
    names = ", ".join([*given, now])
    values = ", ".join([*["%s"] * len(given), "CURRENT_TIMESTAMP"])
    sql = f"INSERT INTO {Job._meta.db_table} (id, {names}) SELECT id, {values} FROM ({_IDS[connection.vendor]}) AS new"
    with connection.cursor() as cursor:
        cursor.execute(sql, [*given.values(), json.dumps([str(id_) for id_ in ids])])


def analyze(model: type[Model] = Job) -> None:
    """Bring the statistics of a table up to date."""
    statement = {"mysql": "ANALYZE TABLE"}.get(connection.vendor, "ANALYZE")
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} {model._meta.db_table}")
        if connection.vendor == "mysql":
            cursor.fetchall()


def forget_dead_rows(model: type[Model] = Job) -> None:
    """Take what is deleted out of the indexes, where it stays in them until somebody does.

    PostgreSQL leaves that to whoever reads them next, unless transactions of other databases are under way.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM (INDEX_CLEANUP ON) {model._meta.db_table}")


@contextmanager
def plans_without_values() -> Iterator[None]:
    """Let the server plan prepared statements without looking at their parameters, where it can.

    It does so by itself for a statement that was run often: a worker's statements are.
    """
    if connection.vendor != "postgresql":
        yield
        return
    connection.ensure_connection()
    raw = connection.connection
    before, raw.prepare_threshold = raw.prepare_threshold, 0
    raw.execute("SET plan_cache_mode = force_generic_plan")
    try:
        yield
    finally:
        raw.execute("RESET plan_cache_mode")
        raw.prepare_threshold = before
