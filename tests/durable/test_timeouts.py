"""Time limits that ask: of an attempt, of a call, and of an async job (soft timeouts)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import acall, call, durable_job
from django_durable_jobs.errors import OptionError, TimedOut
from django_durable_jobs.options import Options
from django_durable_jobs.outcomes import BackedOff, Completed, Failed
from tests.durable.running import COMMITS, Runner

pytestmark = COMMITS

LEDGER: list[str] = []
LONG, SHORT = timedelta(hours=1), timedelta(milliseconds=50)


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


def note(what: str) -> str:
    LEDGER.append(what)
    return what


def endless() -> None:
    """Make calls until somebody stops it."""
    while True:
        call(note, "again")


def test_an_attempt_that_takes_too_long_fails_at_its_next_call(runner: Runner) -> None:
    runner.enqueue(endless, timeout=SHORT)
    outcome = runner.attempt()
    assert isinstance(outcome, BackedOff)
    assert outcome.failure.error.startswith("TimedOut")
    assert LEDGER


def test_an_attempt_within_its_time_completes(runner: Runner) -> None:
    runner.enqueue(lambda_free, timeout=LONG)
    assert runner.attempt() == Completed('"done"')


def lambda_free() -> str:
    return call.using(timeout=LONG)(note, "done")


def test_each_attempt_has_the_whole_time(runner: Runner) -> None:
    runner.enqueue(endless, timeout=SHORT, retries=1)
    assert isinstance(runner.attempt(), BackedOff)
    before = len(LEDGER)
    assert isinstance(runner.attempt(), Failed)
    assert len(LEDGER) > before


def test_a_call_that_takes_too_long_fails_as_a_call(runner: Runner) -> None:
    def script() -> str:
        try:
            call.using(timeout=SHORT, retries=0)(endless)
        except TimedOut:
            return call(note, "caught")
        return "never"

    runner.enqueue(script)
    assert runner.attempt() == Completed('"caught"')


@durable_job(timeout=SHORT, call_retries=0)
def limited() -> None:
    endless()


def test_a_durable_job_that_is_called_keeps_its_own_limit(runner: Runner) -> None:
    def script() -> str:
        try:
            call.using(retries=0)(limited)
        except TimedOut:
            return "caught"
        return "never"

    runner.enqueue(script)
    assert runner.attempt() == Completed('"caught"')


def test_the_time_of_the_attempt_bounds_that_of_its_calls(runner: Runner) -> None:
    def script() -> None:
        call.using(timeout=LONG, retries=50)(endless)

    runner.enqueue(script, timeout=SHORT, retries=0)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith("TimedOut")


def test_an_async_job_is_ended_where_it_waits(runner: Runner) -> None:
    async def script() -> None:
        await asyncio.Event().wait()

    runner.enqueue(script, timeout=SHORT, retries=0)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith("TimedOut")


def test_an_async_call_is_ended_where_it_waits(runner: Runner) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def script() -> str:
        try:
            await acall.using(timeout=SHORT, retries=0)(hang)
        except TimedOut:
            return await acall(note, "caught")
        return "never"

    runner.enqueue(script)
    assert runner.attempt() == Completed('"caught"')


def test_an_error_of_the_jobs_own_that_is_called_timeout_stays_what_it_is(runner: Runner) -> None:
    async def script() -> None:
        raise TimeoutError("of the job's own")

    runner.enqueue(script, timeout=LONG, retries=0)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error == "TimeoutError: of the job's own"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**12, "soon", True, timedelta.max])
def test_n6_a_limit_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="timeout"):
        Options().changed({"timeout": value})
    with pytest.raises(OptionError, match="timeout"):
        call.using(timeout=value)
