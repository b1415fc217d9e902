"""Waiting for a time: the moment is fixed once, no slot is held, and no attempt is used (A13)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import acall, asleep, asleep_until, call, sleep, sleep_until
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import NotInJob, OpenTransaction, OptionError
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.outcomes import Completed, Failed, Parked
from tests.durable.running import COMMITS, Runner, row, stored

pytestmark = COMMITS

LEDGER: list[str] = []
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


def note(what: str) -> str:
    LEDGER.append(what)
    return what


def sleeper() -> str:
    call(note, "before")
    sleep(HOUR)
    return call(note, "after")


async def async_sleeper() -> str:
    await acall(note, "before")
    await asleep(HOUR)
    return await acall(note, "after")


@pytest.mark.parametrize("script", [sleeper, async_sleeper])
def test_a_job_that_sleeps_holds_neither_slot_nor_attempt(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = runner.enqueue(script)
    began = dialect.now()
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    now = row(job)
    assert (now.status, now.waiting_for, now.attempt, now.worker) == ("waiting", "time", 0, None)
    assert now.run_at is not None
    assert began + HOUR <= now.run_at <= dialect.now() + HOUR
    dialect.clock_offset += HOUR
    runner.promote()
    assert runner.attempt() == Completed('"after"')
    assert LEDGER == ["before", "after"]
    done = row(job)
    assert (done.attempt, done.waiting_for) == (1, None)


def test_the_moment_is_fixed_at_the_first_attempt(runner: Runner, dialect: Dialect) -> None:
    job = runner.enqueue(sleeper)
    runner.attempt()
    first = row(job).run_at
    dialect.clock_offset += HOUR / 2
    runner.wake(job)
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    assert outcome.until == first == row(job).run_at
    assert LEDGER == ["before"]


def test_a_sleep_of_zero_and_a_moment_that_is_past_do_not_wait(runner: Runner) -> None:
    def script() -> str:
        sleep(0)
        sleep_until(datetime(2001, 1, 1, tzinfo=UTC))
        return "done"

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert stored(job) == [("1", "sleep"), ("2", "sleep_until")]


def test_sleeps_of_several_branches_end_one_by_one(runner: Runner, dialect: Dialect) -> None:
    async def branch(name: str, hours: int) -> str:
        await asleep(hours * HOUR)
        return await acall(note, name)

    async def script() -> list[str]:
        return list(await asyncio.gather(acall(branch, "late", 2), acall(branch, "early", 1), acall(note, "now")))

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    assert LEDGER == ["now"]
    first = row(job).run_at
    dialect.clock_offset += HOUR
    runner.promote()
    assert isinstance(runner.attempt(), Parked)
    assert LEDGER == ["now", "early"]
    assert first is not None
    assert (row(job).run_at or first) > first
    dialect.clock_offset += HOUR
    runner.promote()
    assert runner.attempt() == Completed('["late","early","now"]')
    assert LEDGER == ["now", "early", "late"]


async def sleeper_beside_calls() -> None:
    await asyncio.gather(asleep(HOUR), acall(note, "b"), acall(note, "c"))
    await acall(note, "after")


def test_a_call_beside_a_sleep_does_not_end_it(runner: Runner, dialect: Dialect) -> None:
    job = runner.enqueue(sleeper_beside_calls)
    assert isinstance(runner.attempt(), Parked)
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert (row(job).status, row(job).waiting_for) == ("waiting", "time")
    dialect.clock_offset += HOUR
    runner.promote()
    assert isinstance(runner.attempt(), Completed)
    assert LEDGER == ["b", "c", "after"]


def test_a_crash_after_a_call_beside_a_sleep_does_not_end_it(runner: Runner) -> None:
    runner.enqueue(sleeper_beside_calls)
    runner.attempt_until_killed("after-checkpoint", at=2)
    assert isinstance(runner.attempt(rescued=True), Parked)
    assert "after" not in LEDGER


@pytest.mark.parametrize("asleep_in", [9, 10])
def test_a_branch_does_not_stop_where_another_one_waits_whose_number_begins_with_its_own(
    runner: Runner, asleep_in: int
) -> None:
    told = asyncio.Event()

    async def branch(number: int) -> int:
        if number == asleep_in:
            try:
                await asleep(HOUR)
            finally:
                told.set()
        if number == 1:
            await told.wait()
            # The task in which the other branch was told to wait ends, and its end is looked at.
            await asyncio.sleep(0.05)
            await acall(note, "one goes on")
        return number

    async def script() -> list[int]:
        return await asyncio.gather(*(acall(branch, number) for number in range(1, 12)))

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    assert LEDGER == ["one goes on"]


@pytest.mark.parametrize("wait", [lambda: sleep(HOUR), lambda: call(note, "2")], ids=["sleep", "call"])
def test_code_that_swallows_a_wait_does_not_get_past_it(runner: Runner, wait: Any) -> None:
    def script() -> None:
        try:
            sleep(HOUR)
        except BaseException:  # noqa: BLE001 -- what the test is about
            note("swallowed")
        wait()
        note("passed")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    assert LEDGER == ["swallowed"]
    assert stored(job) == [("1", "sleep")]


def test_code_that_swallows_a_wait_and_returns_is_not_completed(runner: Runner) -> None:
    def script() -> None:
        try:
            sleep(HOUR)
        except BaseException:  # noqa: BLE001 -- what the test is about
            return

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)


@pytest.mark.parametrize("delay", [-1, float("nan"), 10**12, "soon", True])
def test_a_delay_that_is_none_is_refused_and_nothing_stored(runner: Runner, delay: Any) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="sleep"):
            sleep(delay)

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert not Checkpoint.objects.exists()


def test_a_moment_without_time_zone_is_refused(runner: Runner) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="time zone"):
            sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001 -- what the test is about

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)


def test_sleep_outside_of_a_job_says_so() -> None:
    with pytest.raises(NotInJob, match=r"sleep\(\)"):
        sleep(1)


async def test_sleep_in_an_async_job_says_what_to_write(runner: Runner) -> None:
    with pytest.raises(NotInJob, match="asleep"):
        sleep(1)
    with pytest.raises(NotInJob, match="running durable job"):
        await asleep(1)
    with pytest.raises(NotInJob, match="running durable job"):
        await asleep_until(datetime(2030, 1, 1, tzinfo=UTC))


def test_x33_a_sleep_inside_a_transaction_is_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            sleep(HOUR)

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert OpenTransaction.__name__ in outcome.failure.error
    assert stored(job) == []
