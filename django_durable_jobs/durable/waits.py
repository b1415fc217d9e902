"""What all waits for something from outside have in common: look, else give up when the time is over, else park."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ..errors import TimedOut
from ..operations.database import dialect
from .points import Point

Timeout = timedelta | float | None
"""How users say how long a wait may take."""


def wait(  # noqa: PLR0913 -- the parts of a wait, each said by name
    point: Point,
    *,
    begin: Callable[[str], datetime | None],
    look: Callable[[], str | None],
    waiting_for: str,
    what: str,
    give_up: Callable[[], object] = lambda: None,
) -> Any:
    """Return what has come, as a replay would give it back, or raise what parks the job.

    ``begin`` says until when it may wait; with a ``part`` it does so anew (see ``Point.anew``), as the next attempt has
    the whole time again when ``TimedOut`` has ended one. ``look`` returns what has come in its stored form; it is
    called in the transaction that stores it as this point's result. ``give_up`` is called in the transaction that
    finds nothing when the time is over; then ``TimedOut`` is raised, which names ``what`` was waited for.
    """
    stored = point.recorded()
    if stored is not None:
        return point.replayed(stored)
    deadline, over = begin(point.anew()), False

    def decide() -> str | None:
        nonlocal over
        found = look()
        # By the database's clock and under the lock of the job's row: what comes later finds that it comes too late.
        over = found is None and deadline is not None and deadline <= dialect().now()
        if over:
            give_up()
            point.give_up()
        return found

    stored = point.once(decide)
    if stored is not None:
        return point.replayed(stored)
    if over:
        error = TimedOut(f"Job {point.job.id} got no {what} until {deadline:%Y-%m-%d %H:%M:%S} UTC (call {point.key}).")
        raise point.fail(error, point.task)
    raise point.park(waiting_for, deadline)
