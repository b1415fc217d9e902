"""Claims beside a transaction that somebody holds open: what has ended cannot be cleaned away meanwhile (X25)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from statistics import median

import pytest
from django.db import connection, transaction

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claim
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Completed
from tests.factories import claim_of, make_worker
from tests.jobs import noop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

JOBS, AT_ONCE = 10_000, 100
FACTOR = 8
"""So many times as long a claim may take after ten thousand jobs: docs/how-to/databases.md says so."""


@contextmanager
def open_snapshot() -> Iterator[None]:
    """Hold a transaction open elsewhere, with a snapshot of the database as it is now."""
    ready, over = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM django_durable_jobs_job")
            ready.set()
            over.wait(60)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def rounds(order: Claim) -> list[float]:
    """Run all jobs, so many at once; return how long each claim took."""
    times = []
    while True:
        began = time.perf_counter()
        jobs = claim(order)
        times.append(time.perf_counter() - began)
        if not jobs:
            return times[:-1]
        finish([Ending(job, Completed(None)) for job in jobs])


def test_x25_claims_beside_an_open_transaction_grow_slower_by_no_more_than_is_documented(dialect: Dialect) -> None:
    if not dialect.has_notifications:
        pytest.skip("PostgreSQL keeps ended versions of rows in the index; the others have no such thing")
    noop.enqueue_many([(number,) for number in range(JOBS)])
    order = claim_of(make_worker(lease=timedelta(minutes=5)), AT_ONCE, lease=timedelta(minutes=5))
    with open_snapshot():
        times = rounds(order)
    assert len(times) == JOBS // AT_ONCE
    assert median(times[-10:]) < FACTOR * median(times[:10])
