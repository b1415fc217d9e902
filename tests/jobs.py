"""Job functions that many tests share; the app finds them here as in any installed app.

A group of tests with job functions of its own keeps them beside itself (``tests/reliability/process_jobs.py``) and
is imported here, so that worker processes know them too.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from django_durable_jobs import call, durable_job
from tests.reliability import process_jobs, rich_jobs  # noqa: F401 -- more of them


@durable_job
def noop(n: int) -> None:
    """Do nothing."""


@durable_job(api=True)
def open_to_http(when: date, *, note: str = "") -> str:
    """May be enqueued over HTTP."""
    return f"{when} {note}"


@durable_job
def anything(value: Any) -> Any:
    """Return what it is given, of any type that can be stored."""
    return value


@durable_job
def add(a: int, b: int) -> int:
    """Return a sum."""
    return a + b


@durable_job
async def async_add(a: int, b: int) -> int:
    """Return a sum, on the event loop."""
    return a + b


@durable_job(retries=0)
def explode(message: str) -> None:
    """Fail."""
    raise ValueError(message)


@durable_job
def sums(n: int) -> int:
    """Add up by durable calls."""
    total = 0
    for i in range(n):
        total = call(add, total, i)
    return total
