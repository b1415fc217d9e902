"""The benchmark's bodies as our durable jobs: the registry's autodiscovery reads this module."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django_durable_jobs import call, durable_job, gather, sleep_until
from tests.benchmarks import bodies
from tests.benchmarks.place import QUEUE, mark


@durable_job(queue=QUEUE)
def noop(n: int) -> None:
    """Do nothing, on a thread."""
    bodies.noop(n)


@durable_job(queue=QUEUE)
async def noop_async(n: int) -> None:
    """Do nothing, on the event loop."""
    bodies.noop(n)


@durable_job(queue=QUEUE)
def arrive(n: int) -> None:
    """Write down when the body starts."""
    bodies.arrive(n)


@durable_job(queue=QUEUE)
def stay(n: int) -> None:
    """Stay until killed, the first time."""
    bodies.stay(n)


@durable_job(queue=QUEUE)
def wake(due: int) -> None:
    """Sleep until an instant (nanoseconds since the epoch), and write down when the code goes on."""
    sleep_until(datetime.fromtimestamp(due / 1e9, UTC))
    mark(due, time.time_ns())


@durable_job(queue=QUEUE)
def family(children: int) -> None:
    """Have so many no-op children."""
    started = call(bodies.moment)
    results = gather(*(noop.s(n) for n in range(children)))
    mark(started, time.time_ns(), len(results))


@durable_job(queue=QUEUE)
def steps(calls: int) -> None:
    """Make so many durable calls, one after another."""
    started = time.time_ns()
    for n in range(calls):
        call(bodies.step, n)
    mark(started, time.time_ns(), calls)
