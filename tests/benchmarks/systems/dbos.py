"""DBOS: durable workflows on PostgreSQL; the peer for durable steps.

Its queue keeps the default, no limit of concurrency: a limit of ten would cap it at ten workflows per poll of a second.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from dbos import DBOS, DBOSClient

from tests.benchmarks import bodies
from tests.benchmarks.place import QUEUE, Place, mark, module_command
from tests.benchmarks.systems.base import System, stop, timed

VERSION = "bench"
step = DBOS.step()(bodies.step)


@DBOS.workflow()
def noop(n: int) -> None:
    """Do nothing."""
    bodies.noop(n)


@DBOS.workflow()
def arrive(n: int) -> None:
    """Write down when the body starts."""
    bodies.arrive(n)


@DBOS.workflow()
def stay(n: int) -> None:
    """Stay until killed, the first time."""
    bodies.stay(n)


@DBOS.workflow()
def steps(n: int) -> None:
    """Make so many durable steps, one after another."""
    started = time.time_ns()
    for number in range(n):
        step(number)
    mark(started, time.time_ns(), n)


def launch(place: Place) -> None:
    """Start DBOS in this process, with the queue registered."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": place.database,
            "application_version": VERSION,
            "run_admin_server": False,
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE)


class Dbos(System):
    """DBOS with its queue; it has no bulk enqueue."""

    def install(self) -> None:
        launch(self.place)
        DBOS.destroy()

    def sender(self, body: str) -> Callable[[int], object]:
        client = DBOSClient(system_database_url=self.place.database)
        return lambda n: client.enqueue({"workflow_name": body, "queue_name": QUEUE, "app_version": VERSION}, n)

    def enqueue_each(self, values: Sequence[int]) -> float:
        send = self.sender("noop")
        return timed(lambda: [send(n) for n in values])

    def send_steps(self, workflows: int, calls: int) -> None:
        send = self.sender("steps")
        for _ in range(workflows):
            send(calls)

    def worker_command(self) -> list[str]:
        return module_command(__name__)

    def drain(self, processes: int, seconds: float) -> None:
        """Run workers until nothing is unfinished: DBOS has no such mode, so this process looks four times a second."""
        workers = [self.start(self.worker_command()) for _ in range(processes)]
        deadline = time.monotonic() + seconds
        try:
            while self.times_from(UNFINISHED) and time.monotonic() < deadline:
                time.sleep(0.25)
        finally:
            for worker in workers:
                stop(worker)

    def finish_times(self) -> list[float]:
        return self.times_from(
            "SELECT to_timestamp(updated_at / 1000.0) FROM dbos.workflow_status WHERE status = 'SUCCESS'"
        )


UNFINISHED = "SELECT now() FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING') LIMIT 1"

if __name__ == "__main__":
    launch(Place.current())
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(600)
