"""The database goes away, comes back, refuses writes or is slow, under real worker processes (X12, X14–X16, I30)."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from django.db import DatabaseError, OperationalError, connections

from django_durable_jobs.models import Attempt, Checkpoint, Job
from django_durable_jobs.models import Worker as WorkerRow
from django_durable_jobs.worker.registering import WAIT_FOR_DATABASE
from django_durable_jobs.worker.worker import Worker
from tests.databases import URL_VARIABLE
from tests.factories import present
from tests.reliability.harness import Stopwatch, Workers
from tests.reliability.outages import has_sessions, options
from tests.reliability.process_jobs import hold_then_call, remember, steps
from tests.reliability.proxy import Proxy
from tests.servers import EmbeddedPostgres
from tests.waiting import elsewhere, eventually

PATIENT = {"LEASE": 30.0}
"""A lease that outlasts every outage here, so that no job is taken from its worker."""


@pytest.fixture
def private_workers(private_database: EmbeddedPostgres, tmp_path: Path) -> Iterator[Workers]:
    """Worker processes on a private server; ended while it is up."""
    with Workers(tmp_path) as workers:
        try:
            yield workers
        finally:
            connections.close_all()
            private_database.start()


class Load:
    """Enqueues without pause in a thread, through outages; knows which jobs were confirmed."""

    def __init__(self, ledger: str) -> None:
        """Begin."""
        self.confirmed: dict[UUID, str] = {}
        self.refused = 0
        self._ledger = ledger
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            try:
                handle = steps.enqueue(self._ledger, [f"job {number}.{step}" for step in range(3)])
                self.confirmed[handle.id] = f"job {number}."
            except DatabaseError:
                self.refused += 1
                connections.close_all()
            self._enough.wait(0.005)
        connections.close_all()

    def stop(self) -> None:
        """End; what was confirmed until now counts."""
        self._enough.set()
        self._thread.join()


def unfinished() -> int:
    """How many jobs have not ended, read on a fresh connection."""
    connections.close_all()
    return Job.objects.exclude(status__in=["completed", "failed"]).count()


def completed() -> int:
    """How many jobs are completed."""
    return Job.objects.filter(status="completed").count()


@pytest.mark.timeout(120)
def test_x12_a_database_that_crashes_under_load_loses_no_confirmed_job(
    private_database: EmbeddedPostgres, private_workers: Workers
) -> None:
    processes = [private_workers.start("--queue", "default=4", settings=PATIENT) for _two in range(2)]
    load = Load(private_workers.ledger)
    try:
        for _crash in range(2):
            before = completed()
            eventually(lambda before=before: completed() > before + 5, seconds=20)  # type: ignore[misc]
            connections.close_all()
            private_database.stop("immediate")
            refused = load.refused
            eventually(lambda refused=refused: load.refused > refused + 2)  # type: ignore[misc]
            private_database.start()
    finally:
        load.stop()
    eventually(lambda: not unfinished(), seconds=40)
    confirmed = Job.objects.filter(id__in=load.confirmed)
    assert confirmed.count() == len(load.confirmed) > 15
    assert set(confirmed.values_list("status", "attempt")) == {("completed", 1)}
    assert [process.process.poll() for process in processes] == [None, None]
    begun = Counter(line for line in private_workers.lines("job "))
    assert {line for line, times in begun.items() if times > 1} == set(), "a call ran twice though its worker lived"
    assert Checkpoint.objects.count() == 3 * Job.objects.count()
    assert not Attempt.objects.exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "statement_timeout = 1"])
def test_x16_a_database_that_refuses_our_statements_for_a_while_fails_no_job(
    setting: str, private_database: EmbeddedPostgres, private_workers: Workers
) -> None:
    """As after a failover to a replica, or under a time limit that is too short for a loaded server."""
    process = private_workers.start("--queue", "default=4", settings=PATIENT)
    steps.enqueue_many([(private_workers.ledger, [f"job {n}.{step}" for step in range(3)]) for n in range(400)])
    eventually(lambda: completed() > 20)
    with private_database.connect() as admin:
        admin.execute("SET statement_timeout = 0; SET default_transaction_read_only = off")
        admin.execute(f"ALTER SYSTEM SET {setting}")
        admin.execute("SELECT pg_reload_conf()")
        try:
            process.says("the database is away", seconds=8)
        finally:
            admin.execute(f"ALTER SYSTEM RESET {setting.partition(' ')[0]}")
            admin.execute("SELECT pg_reload_conf()")
    eventually(lambda: not unfinished(), seconds=40)
    assert set(Job.objects.values_list("status", "attempt")) == {("completed", 1)}
    assert process.process.poll() is None
    assert not Attempt.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_x15_a_worker_that_starts_before_its_database_waits_and_says_so(workers: Workers) -> None:
    if not has_sessions():
        pytest.skip("a database in a file is there or not")
    handle = remember.enqueue(workers.ledger, "done")
    with Proxy() as proxy:
        process = workers.start("--queue", "default=1", ready=False, environment={URL_VARIABLE: proxy.url})
        process.says("trying again in 0.2 s")
        assert process.process.poll() is None
        proxy.open()
        eventually(lambda: present(handle.id).status == "completed", seconds=20)
        process.send(signal.SIGTERM)
        assert process.ended() == 0


@pytest.mark.django_db(transaction=True)
def test_x15_a_worker_that_waits_for_its_database_stops_when_asked(workers: Workers) -> None:
    if not has_sessions():
        pytest.skip("a database in a file is there or not")
    with Proxy() as proxy:
        process = workers.start("--queue", "default=1", ready=False, environment={URL_VARIABLE: proxy.url})
        process.says("trying again in 0.4 s")
        process.send(signal.SIGTERM)
        with Stopwatch() as watch:
            assert process.ended() == 0
    assert watch.seconds < 3


@pytest.mark.django_db(transaction=True)
def test_x15_a_worker_whose_database_never_comes_ends_with_an_exit_code_and_one_line(workers: Workers) -> None:
    if not has_sessions():
        pytest.skip("a database in a file is there or not")
    impatient = {"DURABLE_JOBS_TEST_MODULE": str(Path(__file__).with_name("short_patience.py"))}
    with Proxy() as proxy:
        one = workers.start("--queue", "default=1", ready=False, environment={URL_VARIABLE: proxy.url, **impatient})
        assert one.ended(20) == 1
    assert "trying again in 0.1 s" in one.output
    *_, last = one.output.splitlines()
    assert "The jobs' database did not answer for " in last
    assert "Traceback" not in one.output
    assert not WorkerRow.objects.exists()


class ImpatientClock:
    """Waits end at once, and the time they would have taken has gone by."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.waits: list[float] = []

    def monotonic(self) -> float:
        """Return the sum of the waits."""
        return sum(self.waits)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Do not wait."""
        self.waits.append(seconds)
        return event.is_set()


def test_x15_a_worker_gives_up_a_database_that_does_not_come(
    private_database: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waits grow up to five seconds; the error comes out after five minutes, and with it the exit code."""
    private_database.stop()
    clock = ImpatientClock()
    worker = Worker(options(), clock=clock)
    monkeypatch.setattr(worker, "_rest", clock.waits.append)
    with pytest.raises(OperationalError):
        elsewhere(worker.run)
    assert clock.waits[:3] == [0.1, 0.2, 0.4]
    assert max(clock.waits) == 5.0
    assert WAIT_FOR_DATABASE <= clock.monotonic() < WAIT_FOR_DATABASE + 10


@pytest.mark.timeout(90)
@pytest.mark.django_db(transaction=True)
def test_x14_a_worker_cut_off_for_longer_than_its_lease_stops_its_jobs_which_run_again_once(workers: Workers) -> None:
    """I10, I30: it neither exits nor writes; it works again when the database is back."""
    if not has_sessions():
        pytest.skip("nothing between a process and a file that could be cut")
    gate = workers.gate()
    with Proxy() as proxy:
        proxy.open()
        cut_off = workers.start("--queue", "default=1", environment={URL_VARIABLE: proxy.url})
        handle = hold_then_call.enqueue(workers.ledger, "job", str(gate))
        workers.noted("begin job")
        proxy.close()
        workers.start("--queue", "default=1", name="other")
        begun = workers.noted("begin job", 2)
        cut_off.says("could not be kept while the database is away")
        gate.touch()
        assert handle.result(20) == "effect job"
        proxy.open()
        later = remember.enqueue(workers.ledger, "later")
        assert later.result(20) == "later"
        assert cut_off.process.poll() is None
    assert len(begun) == 2
    assert len(workers.lines("effect")) == 1
    assert present(handle.id).attempt == 2


@pytest.mark.timeout(90)
@pytest.mark.django_db(transaction=True)
def test_x20_a_worker_whose_packets_are_lost_without_a_word_gets_new_connections(workers: Workers) -> None:
    """Nobody tells it that its connections are dead; that no answer comes for a lease, or ten seconds, does."""
    if not has_sessions():
        pytest.skip("nothing between a process and a file that could be cut")
    with Proxy() as proxy:
        proxy.open()
        worker = workers.start("--queue", "default=1", environment={URL_VARIABLE: proxy.url})
        assert remember.enqueue(workers.ledger, "before").result(20) == "before"
        proxy.swallow()
        assert remember.enqueue(workers.ledger, "after").result(40) == "after"
        assert "its database connection is cut" in worker.output
        assert worker.process.poll() is None
