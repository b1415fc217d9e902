"""Waiting in tests, always with a limit: for a condition, or for functions that run at the same moment in threads.

No test sleeps. What another thread or process will do is waited for with `eventually`; what must happen at one
moment is started with `together`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import connections

Result = TypeVar("Result")

LOOK_AGAIN = 0.01
"""Seconds between two looks at a condition."""


def eventually(condition: Callable[[], Result | None], *, seconds: float = 10, what: str = "") -> Result:
    """Return the first true answer of ``condition``; `AssertionError` when there is none within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {seconds:g} s: {what or getattr(condition, '__name__', condition)}")
        time.sleep(LOOK_AGAIN)
    return answer


def together(*functions: Callable[[], Result], seconds: float = 30) -> list[Result]:
    """Run functions at once, each in a thread with database connections of its own; return their results in order.

    They start behind one barrier. The first error of any of them is raised here.
    """
    barrier = threading.Barrier(len(functions))
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(index: int, function: Callable[[], Result]) -> None:
        try:
            barrier.wait(seconds)
            results[index] = function()
        except BaseException as error:  # noqa: BLE001 -- raised in the test's own thread below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=run, args=pair, name=f"together-{pair[0]}", daemon=True)
        for pair in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    _join(threads, seconds)
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(functions))]


def elsewhere(function: Callable[[], Result], *, seconds: float = 30) -> Result:
    """Run a function in a thread with its own database connections, and return its result."""
    return together(function, seconds=seconds)[0]


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} did not end within {seconds:g} s"
