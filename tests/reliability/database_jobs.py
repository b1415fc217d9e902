"""Job functions for the tests about the database. In-process workers count what ran in `RAN`."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

from django.db import connections

from django_durable_jobs import call, durable_job
from django_durable_jobs.conf import get_settings

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


@durable_job(retries=1)
def query_after(name: str, gate: str) -> int:
    """Use the database before and after a gate of the test."""
    ran(name)
    with connections[get_settings().database].cursor() as cursor:
        cursor.execute("SELECT 1")
        GATES[gate].wait(20)
        cursor.execute("SELECT 2")
        return int(cursor.fetchone()[0])


GATES: Final[dict[str, threading.Event]] = {}
"""Events that a test makes for jobs of an in-process worker."""
