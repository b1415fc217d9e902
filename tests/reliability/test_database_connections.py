"""Connections that a server ends: of a job, of the listener, of everybody at once (X13, X18, X19, I5, I30)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Attempt, Checkpoint, Job
from django_durable_jobs.states import Status
from django_durable_jobs.worker.listener import Listener
from tests.factories import present
from tests.reliability.database_jobs import CONNECTED, GATES, RAN, call_twice, count, count_calls, query_twice
from tests.reliability.outages import broken, end_sessions, has_sessions, options, sessions, working
from tests.waiting import elsewhere, eventually

pytestmark = pytest.mark.django_db(transaction=True)

RARELY = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _begin_anew() -> None:
    for known in (RAN, GATES, CONNECTED):
        known.clear()
    if not has_sessions():
        pytest.skip("a database in a file: no server that could end a connection")


def test_x18_a_job_whose_connection_was_ended_is_tried_again_on_a_new_one() -> None:
    gate = GATES["x18"] = threading.Event()
    with working() as running:
        handle = query_twice.enqueue("job", "x18")
        beside = call_twice.enqueue("beside", "x18")
        eventually(lambda: {"job", "beside"} <= CONNECTED.keys())
        first = CONNECTED["job"]
        end_sessions([first])
        gate.set()
        assert handle.result(10) != first
        assert beside.result(10) == ["beside.1", "beside.2"]
        count.enqueue_many([(f"after {number}",) for number in range(8)])
        eventually(lambda: Job.objects.filter(status="completed").count() == 10)
        assert not running.ended
    assert RAN["job"] == 2
    assert Attempt.objects.get().job_id == handle.id


def test_x18_the_end_of_a_jobs_connection_does_not_reach_its_durable_calls() -> None:
    gate = GATES["x18"] = threading.Event()
    with working():
        handle = call_twice.enqueue("job", "x18")
        eventually(lambda: "job" in CONNECTED)
        end_sessions(sessions())
        gate.set()
        assert handle.result(10) == ["job.1", "job.2"]
    assert (RAN["job"], present(handle.id).attempt) == (1, 1)


def test_x19_a_listener_whose_connection_was_ended_listens_again(dialect: Dialect) -> None:
    """While it listens polls are an hour apart: only a notification wakes the worker."""
    if not dialect.has_notifications:
        pytest.skip("nothing to listen to")
    with working(options(poll_interval=RARELY, idle_poll_interval=RARELY)):
        (first,) = eventually(lambda: sessions("LISTEN"))
        before = count.enqueue("before")
        eventually(lambda: before.status is Status.COMPLETED, seconds=5)
        end_sessions([first])
        eventually(lambda: sessions("LISTEN") not in ([], [first]))
        after = count.enqueue("after")
        eventually(lambda: after.status is Status.COMPLETED, seconds=5)


def test_x19_while_nobody_listens_the_worker_polls(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait of an hour that was on its way when listening ended is cut short, too."""
    if not dialect.has_notifications:
        pytest.skip("nothing to listen to")
    deaf = threading.Event()

    def refuse_to_listen(*_: object) -> Iterator[str | None]:
        deaf.set()
        raise broken(dialect)

    with working(options(poll_interval=timedelta(seconds=0.3), idle_poll_interval=RARELY)) as running:
        eventually(lambda: sessions("LISTEN"))
        count.enqueue("heard").result(5)
        monkeypatch.setattr(dialect, "listen", refuse_to_listen)
        end_sessions(sessions("LISTEN"))
        assert deaf.wait(5)
        for number in range(3):
            handle = count.enqueue(f"unheard {number}")
            eventually(lambda handle=handle: handle.status is Status.COMPLETED, seconds=3)  # type: ignore[misc]
        assert not running.ended


def test_x19_the_end_of_listening_is_told_once_and_has_the_queues_looked_at(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is on its way has counted on hearing."""
    if not dialect.has_notifications:
        pytest.skip("nothing to listen to")
    told: list[str | bool] = []
    listener = Listener(told.append, told.append)
    listener.run_once()
    assert told == [True, ""]
    monkeypatch.setattr(dialect, "listen", lambda *_: iter([]))
    elsewhere(lambda: end_sessions(sessions("LISTEN")))
    for _twice in range(2):
        with pytest.raises((DatabaseError, StopIteration)):
            listener.run_once()
    assert told == [True, "", False, "", False]


@pytest.mark.timeout(120)
def test_x13_connections_ended_under_load_lose_no_job_and_end_no_worker() -> None:
    """Every connection is ended again and again, in the middle of statements too."""
    count.enqueue_many([(f"job {number}",) for number in range(150)])
    for number in range(15):
        count_calls.enqueue(f"steps {number}", 6)
    rounds = 0
    with working(options(name="one"), options(name="two"), seconds=30) as running:
        while left := unfinished():
            end_sessions(sessions())
            rounds += 1
            if rounds > 8:
                break
            eventually(lambda left=left: unfinished() < left, seconds=30)  # type: ignore[misc]
        eventually(lambda: not unfinished(), seconds=60)
        assert not running.ended
    assert rounds > 3
    assert set(Job.objects.values_list("status", "attempt")) == {("completed", 1)}
    assert Checkpoint.objects.count() == 15 * 6
    assert set(RAN.values()) == {1}


def unfinished() -> int:
    """How many jobs have not ended."""
    return Job.objects.exclude(status__in=["completed", "failed"]).count()


TOO_LONG = {
    "postgresql": "SET LOCAL statement_timeout = 10; SELECT pg_sleep(5)",
    "mysql": "SET STATEMENT max_statement_time = 0.01 FOR SELECT sleep(5) FROM information_schema.tables",
}


def test_x16_a_statement_ended_by_the_servers_time_limit_is_one_to_send_again(dialect: Dialect) -> None:
    with pytest.raises(DatabaseError) as raised, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TOO_LONG[connection.vendor])
    assert dialect.is_disconnect(raised.value)


def test_a_stopped_worker_leaves_no_connection_behind() -> None:
    """I31."""
    connection.ensure_connection()
    with working():
        count_calls.enqueue("steps", 2).result(10)
        assert sessions()
    eventually(lambda: not sessions())
