"""Two layers of retries (A7) and what a job's code may order about them (A5)."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

import pytest

from django_durable_jobs import Backoff, NoRetry, RetryAfter, Snooze, call, current_job, durable_job
from django_durable_jobs.models import Attempt
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Snoozed
from tests.durable.running import COMMITS, NOW, Runner, row, stored

pytestmark = COMMITS

RAN: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()


def failing() -> None:
    RAN["failing"] += 1
    raise ValueError("always")


def second_time() -> str:
    RAN["second_time"] += 1
    if RAN["second_time"] < 2:
        raise ValueError("once")
    return "done"


@durable_job(call_retries=1, call_backoff=NOW)
def with_own_call_retries() -> None:
    RAN["with_own_call_retries"] += 1
    call(failing)


# The job's own retries --------------------------------------------------------------------------------------------


def test_a7_two_retries_are_three_attempts(runner: Runner) -> None:
    job = runner.enqueue(failing, retries=2)
    assert row(job).max_attempts == 3
    kinds = [type(runner.attempt()) for _ in range(3)]
    assert kinds == [BackedOff, BackedOff, Failed]
    assert RAN == {"failing": 3}
    assert list(Attempt.objects.order_by("number").values_list("number", "error")) == [
        (number, "ValueError: always") for number in (1, 2, 3)
    ]


def test_a7_no_retries_are_one_attempt(runner: Runner) -> None:
    job = runner.enqueue(failing, retries=0)
    assert isinstance(runner.attempt(), Failed)
    assert (row(job).status, row(job).attempt) == ("failed", 1)


def test_a7_the_delay_between_attempts_follows_the_jobs_back_off(runner: Runner) -> None:
    runner.enqueue(failing, backoff=Backoff.fixed(timedelta(seconds=40)))
    outcome = runner.run(runner.claim())
    assert isinstance(outcome, BackedOff)
    assert outcome.delay == timedelta(seconds=40)


# The call's retries -----------------------------------------------------------------------------------------------


def test_a7_a_call_is_repeated_three_times_inside_one_attempt(runner: Runner) -> None:
    def script() -> None:
        call(failing)

    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    assert RAN == {"failing": 4}
    assert row(job).attempt == 1
    assert stored(job) == []


def test_a7_a_call_that_succeeds_at_a_repeat_is_stored_once(runner: Runner) -> None:
    def script() -> str:
        return call(second_time)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert RAN == {"second_time": 2}
    assert stored(job) == [("1", "second_time")]


def test_a7_the_calls_back_off_passes_inside_the_attempt(runner: Runner) -> None:
    def script() -> str:
        began = time.monotonic()
        call.using(backoff=Backoff.fixed(timedelta(seconds=0.2)))(second_time)
        return f"{time.monotonic() - began:.2f}"

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Completed)
    assert 0.2 <= float(job.result()) < 5
    assert row(job).attempt == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_a7_using_sets_the_repeats_of_one_call(runner: Runner, retries: int) -> None:
    def script() -> None:
        call.using(retries=retries)(failing)

    runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    assert {"failing": retries + 1} == RAN


def test_a7_call_retries_of_a_job_are_for_the_calls_inside_it(runner: Runner) -> None:
    def script() -> None:
        call.using(retries=0)(with_own_call_retries)

    runner.enqueue(script, retries=0, call_retries=5)
    assert isinstance(runner.attempt(), Failed)
    assert RAN == {"with_own_call_retries": 1, "failing": 2}


def test_a7_call_retries_of_one_enqueue_are_for_its_calls(runner: Runner) -> None:
    def script() -> None:
        call(failing)

    runner.enqueue(script, retries=0, call_retries=1)
    assert isinstance(runner.attempt(), Failed)
    assert RAN == {"failing": 2}


def test_a7_both_layers_multiply(runner: Runner) -> None:
    def script() -> None:
        call.using(retries=2)(failing)

    runner.enqueue(script, retries=1)
    assert [type(runner.attempt()) for _ in range(2)] == [BackedOff, Failed]
    assert RAN == {"failing": 6}


# Orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (ValueError("bad input"), "ValueError: bad input"),
        ("bad input", "bad input"),
        (None, "the job asked for no retry"),
    ],
)
def test_a5_no_retry_fails_at_once(runner: Runner, reason: ValueError | str | None, error: str) -> None:
    def script() -> None:
        raise NoRetry(reason) if reason is not None else NoRetry

    job = runner.enqueue(script, retries=5)
    assert isinstance(runner.attempt(), Failed)
    assert (row(job).status, row(job).attempt, row(job).last_error) == ("failed", 1, error)
    assert "raise NoRetry" in Attempt.objects.get().traceback


@pytest.mark.parametrize("delay", [90, timedelta(seconds=90)])
def test_a5_retry_after_sets_the_delay_and_counts_the_attempt(runner: Runner, delay: timedelta | int) -> None:
    def script() -> None:
        raise RetryAfter(delay, ValueError("busy"))

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, BackedOff)
    assert outcome.delay == timedelta(seconds=90)
    found = row(job)
    assert (found.status, found.attempt, found.last_error) == ("retrying", 1, "ValueError: busy")
    finished = Attempt.objects.get().finished_at
    assert found.run_at is not None
    assert timedelta(seconds=89) < found.run_at - finished < timedelta(seconds=91)


def test_a5_retry_after_in_the_last_attempt_fails(runner: Runner) -> None:
    def script() -> None:
        raise RetryAfter(0)

    job = runner.enqueue(script, retries=1)
    assert [type(runner.attempt()) for _ in range(2)] == [BackedOff, Failed]
    assert row(job).status == "failed"


def test_a5_snooze_comes_back_without_using_an_attempt(runner: Runner) -> None:
    attempts: list[int] = []

    def script() -> str:
        attempts.append(current_job().attempt)
        if len(attempts) < 5:
            raise Snooze(0)
        return "awake"

    job = runner.enqueue(script, retries=1)
    outcomes = [runner.attempt() for _ in range(5)]
    assert outcomes == [Snoozed(timedelta(0))] * 4 + [Completed('"awake"')]
    assert attempts == [1] * 5
    assert row(job).attempt == 1
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("order", [NoRetry("stop"), RetryAfter(7, "later"), Snooze(7)], ids=repr)
def test_a5_an_order_inside_a_call_goes_to_the_job_and_is_not_repeated(runner: Runner, order: Exception) -> None:
    def ordering() -> None:
        RAN["ordering"] += 1
        raise order

    def script() -> None:
        call(ordering)

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert RAN == {"ordering": 1}
    assert stored(job) == []
    expected = {NoRetry: Failed, RetryAfter: BackedOff, Snooze: Snoozed}[type(order)]
    assert isinstance(outcome, expected)
    if isinstance(outcome, BackedOff | Snoozed):
        assert outcome.delay == timedelta(seconds=7)


def test_i14_an_order_that_the_code_caught_is_as_final_as_any_error(runner: Runner) -> None:
    def ordering() -> None:
        RAN["ordering"] += 1
        raise NoRetry(ValueError("stop"))

    def script() -> str:
        try:
            call(ordering)
        except NoRetry as order:
            return f"{order.reason!r} {call(second_time)}"
        return "not here"

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert stored(job) == [("1", "ordering!"), ("2", "second_time")]
    assert runner.attempt(rescued=True) == Completed("\"ValueError('stop') done\"")
    assert RAN == {"ordering": 1, "second_time": 2}
