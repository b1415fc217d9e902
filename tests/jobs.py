"""Job functions of the tests; the app finds them here as in any installed app."""

from __future__ import annotations

from django_durable_jobs import call, durable_job
from tests.reliability import process_jobs  # noqa: F401 -- more of them


@durable_job
def noop(n: int) -> None:
    """Do nothing."""


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
