"""Workers under every isolation level that a project may have chosen (X26): new rows are seen, conflicts repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest
from django.db import connection, connections

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Attempt, Checkpoint, Job
from tests.reliability.database_jobs import RAN, count, count_calls
from tests.reliability.outages import options, working
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

LEVELS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    # Django's option is for transactions; single statements follow the default of the session.
    "postgresql": {
        "repeatable read": {
            "isolation_level": psycopg.IsolationLevel.REPEATABLE_READ,
            "options": "-c default_transaction_isolation=repeatable\\ read",
        },
        "serializable": {
            "isolation_level": psycopg.IsolationLevel.SERIALIZABLE,
            "options": "-c default_transaction_isolation=serializable",
        },
    },
    "mysql": {
        "repeatable read": {"isolation_level": None},  # the server's default
        "serializable": {"isolation_level": "serializable"},
    },
}
SHOW: Final = {"postgresql": "SHOW transaction_isolation", "mysql": "SELECT lower(replace(@@tx_isolation, '-', ' '))"}


@contextmanager
def isolation(level: str) -> Iterator[None]:
    """Have every connection that is opened inside work at this level, as ``OPTIONS`` of the project would."""
    shared = connections.settings["default"]
    before = shared["OPTIONS"]
    connections["default"].close()
    shared["OPTIONS"] = {**before, **LEVELS[connection.vendor][level]}
    connections["default"] = connections.create_connection("default")
    try:
        yield
    finally:
        connections["default"].close()
        shared["OPTIONS"] = before
        connections["default"] = connections.create_connection("default")


def present_level() -> str:
    """What the server says of this connection."""
    with connection.cursor() as cursor:
        cursor.execute(SHOW[connection.vendor])
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_x26_two_workers_share_the_jobs_at_any_isolation_level(dialect: Dialect, level: str) -> None:
    if connection.vendor not in LEVELS:
        pytest.skip("one writer at a time: every transaction is serial")
    RAN.clear()
    with isolation(level):
        assert present_level() == level
        with working(options(name="one"), options(name="two")) as running:
            for number in range(10):
                count.enqueue_many([(f"job {number}.{n}",) for n in range(10)])
                count_calls.enqueue(f"steps {number}", 3)
            # What looks on is a transaction like theirs, and may lose against one.
            unfinished = Job.objects.exclude(status__in=["completed", "failed"])
            eventually(lambda: not dialect.again_after_conflict(unfinished.exists), seconds=30)
            assert not running.ended
        assert set(Job.objects.values_list("status", "attempt")) == {("completed", 1)}
        assert Checkpoint.objects.count() == 30
        assert not Attempt.objects.exists()
    assert set(RAN.values()) == {1}
    assert len(RAN) == 100 + 10 + 30
