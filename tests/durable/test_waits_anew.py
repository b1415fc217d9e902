"""A wait whose ``TimedOut`` ended the attempt begins anew in the next one (I14), as a gather does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import (
    TimedOut,
    approve,
    await_for_approval,
    await_for_event,
    await_for_message,
    call,
    emit,
    pending_approvals,
    retry,
    send_message,
    wait_for_approval,
    wait_for_event,
    wait_for_message,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.errors import ApprovalExpired
from django_durable_jobs.models import Approval, EventWait
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Parked
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import noop

pytestmark = COMMITS

HOUR = timedelta(hours=1)


def message() -> bool:
    return bool(wait_for_message("go", timeout=HOUR))


def event() -> bool:
    return bool(wait_for_event("go", timeout=HOUR))


def approval() -> bool:
    return bool(wait_for_approval("go", timeout=HOUR))


async def amessage() -> bool:
    return bool(await await_for_message("go", timeout=HOUR))


async def aevent() -> bool:
    return bool(await await_for_event("go", timeout=HOUR))


async def aapproval() -> bool:
    return bool(await await_for_approval("go", timeout=HOUR))


def give(job: JobHandle[Any], script: Callable[[], Any]) -> None:
    """Give a job what it waits for."""
    if script in (message, amessage):
        send_message(job, "go", True)
    elif script in (event, aevent):
        emit("go", True)
    else:
        approve(pending_approvals(job).get())


def pass_by(runner: Runner, dialect: Dialect, hours: float = 1) -> None:
    dialect.clock_offset += hours * HOUR
    runner.promote()


SCRIPTS = pytest.mark.parametrize("script", [message, event, approval, amessage, aevent, aapproval])


@SCRIPTS
def test_i14_the_next_attempt_has_the_whole_time_again(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = runner.enqueue(script, retries=2)
    first = runner.attempt()
    for _ in range(2):
        assert isinstance(first, Parked)
        assert first.until is not None
        pass_by(runner, dialect)
        assert isinstance(runner.attempt(), BackedOff)
        then = runner.attempt()
        assert isinstance(then, Parked)
        assert then.until is not None
        assert first.until + HOUR <= then.until <= dialect.now() + HOUR
        pass_by(runner, dialect, 0.5)
        runner.wake(job)
        again = runner.attempt()
        assert isinstance(again, Parked)
        assert again.until == then.until, "the time that began anew is fixed too"
        dialect.clock_offset -= HOUR / 2
        first = then
    give(job, script)
    assert runner.attempt() == Completed("true")
    assert not EventWait.objects.exists()
    assert not pending_approvals().exists()


@SCRIPTS
def test_an_order_to_retry_a_job_that_such_a_wait_has_failed_lets_it_wait_again(
    runner: Runner, dialect: Dialect, script: Any
) -> None:
    job = runner.enqueue(script, retries=0)
    runner.attempt()
    pass_by(runner, dialect)
    assert isinstance(runner.attempt(), Failed)
    retry(job.id)
    assert isinstance(runner.attempt(), Parked)
    give(job, script)
    assert runner.attempt() == Completed("true")


def test_the_question_that_is_asked_anew_is_another_one(runner: Runner, dialect: Dialect) -> None:
    runner.enqueue(approval, retries=1)
    runner.attempt()
    pass_by(runner, dialect)
    runner.attempt()
    runner.attempt()
    old, new = Approval.objects.order_by("id")
    assert (old.decision, new.decision) == ("expired", None)
    with pytest.raises(ApprovalExpired):
        approve(old)
    approve(new)
    assert runner.attempt() == Completed("true")


@pytest.mark.parametrize("wait", [message, event, approval])
def test_i14_an_error_that_the_code_caught_is_final(runner: Runner, dialect: Dialect, wait: Any) -> None:
    failing = [True, False]

    def script() -> str:
        try:
            wait()
        except TimedOut as error:
            call(noop, 1)
            if failing.pop(0):
                raise OSError("once") from error
            return "too late"
        return "in time"

    job = runner.enqueue(script, retries=1)
    runner.attempt()
    pass_by(runner, dialect)
    assert isinstance(runner.attempt(), BackedOff)
    assert runner.attempt() == Completed('"too late"')
    assert ("1", "go!") in stored(job)
    assert Approval.objects.count() == (wait is approval)


@pytest.mark.parametrize("point", ["before-step", "after-step"])
@pytest.mark.parametrize("at", [1, 2])
@SCRIPTS
def test_i17_killed_while_the_time_begins_anew_it_does_so_once(
    runner: Runner, dialect: Dialect, script: Any, point: str, at: int
) -> None:
    job = runner.enqueue(script, retries=2)
    runner.attempt()
    pass_by(runner, dialect)
    assert isinstance(runner.attempt(), BackedOff)
    # The attempt takes two steps: it begins anew, and looks.
    runner.attempt_until_killed(point, at=at)
    assert isinstance(runner.attempt(rescued=True), Parked)
    assert Approval.objects.filter(decision=None).count() == (script in (approval, aapproval))
    give(job, script)
    assert runner.attempt() == Completed("true")
    assert row(job).status == "completed"


def test_branches_begin_anew_each_for_itself(runner: Runner, dialect: Dialect) -> None:
    async def script() -> list[Any]:
        beside = asyncio.ensure_future(await_for_message("b", timeout=3 * HOUR))
        return [await await_for_message("a", timeout=HOUR), await beside]

    job = runner.enqueue(script, retries=1)
    runner.attempt()
    pass_by(runner, dialect)
    assert isinstance(runner.attempt(), BackedOff)
    pass_by(runner, dialect, 0.5)
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    assert outcome.until is not None
    assert outcome.until > dialect.now() + HOUR / 2
    send_message(job, "a", 1)
    send_message(job, "b", 2)
    assert runner.attempt() == Completed("[1,2]")
