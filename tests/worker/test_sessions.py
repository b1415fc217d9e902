"""What one job does to its thread's connections does not reach the next one (X35, X18)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, transaction

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed
from django_durable_jobs.worker.sessions import install, mark_thread_as_ours
from tests.durable.running import COMMITS, Runner, row
from tests.reliability.outages import has_sessions
from tests.waiting import elsewhere, eventually

pytestmark = COMMITS


def execute(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else None


def write() -> None:
    Queue.objects.create(name="left")


def left() -> bool:
    return Queue.objects.filter(name="left").exists()


def in_one_thread(runner: Runner, *scripts: Callable[[], Any]) -> list[Any]:
    """Run one job after the other in the same thread, as a worker's thread does; return results or errors."""
    handles = [runner.enqueue(script) for script in scripts]
    claimed = [runner.claim() for _ in handles]
    outcomes = elsewhere(lambda: [runner.executor.run(job) for job in claimed])
    for job, outcome in zip(claimed, outcomes, strict=True):
        runner.finish(job, outcome)
    return [
        handle.result() if isinstance(outcome, Completed) else str(row(handle).last_error)
        for handle, outcome in zip(handles, outcomes, strict=True)
    ]


def autocommit_off() -> None:
    transaction.set_autocommit(False)
    write()


def autocommit_off_and_nothing_else() -> None:
    transaction.set_autocommit(False)


def bare_begin() -> None:
    connection.ensure_connection()
    execute("BEGIN")
    write()


def atomic_never_left() -> None:
    transaction.atomic().__enter__()
    write()


def atomic_never_left_and_closed() -> None:
    transaction.atomic().__enter__()
    write()
    connection.close()


def closed_beneath_django() -> None:
    Queue.objects.count()
    connection.connection.close()


def broken_query() -> None:
    execute("SELECT nonsense FROM nowhere")


def state() -> list[bool]:
    return [connection.in_atomic_block, connection.get_autocommit(), connection.needs_rollback, left()]


@pytest.mark.parametrize(
    "leave",
    [
        autocommit_off,
        autocommit_off_and_nothing_else,
        bare_begin,
        atomic_never_left,
        atomic_never_left_and_closed,
        closed_beneath_django,
        broken_query,
    ],
    ids=lambda leave: leave.__name__,
)
def test_x35_whatever_a_job_leaves_open_the_next_one_begins_clean(runner: Runner, leave: Callable[[], None]) -> None:
    def opened() -> int:
        return Queue.objects.count()

    opened_first, _, found, wrote = in_one_thread(runner, opened, leave, state, _write_in_atomic)
    assert opened_first >= 0
    assert found == [False, True, False, False]
    assert wrote is True


def _write_in_atomic() -> bool:
    with transaction.atomic():
        write()
    return left()


@pytest.mark.parametrize(
    "leave", [autocommit_off, bare_begin, atomic_never_left, atomic_never_left_and_closed], ids=lambda one: one.__name__
)
def test_x35_a_job_that_leaves_a_transaction_open_fails_at_once_since_its_writes_are_gone(
    runner: Runner, leave: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    (answer,) = in_one_thread(runner, leave)
    assert str(answer).startswith(
        "OpenTransaction: A transaction was left open on database 'default'; it was rolled back."
    )
    job = Job.objects.get()
    assert (job.status, job.attempt) == ("failed", 1)
    assert not left()
    assert f"Job {job.id} failed: {answer}" in caplog.text


def test_x35_a_job_that_raises_with_a_transaction_open_fails_by_its_own_error(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    def leave_and_raise() -> None:
        autocommit_off()
        raise ValueError("its own")

    assert in_one_thread(runner, leave_and_raise) == ["ValueError: its own"]
    assert Job.objects.get().status in ("retrying", "pending")
    assert "A transaction was left open" in caplog.text
    assert not left()


def test_x35_an_async_job_that_leaves_a_transaction_open_fails_too(runner: Runner) -> None:
    async def leave() -> None:
        await sync_to_async(autocommit_off)()

    job = runner.enqueue(leave)
    assert isinstance(runner.attempt(), Failed)
    assert str(row(job).last_error).startswith("OpenTransaction: A transaction was left open on database 'default'")
    assert not left()


def test_i31_a_thread_keeps_its_connection_from_job_to_job(runner: Runner) -> None:
    def which() -> int:
        connection.ensure_connection()
        Queue.objects.count()
        return id(connection.connection)

    first, second = in_one_thread(runner, which, which)
    assert first == second


@pytest.fixture
def postgresql(dialect: Dialect) -> None:
    """Only where sessions have settings and locks of their own."""
    if not dialect.has_notifications:
        pytest.skip("has_notifications: only PostgreSQL has sessions with a search path, cursors and locks to clean")


@pytest.mark.parametrize(
    ("spoil", "ask"),
    [
        ("SET search_path TO pg_catalog", "SHOW search_path"),
        ("SET statement_timeout = 12345", "SHOW statement_timeout"),
        ("SET default_transaction_read_only = on", "SHOW default_transaction_read_only"),
        ("SET TIME ZONE 'Asia/Tokyo'", "SHOW timezone"),
        ("SELECT pg_advisory_lock(42)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        ("LISTEN somewhere", "SELECT count(*) FROM pg_listening_channels()"),
    ],
)
def test_x35_settings_and_locks_of_a_session_end_with_the_job(
    runner: Runner, postgresql: None, spoil: str, ask: str
) -> None:
    def before() -> Any:
        return execute(ask)

    def spoiling() -> Any:
        execute(spoil)
        return execute(ask)

    def after() -> Any:
        return execute(ask)

    first, spoiled, last = in_one_thread(runner, before, spoiling, after)
    assert first == last
    assert spoiled != first


def test_x35_named_locks_end_with_the_job(runner: Runner) -> None:
    if connection.vendor != "mysql":
        pytest.skip("named locks of MariaDB and MySQL; advisory locks of PostgreSQL are tested above")

    def take() -> Any:
        return execute("SELECT GET_LOCK('durable', 0)")

    def free() -> Any:
        return execute("SELECT IS_FREE_LOCK('durable')")

    assert in_one_thread(runner, take, free) == [(1,), (1,)]


def test_x18_a_terminated_connection_costs_one_attempt_and_the_worker_goes_on(runner: Runner, dialect: Dialect) -> None:
    if not has_sessions():
        pytest.skip("SQLite has no server that could end a connection")
    tries: list[int] = []

    def script() -> int:
        tries.append(1)
        if len(tries) == 1:
            if dialect.has_notifications:
                own, end = execute("SELECT pg_backend_pid()")[0], "SELECT pg_terminate_backend({}, 5000)"
            else:
                own, end = execute("SELECT CONNECTION_ID()")[0], "KILL {}"
            elsewhere(lambda: execute(end.format(own)))
        return Queue.objects.filter(name="nothing").count()

    job = runner.enqueue(script)
    other = runner.enqueue(_write_in_atomic)
    claimed = [runner.claim(), runner.claim()]
    outcomes = elsewhere(lambda: [runner.executor.run(one) for one in claimed])
    assert isinstance(outcomes[0], BackedOff)
    assert outcomes[1] == Completed("true")
    for one, outcome in zip(claimed, outcomes, strict=True):
        runner.finish(one, outcome)
    assert runner.attempt() == Completed("0")
    assert (row(job).attempt, row(other).attempt) == (2, 1)


def test_x6_a_transaction_of_the_worker_that_stands_still_loses_its_locks_after_a_lease(
    dialect: Dialect, settings: Any
) -> None:
    """A process that is stopped in the middle of one must not keep others from its jobs."""
    if not has_sessions():
        pytest.skip("SQLite has no server that could end a connection")
    settings.DURABLE_JOBS = {"LEASE": 1.0, "HEARTBEAT": 0.3}
    Queue.objects.create(name="held")
    locked, free = threading.Event(), threading.Event()

    def stand_still() -> None:
        mark_thread_as_ours()
        with transaction.atomic():
            list(Queue.objects.select_for_update().filter(name="held"))
            locked.set()
            assert free.wait(20)
            left()

    def is_free() -> bool:
        with transaction.atomic():
            return Queue.objects.select_for_update(skip_locked=True).filter(name="held").exists()

    install()
    with ThreadPoolExecutor(1) as threads:
        still = threads.submit(stand_still)
        assert locked.wait(10)
        assert not is_free()
        try:
            eventually(is_free, what="the lock is taken away")
        finally:
            free.set()
        with pytest.raises(DatabaseError) as lost:
            still.result()
    assert dialect.is_disconnect(lost.value)
