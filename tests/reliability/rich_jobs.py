"""A workflow that uses everything a job can do between two crashes, with a ledger of its effects in a file.

`tests/jobs.py` imports this module, so that workers find the functions.
"""

from __future__ import annotations

from django_durable_jobs import (
    Backoff,
    NoRetry,
    atomic_step,
    call,
    compensate,
    current_job,
    durable_job,
    gather,
    sleep,
    wait_for_message,
)
from django_durable_jobs.models import NamedValue
from tests.reliability.process_jobs import note

NOW = Backoff.none()
BOOKED = "booked"


def effect(ledger: str, what: str) -> str:
    """Make a plain effect: a line that says what, and under which token."""
    note(ledger, f"{what} {current_job().fencing_token}")
    return what


@atomic_step("book")
def book(number: int) -> int:
    """Write a row that no unique key protects: a second run would be seen."""
    NamedValue.objects.create(job_id=current_job().id, name=f"{BOOKED} {current_job().fencing_token}", value="1")
    return number


@durable_job(retries=999, backoff=NOW, call_backoff=NOW)
def square(ledger: str, number: int, n: int) -> int:
    """A child with an effect."""
    call(effect, ledger, f"child-{number}-{n}")
    return n * n


@durable_job(retries=999, backoff=NOW, call_backoff=NOW)
def inner(ledger: str, number: int) -> list[str]:
    """Calls inside a call."""
    return [call(effect, ledger, f"inner-{number}-{n}") for n in (1, 2)]


@durable_job(retries=999, backoff=NOW, call_backoff=NOW)
def undo(ledger: str, number: int) -> str:
    """What a failure has to be followed by."""
    return call(effect, ledger, f"undo-{number}")


@durable_job(retries=999, backoff=NOW, call_backoff=NOW)
def rich(ledger: str, number: int, *, fails: bool) -> list[int | str]:
    """Go through all of it; fail at the end if asked to."""
    call(effect, ledger, f"first-{number}")
    compensate(undo, ledger, number)
    call(inner, ledger, number)
    sleep(0.05)
    word = wait_for_message("go")
    squares = gather(square.s(ledger, number, 2), square.s(ledger, number, 3)).values()
    booked = book(number)
    if fails:
        raise NoRetry("in the end")
    return [word, *squares, booked]
