"""What goes on beside a job in its process: forks (X39), code that holds the interpreter, a row that is gone."""

from __future__ import annotations

import signal

import pytest
from django.db import connection

from django_durable_jobs import JobFailed
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Attempt, Worker
from django_durable_jobs.states import Status
from tests.databases import URL_VARIABLE, database_url
from tests.factories import present
from tests.reliability.harness import Workers
from tests.reliability.process_jobs import (
    fork_and_name_sessions,
    fork_and_query,
    fork_and_terminate,
    hold,
    hold_the_interpreter,
    leave_transaction_open,
    remember,
    spin,
)
from tests.waiting import eventually


def test_a_forked_process_gets_a_connection_of_its_own_and_leaves_the_jobs_alone(workers: Workers) -> None:
    """X39: the child may even close all it has; the job's session goes on, and so do the next jobs in that thread."""
    worker = workers.start("--queue", "default=1")
    for _ in range(3):
        assert fork_and_query.enqueue(workers.ledger).result(15) is True
    assert workers.lines("child") == ["child 1 own", "child 2 own", "child 3 own"]
    assert "Traceback" not in worker.output


def test_x39_a_forked_process_takes_nothing_from_the_pool_of_its_parent(workers: Workers, dialect: Dialect) -> None:
    if not dialect.has_notifications:
        pytest.skip("has_notifications: Django has a pool on PostgreSQL only")
    worker = workers.start("--queue", "default=1", environment={URL_VARIABLE: _pooled()})
    for _ in range(3):
        assert fork_and_name_sessions.enqueue(workers.ledger).result(15) is True
    assert workers.lines("child") == ["child own"] * 3
    assert "Traceback" not in worker.output


def test_x35_a_session_that_a_job_left_in_a_transaction_does_not_go_back_to_the_pool(
    workers: Workers, dialect: Dialect
) -> None:
    if not dialect.has_notifications:
        pytest.skip("has_notifications: Django has a pool on PostgreSQL only")
    workers.start("--queue", "default=1", environment={URL_VARIABLE: _pooled()})
    with pytest.raises(JobFailed, match="OpenTransaction"):
        leave_transaction_open.enqueue(workers.ledger).result(15)
    (line,) = workers.noted("session")

    def alive() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [line.split()[1]])
            return int(cursor.fetchone()[0])

    eventually(lambda: not alive())
    assert remember.enqueue(workers.ledger, "later").result(15) == "later"


def _pooled() -> str:
    url = database_url()
    return f"{url}{'&' if '?' in url else '?'}pool=10"


def test_sigterm_ends_a_process_that_a_job_forked(workers: Workers) -> None:
    """It inherits our handlers; `multiprocessing` ends its processes so, and it must work as if we were not there."""
    worker = workers.start("--queue", "default=4")
    assert fork_and_terminate.enqueue(workers.ledger).result(15) == -signal.SIGTERM
    assert worker.process.poll() is None


def test_jobs_that_keep_the_processor_busy_do_not_keep_the_heartbeat_from_beating(workers: Workers) -> None:
    """I5, I25: pure Python for longer than the lease in every slot; no lease is lost."""
    worker = workers.start("--queue", "default=4", settings={"LEASE": 1.5})
    handles = [spin.enqueue(4.0) for _ in range(4)]
    for handle in handles:
        handle.result(40)
    assert {(present(handle.id).attempt, present(handle.id).rescues) for handle in handles} == {(1, 0)}
    assert "lost" not in worker.output


def test_code_that_holds_the_interpreter_beyond_the_lease_is_fenced(workers: Workers) -> None:
    """X7: a C call without a break for two leases. Nobody can beat meanwhile; its result is refused."""
    held = workers.start("--queue", "default=1", name="held")
    handle = hold_the_interpreter.enqueue(workers.ledger, str(workers.gate()), 5.0)
    workers.noted("begin")
    workers.start("--queue", "default=1", name="other")
    eventually(lambda: present(handle.id).token == 2, seconds=20)
    workers.gate().touch()
    assert handle.result(20) is None
    held.says("ended here after its lease was lost; nothing was stored")
    job = present(handle.id)
    assert (job.token, job.attempt, Attempt.objects.filter(job_id=job.id).count()) == (2, 2, 1)
    assert remember.enqueue(workers.ledger, "later").result(15) == "later"


def test_a_worker_whose_row_was_deleted_is_seen_again_with_the_next_heartbeat(workers: Workers) -> None:
    """A machine that slept for days comes back after its row was pruned: it works on, and is no ghost."""
    worker = workers.start("--queue", "default=4", name="sleeper")
    gate = workers.gate()
    handle = hold.enqueue(workers.ledger, "x", str(gate))
    workers.noted("begin")
    before = Worker.objects.get()
    Worker.objects.all().delete()
    after = eventually(lambda: Worker.objects.alive().first())
    assert (after.id, after.name, after.pid, after.queues) == (before.id, "sleeper", worker.pid, {"default": 4})
    gate.touch()
    assert handle.result(10) == "x"
    assert present(handle.id).status == Status.COMPLETED
