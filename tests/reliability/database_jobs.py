"""Job functions for the tests about the database. In-process workers count what ran in `RAN`."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

from django.db import connection

from django_durable_jobs import acall, call, durable_job
from django_durable_jobs.backoff import Backoff
from django_durable_jobs.models import Job
from tests.reliability.outages import session

RAN: Final[Counter[str]] = Counter()
"""How often each named body began, in this process; cleared by the test that reads it."""
_guard = threading.Lock()


def ran(name: str) -> None:
    """Count one run of a body."""
    with _guard:
        RAN[name] += 1


@durable_job
def count(name: str) -> str:
    """Count itself."""
    ran(name)
    return name


@durable_job(call_retries=0, retries=0)
def count_calls(name: str, calls: int) -> list[str]:
    """Count itself and some durable calls."""
    ran(name)
    return [call(count, f"{name}.{number}") for number in range(calls)]


@durable_job(call_retries=0, retries=0)
def catch_calls(name: str) -> str:
    """Catch the error of a call, go on with another."""
    ran(name)
    try:
        call(refuse, f"{name}.refused")
    except ValueError as error:
        return call(count, f"{name}.{error}")
    return "not refused"


@durable_job(retries=1)
def refuse(name: str) -> None:
    """Fail each time."""
    ran(name)
    raise ValueError("no")


@durable_job(retries=1, backoff=Backoff.none())
def query_twice(name: str, gate: str) -> int:
    """Use the database before and after a gate of the test, which learns the number of the connection."""
    ran(name)
    CONNECTED[name] = session()
    GATES[gate].wait(20)
    return session()


@durable_job(retries=1, backoff=Backoff.none())
def call_twice(name: str, gate: str) -> list[str]:
    """Make a durable call, use the database, wait for a gate of the test, make another call."""
    ran(name)
    first = call(count, f"{name}.1")
    CONNECTED[name] = session()
    GATES[gate].wait(20)
    return [first, call(count, f"{name}.2")]


@durable_job(retries=0, call_retries=3, call_backoff=Backoff.fixed(0.3))
def call_flaky(name: str, gate: str) -> str:
    """Make a call that fails twice, after a gate of the test."""
    ran(name)
    GATES[gate].wait(20)
    return call(succeed_third, name)


def succeed_third(name: str) -> str:
    """Fail twice, then succeed."""
    ran(f"{name}.call")
    if RAN[f"{name}.call"] < 3:
        raise ValueError("not yet")
    return f"{name} after 2"


@durable_job
def call_and_query(calls: int) -> int:
    """Make calls and ask the database in each."""
    return sum(call(one_row) for _ in range(calls))


@durable_job
async def call_and_query_async(calls: int) -> int:
    """Do the same on the event loop."""
    return sum([await acall(one_row_async) for _ in range(calls)])


def one_row() -> int:
    """Ask the database for a one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])


async def one_row_async() -> int:
    """Ask as Django's own async methods do."""
    return 1 if await Job.objects.aexists() else 0


GATES: Final[dict[str, threading.Event]] = {}
"""Events that a test makes for jobs of an in-process worker."""
CONNECTED: Final[dict[str, int]] = {}
"""The server's number of the connection of each job that told it."""
