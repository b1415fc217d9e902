"""The bodies that every contender runs: plain functions, so that all contenders run exactly the same code."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.benchmarks.place import mark

NAMES = ("noop", "arrive", "stay")


def noop(n: int) -> None:
    """Do nothing: what remains is the cost of the system around it."""


def arrive(n: int) -> None:
    """Write down when the body starts; ``n`` is the instant just before the enqueue (nanoseconds since the epoch)."""
    mark(n, time.time_ns())


def stay(n: int) -> None:
    """Write down the start; the first time of all, stay until the process is killed."""
    first = not Path(os.environ["BENCH_MARKS"]).exists()
    mark(n, time.time_ns())
    if first:
        time.sleep(600)


def moment() -> int:
    """Return the present instant, in nanoseconds since the epoch."""
    return time.time_ns()


def step(n: int) -> int:
    """Be one durable step: return a small value that has to be stored."""
    return n
