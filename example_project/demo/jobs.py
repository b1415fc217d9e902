"""The jobs of the control room: short ones that keep four queues busy, and a long one to be cancelled."""

from __future__ import annotations

import time
from typing import Final

from django_durable_jobs import call, durable_job


@durable_job
def short(seconds: float) -> None:
    """Take so long."""
    time.sleep(seconds)


@durable_job
def long(steps: int) -> None:
    """Take many short steps, each a durable call: at each of them it can be stopped."""
    for _ in range(steps):
        call(step)


def step() -> None:
    """Take twenty milliseconds."""
    time.sleep(0.02)


CONTROL_ROOM: Final = (short.name, long.name)
