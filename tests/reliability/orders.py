"""Orders that a test gives to a worker process: at which named point of the package it dies, stops or waits.

A test writes them into the environment of the process (`VARIABLE`); a process that finds them there installs the
hook when the job functions of the tests are imported. A waiting process says by a file that it has arrived and
goes on when the test makes another one.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from django_durable_jobs import faults
from django_durable_jobs.durable.frames import log_fields

VARIABLE: Final = "DURABLE_JOBS_TEST_ORDERS"
PATIENCE: Final = 30.0
"""Seconds that a process waits at a point before it goes on by itself: longer than any test does."""

Action = Literal["kill", "exit", "stop", "wait"]


@dataclass(frozen=True, slots=True)
class Order:
    """Do something when the named point is passed for the ``nth`` time, counted in each process.

    ``kill`` is SIGKILL, ``exit`` is ``os._exit(9)``, ``stop`` is SIGSTOP, ``wait`` needs the test to say ``go``.
    With a ``definition`` only the passages count that happen in a job of this definition.
    """

    point: str
    action: Action
    file: str
    nth: int = 1
    definition: str = ""

    @property
    def reached(self) -> Path:
        """Exists when the point was reached."""
        return Path(f"{self.file}.reached")

    def go(self) -> None:
        """Let a waiting process go on."""
        Path(f"{self.file}.go").touch()


def in_environment(orders: list[Order]) -> dict[str, str]:
    """Return what to put into the environment of the process that is to obey."""
    assert all(order.point in faults.POINTS for order in orders), "no such point"
    return {VARIABLE: json.dumps([asdict(order) for order in orders])}


def obey() -> None:
    """Install the orders of this process, if it has any."""
    given = [Order(**order) for order in json.loads(os.environ.get(VARIABLE, "[]"))]
    if given:
        faults.install(_Hook(given))


class _Hook:
    def __init__(self, orders: list[Order]) -> None:
        self._orders = orders
        self._passed = dict.fromkeys(orders, 0)
        self._guard = threading.Lock()

    def __call__(self, point: str) -> None:
        for order in self._orders:
            if order.point == point and order.definition in {"", log_fields().get("definition")} and self._due(order):
                _carry_out(order)

    def _due(self, order: Order) -> bool:
        with self._guard:
            self._passed[order] += 1
            return self._passed[order] == order.nth


def _carry_out(order: Order) -> None:
    order.reached.touch()
    match order.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(9)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "wait":
            wait_for(Path(f"{order.file}.go"))


def wait_for(file: Path, seconds: float = PATIENCE) -> bool:
    """Wait until a file is there, in short turns; answer whether it came."""
    deadline = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
