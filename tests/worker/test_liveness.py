"""Services that hang are noticed, cut loose and, if that does not help, ended with their process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import pytest
from django.db import connection, connections

from django_durable_jobs.worker import listener, liveness
from django_durable_jobs.worker.liveness import LEAST, Liveness, ServiceLost
from django_durable_jobs.worker.probes import Probes
from django_durable_jobs.worker.promoter import Promoter
from django_durable_jobs.worker.service import ServiceThread
from django_durable_jobs.worker.worker import Worker
from tests.durable.running import COMMITS
from tests.jobs import add
from tests.reliability.outages import Running, has_sessions, options, sessions
from tests.waiting import eventually

pytestmark = COMMITS

LEASE: Final = timedelta(seconds=20)
ENDLESS: Final = {
    "postgresql": ("SELECT pg_advisory_lock(4711)", "SELECT pg_advisory_unlock(4711)"),
    "mysql": ("SELECT GET_LOCK('hangs', 60)", "SELECT RELEASE_LOCK('hangs')"),
    "sqlite": ("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n", "SELECT 1"),
}
"""A statement that is not answered while the test holds its lock, and what frees that; by the driver."""


def ask(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def unanswered() -> Iterator[None]:
    endless, free = ENDLESS[connection.vendor]
    if has_sessions():
        ask(endless)
    yield
    ask(free)
    if has_sessions():
        # The server goes on with the statement until it finds that nobody listens.
        eventually(lambda: not sessions(endless), seconds=20)


def never_answered() -> None:
    ask(ENDLESS[connection.vendor][0])


# The main thread's look ---------------------------------------------------------------------------------------------


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let the time pass."""
        self.now += seconds
        return event.is_set()


class Thread:
    """Stands for the thread of a service."""

    name = "promoter"

    def __init__(self) -> None:
        self.service = self
        self.in_round: int | None = 1
        self.alive = True
        self.cuts = 0

    def cut(self) -> None:
        """Count."""
        self.cuts += 1


@pytest.fixture
def watched() -> tuple[Thread, Liveness, Clock]:
    thread, clock = Thread(), Clock()
    return thread, Liveness([cast("ServiceThread", thread)], LEASE, clock=clock), clock


def look_for(seconds: float, watch: Liveness, clock: Clock, step: float = 0.5) -> bool:
    well = True
    for _look in range(int(seconds / step)):
        clock.now += step
        well = watch.look()
    return well


@pytest.mark.once
def test_a_round_that_takes_longer_than_a_lease_is_cut_once(
    watched: tuple[Thread, Liveness, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    thread, watch, clock = watched
    assert look_for(19, watch, clock)
    assert thread.cuts == 0
    assert not look_for(15, watch, clock)
    assert thread.cuts == 1
    assert "The service 'promoter' hangs for 20 s; its database connection is cut" in caplog.text
    thread.in_round = 2
    assert look_for(1, watch, clock)
    assert "does its rounds again" in caplog.text


@pytest.mark.once
def test_a_service_that_a_cut_does_not_free_is_lost(watched: tuple[Thread, Liveness, Clock]) -> None:
    _thread, watch, clock = watched
    with pytest.raises(ServiceLost, match="hangs for 40 s although its connection was cut"):
        look_for(60, watch, clock)


@pytest.mark.once
def test_a_service_whose_thread_ended_is_lost_at_once(watched: tuple[Thread, Liveness, Clock]) -> None:
    thread, watch, _clock = watched
    thread.alive = False
    with pytest.raises(ServiceLost, match="'promoter' of this worker has died"):
        watch.look()


@pytest.mark.once
def test_time_in_which_the_whole_process_stood_still_counts_against_nobody(
    watched: tuple[Thread, Liveness, Clock],
) -> None:
    """SIGSTOP, a machine that slept, a library that holds the interpreter."""
    thread, watch, clock = watched
    assert watch.look()
    clock.now += 3600
    assert watch.look()
    assert thread.cuts == 0


@pytest.mark.once
def test_a_service_that_rests_does_not_hang(watched: tuple[Thread, Liveness, Clock]) -> None:
    thread, watch, clock = watched
    thread.in_round = None
    assert look_for(3600, watch, clock, step=1)
    assert thread.cuts == 0


@pytest.mark.once
def test_short_leases_do_not_make_it_impatient() -> None:
    assert LEAST == 10


# Real threads and databases -----------------------------------------------------------------------------------------


class Hangs:
    """A service whose first round waits for the database for ever."""

    name = "hangs"

    def __init__(self) -> None:
        self.rounds = 0
        self.again = threading.Event()

    def run_once(self) -> float:
        """Hang, but only once."""
        self.rounds += 1
        if self.rounds == 1:
            never_answered()
        self.again.set()
        return 60.0


@pytest.mark.usefixtures("unanswered")
def test_a_service_that_waits_for_an_answer_is_freed_by_a_cut_and_goes_on() -> None:
    service = Hangs()
    thread = ServiceThread(service)
    thread.start()
    eventually(lambda: thread.in_round == 1)

    def freed() -> bool:
        thread.cut()  # again and again: it may not have come to its statement yet
        return service.again.is_set()

    try:
        eventually(freed, seconds=5)
        eventually(lambda: thread.in_round is None)
        assert thread.alive
    finally:
        thread.stop()
    thread.join(10)


def test_nothing_happens_to_a_thread_without_a_connection() -> None:
    thread = ServiceThread(Hangs())
    thread.cut()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(liveness, "LEAST", 0.0)
    monkeypatch.setattr(listener, "WAIT", 0.05)
    yield
    connections.close_all()


def short() -> Any:
    return options(lease=timedelta(seconds=0.5), heartbeat=timedelta(seconds=0.1))


@pytest.mark.usefixtures("impatient", "unanswered")
def test_a_worker_frees_its_own_services(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    really, hung = Promoter.run_once, threading.Event()

    def run_once(self: Promoter) -> float:
        if not hung.is_set():
            hung.set()
            never_answered()
        return really(self)

    monkeypatch.setattr(Promoter, "run_once", run_once)
    running = Running((short(),))
    try:
        assert hung.wait(20)
        assert add.using(delay=0.01).enqueue(1, 2).result(20) == 3
        eventually(lambda: "The service 'chores' does its rounds again" in caplog.text)
    finally:
        running.stop()
    running.join(20)


@pytest.mark.usefixtures("impatient")
def test_a_worker_with_a_service_that_never_comes_back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Promoter, "run_once", lambda _self: gate.wait(60) and 1.0)
    running = Running((short(),))
    try:
        with pytest.raises(ServiceLost, match="'chores' hangs"):
            running.join(20)
    finally:
        gate.set()


# Signs of life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_worker_tells_systemd_and_touches_its_file(tmp_path: Path, kind: str) -> None:
    health = tmp_path / "health"
    name = str(tmp_path / "notify") if kind == "path" else f"@durable-jobs-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20)
        systemd.bind(name.replace("@", "\0"))
        worker = Worker(options(), probes=Probes(health, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000"}))
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        while (message := systemd.recv(100)) == b"WATCHDOG=1":
            continue  # it waited for its database
        assert message == b"READY=1"
        assert [systemd.recv(100) for _time in range(2)] == [b"WATCHDOG=1"] * 2
        eventually(health.exists)
        worker.stop()
        while systemd.recv(100) != b"STOPPING=1":
            continue
        thread.join(20)
    assert not health.exists(), "no sign of life is left behind"


@pytest.mark.once
def test_signs_are_given_once_a_second_or_as_often_as_systemd_wants(tmp_path: Path) -> None:
    health, clock = tmp_path / "health", Clock()
    probes = Probes(health, {"WATCHDOG_USEC": "1500000"}, clock=clock)
    for step, touched in ((0.0, True), (0.4, False), (0.2, True)):
        health.unlink(missing_ok=True)
        clock.now += step
        probes.alive()
        assert health.exists() is touched


@pytest.mark.once
def test_what_cannot_be_told_is_logged_and_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    probes = Probes(tmp_path / "gone" / "health", {"NOTIFY_SOCKET": str(tmp_path / "nobody")}, clock=clock)
    for _time in range(3):
        clock.now += 2
        probes.alive()
    probes.stopping()
    probes.ended()
    assert caplog.text.count("cannot be touched") == 1
    Probes(None, {"NOTIFY_SOCKET": "vsock:2:1234"}).ready()
    assert "NOTIFY_SOCKET is neither a path nor an abstract socket" in caplog.text


@pytest.mark.once
@pytest.mark.parametrize("text", ["", "0", "-5", "soon", "٣", "1.5"])
def test_a_watchdog_time_that_is_none_is_no_time(text: str) -> None:
    assert Probes(None, {"WATCHDOG_USEC": text})._every == 1.0


@pytest.mark.once
def test_the_watchdog_of_another_process_is_not_ours() -> None:
    assert Probes(None, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"})._every == 1.0
