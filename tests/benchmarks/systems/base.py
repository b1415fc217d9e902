"""The interface of a contender: how it is installed, fed, and how its worker is started.

A system says nothing about what is measured; ``measures`` says nothing about any one system. A verb that a system
does not have is left out, and ``figures`` does not ask for it.
"""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import psycopg

from tests.benchmarks.place import ROOT, Place


class System(ABC):
    """One contender in one variant, at one place."""

    def __init__(self, place: Place, variant: str = "") -> None:
        self.place = place
        self.variant = variant

    @abstractmethod
    def install(self) -> None:
        """Create tables in the fresh database."""

    def enqueue_each(self, values: Sequence[int]) -> float:
        """Enqueue no-op jobs one by one, each committed; return the seconds it took, without connecting."""
        raise NotImplementedError

    def enqueue_many(self, values: Sequence[int]) -> float:
        """Enqueue no-op jobs through the bulk API; return the seconds it took, without connecting."""
        raise NotImplementedError

    def sender(self, body: str) -> Callable[[int], object]:
        """Return a connected function that enqueues one job of the named body."""
        raise NotImplementedError

    def worker_command(self) -> list[str]:
        """Return the command of one worker that runs until it is stopped, with defaults."""
        raise NotImplementedError

    def drain_command(self) -> list[str]:
        """Return the command of one worker that ends when the queue is empty."""
        raise NotImplementedError

    def drain(self, processes: int, seconds: float) -> None:
        """Run everything that is queued with so many worker processes."""
        command = self.drain_command()
        workers = [self.start(command) for _ in range(processes)]
        wait_all(workers, seconds)

    def finish_times(self) -> list[float]:
        """Return, in order, the instant of each completion as the system stored it (seconds since the epoch)."""
        raise NotImplementedError

    def count_finished(self) -> int:
        """Return how many jobs are complete."""
        return len(self.finish_times())

    def throttle(self, n: int) -> Callable[[], int]:
        """Let ``n`` no-op jobs come at a fixed rate from the call of what is returned; that says how often it asked."""
        raise NotImplementedError

    def begin_times(self) -> list[float]:
        """Return, in order, the instant at which each job began, as the system stored it."""
        raise NotImplementedError

    def send_steps(self, workflows: int, calls: int) -> None:
        """Enqueue workflows of so many durable calls each; the body marks its start, its end and how many."""
        raise NotImplementedError

    def send_family(self, children: int) -> None:
        """Enqueue a job with so many no-op children; it marks its start, its end and how many."""
        raise NotImplementedError

    def settle(self) -> None:
        """Bring the filled tables to rest, so that no chore of filling falls into the measurement."""
        if self.place.database.startswith("postgres"):
            with psycopg.connect(self.place.database, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
                connection.execute("CHECKPOINT")

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a worker in a process group of its own; its output goes where ours goes."""
        return subprocess.Popen(
            command, env={**self.place.environ(), **self.environ()}, cwd=ROOT, start_new_session=True
        )

    def environ(self) -> dict[str, str]:
        """Return what this system's processes need in the environment besides the place."""
        return {}

    def times_from(self, query: str) -> list[float]:
        """Return the first column of a PostgreSQL query, whose values are instants, as sorted seconds."""
        with psycopg.connect(self.place.database) as connection:
            return sorted(row[0].timestamp() for row in connection.execute(query.encode()))


def wait_all(workers: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait until every worker has ended well; stop all and raise if one fails or the time is over."""
    deadline = time.monotonic() + seconds
    try:
        for worker in workers:
            code = worker.wait(timeout=max(0.1, deadline - time.monotonic()))
            if code:
                message = f"a worker ended with code {code}"
                raise RuntimeError(message)
    finally:
        for worker in workers:
            stop(worker)


def stop(worker: subprocess.Popen[bytes], *, patience: float = 5) -> None:
    """End a worker that may still run: politely, then by force."""
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def batches(values: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut the values into runs of at most ``size``."""
    return [values[start : start + size] for start in range(0, len(values), size)]
