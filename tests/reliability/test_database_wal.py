"""SQLite's write-ahead log while somebody reads for long (X30): it grows with what is written, and comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.db import connection

from django_durable_jobs.models import Job
from tests.jobs import noop
from tests.reliability.outages import options, working
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MEGABYTE = 1024**2


@pytest.fixture
def file() -> Path:
    """The file of the test's database."""
    if connection.vendor != "sqlite":
        pytest.skip("the log of SQLite only")
    return Path(connection.settings_dict["NAME"])


def log_size(file: Path) -> float:
    """Megabytes of the write-ahead log."""
    log = file.with_name(f"{file.name}-wal")
    return log.stat().st_size / MEGABYTE if log.exists() else 0.0


@contextmanager
def long_read(file: Path) -> Iterator[None]:
    """Hold a snapshot of the database, as a report does that somebody forgot."""
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {Job._meta.db_table}").fetchone()
        yield
        assert reader.execute(f"SELECT count(*) FROM {Job._meta.db_table}").fetchone() == (0,)


def run(jobs: int) -> None:
    """Enqueue jobs, each in a commit of its own, and see them done."""
    before = Job.objects.count()
    for number in range(jobs):
        noop.enqueue(number)
    eventually(lambda: Job.objects.filter(status="completed").count() == before + jobs, seconds=30)


def test_x30_a_long_read_stops_no_job_and_its_log_is_taken_up_again_afterwards(file: Path) -> None:
    with working(options()):
        with long_read(file):
            run(2_000)
            held_up = log_size(file)
        run(200)  # the first commits after the read move the log into the file
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            _busy, pages, moved = cursor.fetchone()
        run(2_000)
    assert moved == pages, "the log was not moved into the file"
    assert log_size(file) <= held_up + 8, "the log grew on as if somebody still read"
    # Enqueue, claim and completion of a job write some pages each.
    assert held_up < 2_000 * 0.04, f"{held_up:.0f} MB for 2,000 jobs"
