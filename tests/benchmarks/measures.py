"""How each thing is measured, the same for every contender.

``prepare(n)`` installs and fills; ``run()`` measures and returns metrics by name. The rate of a drained queue is
taken from the completion times that the contender itself stores, from the moment a tenth is complete until the last:
start-up of the worker processes is left out for all alike, and so is nobody's tail.
"""

from __future__ import annotations

import bisect
import os
import random
import signal
import statistics
import time
from abc import ABC, abstractmethod

import psutil
import psycopg

from tests.benchmarks.systems.base import System, stop

Metrics = dict[str, float]
MARK_SECONDS = 60.0
QUICK_PAUSE_SECONDS, POLL_SECONDS = 0.04, 1.0
AHEAD_NANOSECONDS, BETWEEN_NANOSECONDS = 3_000_000_000, 20_000_000  # until the first wake-up, and between two
SLOW_PICK_UP_NANOSECONDS = 100_000_000
REST_SECONDS = 15  # a connection reports the last of its transactions up to ten seconds after it became idle
LOOK_TRANSACTIONS = 2  # what one look at the statistics itself costs: the connection's start-up and the query


class Measure(ABC):
    """One measurement of one contender."""

    def __init__(self, system: System, seconds: float) -> None:
        self.system = system
        self.seconds = seconds

    @abstractmethod
    def prepare(self, n: int) -> None:
        """Bring the system to the start of the measurement of ``n`` jobs."""

    @abstractmethod
    def run(self) -> Metrics:
        """Measure."""

    def fill(self, n: int) -> None:
        """Install, queue ``n`` no-op jobs by the quickest way the system has, and let the tables settle."""
        self.n = n
        self.system.install()
        try:
            self.system.enqueue_many(range(n))
        except NotImplementedError:
            self.system.enqueue_each(range(n))
        self.system.settle()

    def await_marks(self, count: int, seconds: float = MARK_SECONDS) -> list[tuple[int, ...]]:
        """Return the marks as soon as there are so many of them."""
        deadline = time.monotonic() + seconds
        while len(marks := self.system.place.read_marks()) < count:
            if time.monotonic() > deadline:
                message = f"not within {seconds:.0f} s"
                raise TimeoutError(message)
            time.sleep(0.002)
        return marks


class Claim(Measure):
    """No-op jobs claimed, run and completed by one worker process, jobs/s."""

    processes = 1

    def prepare(self, n: int) -> None:
        self.fill(n)

    def run(self) -> Metrics:
        self.system.drain(self.processes, self.seconds)
        times = self.system.finish_times()
        if len(times) != self.n:
            message = f"{len(times)} of {self.n} jobs were completed"
            raise RuntimeError(message)
        start = times[self.n // 10]
        return {"rate": sum(at > start for at in times) / (times[-1] - start)}


class ClaimTwo(Claim):
    """The same by two worker processes."""

    processes = 2


class EnqueueEach(Measure):
    """Enqueue one by one through the public API, jobs/s."""

    def prepare(self, n: int) -> None:
        self.n = n
        self.system.install()
        self.system.enqueue_each(range(10))

    def run(self) -> Metrics:
        return {"rate": self.n / self.system.enqueue_each(range(self.n))}


class EnqueueMany(EnqueueEach):
    """Enqueue through the bulk API, jobs/s."""

    def run(self) -> Metrics:
        return {"rate": self.n / self.system.enqueue_many(range(self.n))}


class Latency(Measure):
    """From just before an enqueue in one process to the start of the body in an idle worker, milliseconds.

    After a slow pick-up the further enqueues wait a random part of a second: one sent right after the last was picked
    up would always fall at the start of a poll's pause, and show a polling worker worse than it is.
    """

    def prepare(self, n: int) -> None:
        self.n = n
        self.system.install()
        self.send = self.system.sender("arrive")
        self.worker = self.system.start(self.system.worker_command())
        self.send(time.time_ns())
        self.await_marks(1)
        time.sleep(1)

    def run(self) -> Metrics:
        pause = random.Random(7)
        deadline = time.monotonic() + self.seconds / 3
        sent, longest = 1, QUICK_PAUSE_SECONDS
        marks: list[tuple[int, ...]] = []
        try:
            while sent <= self.n and time.monotonic() < deadline:
                time.sleep(pause.uniform(0.01, longest))
                self.send(time.time_ns())
                sent += 1
                marks = self.await_marks(sent)
                slow = marks[-1][1] - marks[-1][0] > SLOW_PICK_UP_NANOSECONDS
                longest = POLL_SECONDS if slow else longest
        finally:
            stop(self.worker)
        waits = sorted((started - before) / 1e6 for before, started in marks[1:])
        return {"p50": quantile(waits, 0.5), "p99": quantile(waits, 0.99)}


class Wake(Measure):
    """How late the code goes on after the moment that it slept until, on an idle worker, milliseconds."""

    def prepare(self, n: int) -> None:
        self.n = n
        self.system.install()
        self.sleep_until = self.system.sender("wake")
        self.worker = self.system.start(self.system.worker_command())
        self.sleep_until(time.time_ns())
        self.await_marks(1)

    def run(self) -> Metrics:
        try:
            begin = time.time_ns() + AHEAD_NANOSECONDS
            for n in range(self.n):
                self.sleep_until(begin + n * BETWEEN_NANOSECONDS)
            marks = self.await_marks(1 + self.n, self.seconds / 3)
        finally:
            stop(self.worker)
        late = sorted((woken - due) / 1e6 for due, woken in marks[1:])
        return {"p50": quantile(late, 0.5), "p99": quantile(late, 0.99)}


class Steps(Measure):
    """Durable calls per second of one workflow."""

    workflows = 1

    def prepare(self, n: int) -> None:
        self.system.install()
        self.system.send_steps(self.workflows, n // self.workflows)
        self.system.settle()

    def run(self) -> Metrics:
        self.system.drain(1, self.seconds)
        marks = self.await_marks(self.workflows, 1)
        begin, end = min(mark[0] for mark in marks), max(mark[1] for mark in marks)
        return {"rate": sum(mark[2] for mark in marks) / ((end - begin) / 1e9)}


class StepsEight(Steps):
    """The same over eight workflows at once."""

    workflows = 8


class FanOut(Measure):
    """From the start of a parent's code until it has the results of all its children."""

    def prepare(self, n: int) -> None:
        self.system.install()
        self.system.send_family(n)
        self.system.settle()

    def run(self) -> Metrics:
        self.system.drain(1, self.seconds)
        (begin, end, children), *_more = self.await_marks(1, 1)
        seconds = (end - begin) / 1e9
        return {"rate": children / seconds, "seconds": seconds}


class Rescue(Measure):
    """Seconds from ``kill -9`` of the worker until the body runs again in a worker started right after it."""

    def prepare(self, n: int) -> None:
        del n
        self.system.install()
        self.send = self.system.sender("stay")
        self.worker = self.system.start(self.system.worker_command())
        self.send(0)
        self.await_marks(1)

    def run(self) -> Metrics:
        time.sleep(1)
        os.killpg(self.worker.pid, signal.SIGKILL)
        killed = time.time_ns()
        self.worker.wait()
        heir = self.system.start(self.system.worker_command())
        try:
            marks = self.await_marks(2, self.seconds - 20)
        finally:
            stop(heir)
        return {"seconds": (marks[1][1] - killed) / 1e9}


class Memory(Measure):
    """Resident memory of a worker (with its children) after a tenth and after all of the jobs, MiB."""

    def prepare(self, n: int) -> None:
        self.fill(n)

    def run(self) -> Metrics:
        worker = self.system.start(self.system.worker_command())
        deadline = time.monotonic() + self.seconds
        samples: list[float] = []
        try:
            while len(samples) < 10:
                if time.monotonic() > deadline:
                    message = f"not within {self.seconds:.0f} s"
                    raise TimeoutError(message)
                time.sleep(0.2)
                if self.system.count_finished() >= self.n // 10 * (len(samples) + 1):
                    samples.append(resident_mib(worker.pid))
        finally:
            stop(worker)
        return {"first": samples[0], "last": samples[-1], "highest": max(samples)}


class Throttled(Measure):
    """So many jobs per second over four worker processes: how many come, and the transactions that it takes.

    What holds the jobs back is the system's limit on a full queue, or, to compare with, whoever enqueues them.
    """

    processes = 4

    def prepare(self, n: int) -> None:
        self.n = n
        self.system.install()
        self.fed = self.system.throttle(n)
        self.system.settle()

    def run(self) -> Metrics:
        before = transactions(self.system)
        worker = self.system.start([*self.system.worker_command(), f"--processes={self.processes}"])
        deadline = time.monotonic() + self.seconds
        try:
            asked = self.await_finished(1, deadline, 0.1)
            asked += self.fed() + self.await_finished(self.n, deadline, 1)
        finally:
            stop(worker)
        begun = self.system.begin_times()
        # Not the first second, in which four processes start. A slope, since jobs may come in bursts.
        steady = [at for at in begun if at > begun[0] + 1]
        rate = statistics.linear_regression(steady, range(len(steady))).slope
        most = max(bisect.bisect_left(begun, at + 1) - place for place, at in enumerate(begun))
        spent = transactions(self.system) - before - asked - LOOK_TRANSACTIONS
        return {"rate": rate, "most": most, "transactions": 1000 * spent / self.n}

    def await_finished(self, count: int, deadline: float, pause: float) -> int:
        """Wait until so many jobs are complete, and return how often that was asked."""
        asked = 1
        while self.system.count_finished() < count:
            if time.monotonic() > deadline:
                message = f"not within {self.seconds:.0f} s"
                raise TimeoutError(message)
            time.sleep(pause)
            asked += 1
        return asked


class Idle(Measure):
    """An idle worker: resident memory (MiB) and transactions per second over half a minute."""

    def prepare(self, n: int) -> None:
        self.look_seconds = float(n)
        self.system.install()
        self.system.settle()
        self.worker = self.system.start(self.system.worker_command())
        time.sleep(REST_SECONDS)

    def run(self) -> Metrics:
        try:
            before = transactions(self.system)
            time.sleep(self.look_seconds)
            rate = (transactions(self.system) - before - LOOK_TRANSACTIONS) / self.look_seconds
            return {"rss": resident_mib(self.worker.pid), "rate": max(0.0, rate)}
        finally:
            stop(self.worker)


def transactions(system: System) -> int:
    """Return how many transactions the database has seen."""
    with psycopg.connect(system.place.database, autocommit=True) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
        return int(row[0]) if row else 0


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / 2**20


def quantile(ordered: list[float], share: float) -> float:
    """Return the value below which the share of an ordered list lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
