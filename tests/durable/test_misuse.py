"""Durable calls in places where they cannot work: refused with what to do instead."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from django_durable_jobs import acall, call, current_job
from django_durable_jobs.durable.call import idempotency_key
from django_durable_jobs.errors import NotInJob
from django_durable_jobs.outcomes import Completed, Failed
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import add

pytestmark = COMMITS


@pytest.mark.parametrize("tried", [lambda: call(add, 1, 2), current_job, idempotency_key])
def test_outside_of_a_job_it_is_said_so(tried: Callable[[], Any]) -> None:
    with pytest.raises(NotInJob, match=r"works inside a running durable job only.*Call the function plainly"):
        tried()


async def test_acall_outside_of_a_job_is_refused_when_it_is_made() -> None:
    with pytest.raises(NotInJob, match=r"^acall\(\) works inside a running durable job only"):
        acall(add, 1, 2)


def test_acall_without_an_event_loop_says_to_write_call(runner: Runner) -> None:
    def script() -> None:
        acall(add, 1, 2)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert "write `call(...)` in a sync job" in str(row(job).last_error)


def test_call_in_an_async_job_says_to_write_acall(runner: Runner) -> None:
    async def script() -> None:
        call(add, 1, 2)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert "write `await acall(...)`" in str(row(job).last_error)
    assert row(job).attempt == 1


def test_a_thread_that_the_job_starts_is_not_in_the_job(runner: Runner) -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            call(add, 1, 2)
        except BaseException as error:  # noqa: BLE001 -- looked at below
            errors.append(error)

    def script() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert isinstance(errors[0], NotInJob)
    assert stored(job) == []


def test_a_thread_with_the_jobs_context_may_not_call_since_the_order_would_be_chance(runner: Runner) -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        assert current_job().attempt == 1  # reading is allowed
        try:
            call(add, 1, 2)
        except NotInJob as error:
            errors.append(error)

    def script() -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=[elsewhere])
        thread.start()
        thread.join()

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert "made in another thread or task" in str(errors[0])
    assert stored(job) == []


def test_a_task_of_an_async_job_may_not_call_on_its_own(runner: Runner) -> None:
    async def branch(n: int) -> int:
        return await acall(add, n, n)

    async def script() -> list[int]:
        return list(await asyncio.gather(branch(1), branch(2)))

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert "gather(acall(branch, 1), acall(branch, 2))" in str(row(job).last_error)
    assert stored(job) == []


async def branch_with_calls(n: int) -> int:
    first = await acall(add, n, n)
    return await acall(add, first, n)


def test_branches_that_are_calls_themselves_have_an_order_of_their_own(runner: Runner) -> None:
    async def script() -> list[int]:
        return list(await asyncio.gather(acall(branch_with_calls, 1), acall(branch_with_calls, 10)))

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("[3,30]")
    inner = [(f"{n}.{m}", "add") for n in (1, 2) for m in (1, 2)]
    assert stored(job) == sorted([("1", "branch_with_calls"), ("2", "branch_with_calls"), *inner])


def nest(levels: int) -> int:
    return 0 if levels == 0 else 1 + call.using(retries=0)(nest, levels - 1)


def test_calls_nest_as_deep_as_the_setting_says_and_no_deeper(runner: Runner) -> None:
    def allowed() -> int:
        return nest(5)

    def too_deep() -> int:
        return nest(6)

    with override_settings(DURABLE_JOBS={"CALL_DEPTH": 5}):
        job = runner.enqueue(allowed)
        assert runner.attempt() == Completed("5")
        assert [key for key, _ in stored(job)] == ["1", "1.1", "1.1.1", "1.1.1.1", "1.1.1.1.1"]
        job = runner.enqueue(too_deep)
        assert isinstance(runner.attempt(), Failed)
    assert "nested deeper than 5 levels" in str(row(job).last_error)
    assert row(job).attempt == 1


def test_the_deepest_nesting_that_the_setting_can_allow_fits_the_key(runner: Runner) -> None:
    def script() -> int:
        return nest(90)

    with override_settings(DURABLE_JOBS={"CALL_DEPTH": 200}):
        job = runner.enqueue(script)
        assert runner.attempt() == Completed("90")
    assert max(len(key) for key, _ in stored(job)) == 179


def test_nesting_whose_key_would_not_fit_is_refused_before_it_runs(runner: Runner) -> None:
    def script() -> int:
        return nest(99)

    with override_settings(DURABLE_JOBS={"CALL_DEPTH": 200}):
        job = runner.enqueue(script)
        assert isinstance(runner.attempt(), Failed)
    assert "nested deeper" in str(row(job).last_error)


def test_the_key_for_outside_systems_is_the_same_in_every_attempt(runner: Runner) -> None:
    keys: list[Any] = []

    def charge() -> None:
        keys.append(idempotency_key())

    def script() -> None:
        keys.append(idempotency_key())
        call(charge)
        call(charge)

    runner.enqueue(script)
    runner.attempt_until_killed("before-checkpoint", at=2)
    assert isinstance(runner.attempt(rescued=True), Completed)
    job, first, second, job_again, second_again = keys
    assert (job_again, second_again) == (job, second)
    assert len({job, first, second}) == 3
