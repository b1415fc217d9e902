"""A job that runs again: stored calls do not, unfinished ones do (I13, I14, I17; X2 and X5 with fault points)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from django_durable_jobs import call
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.outcomes import BackedOff, Completed, Failed
from tests.durable.running import COMMITS, Runner, row, stored

pytestmark = COMMITS

RAN: Counter[str] = Counter()
FAIL: set[str] = set()


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    FAIL.clear()


def _step(name: str) -> str:
    RAN[name] += 1
    if name in FAIL:
        raise ValueError(name)
    return name


def one() -> str:
    return _step("one")


def two() -> str:
    return _step("two")


def three() -> str:
    return _step("three")


def outer() -> list[str]:
    _step("outer")
    return [call(one), call(two)]


def three_steps() -> str:
    return call(one) + call(two) + call(three)


def test_x5_killed_after_the_last_step_no_step_runs_again(runner: Runner) -> None:
    job = runner.enqueue(three_steps)
    runner.attempt_until_killed("after-body")
    assert runner.attempt(rescued=True) == Completed('"onetwothree"')
    assert RAN == {"one": 1, "two": 1, "three": 1}
    assert row(job).attempt == 2


@pytest.mark.parametrize("at", [1, 2, 3])
def test_x2_i17_killed_between_effect_and_checkpoint_only_that_step_runs_twice(runner: Runner, at: int) -> None:
    job = runner.enqueue(three_steps)
    runner.attempt_until_killed("before-checkpoint", at=at)
    assert len(stored(job)) == at - 1
    assert runner.attempt(rescued=True) == Completed('"onetwothree"')
    names = ["one", "two", "three"]
    assert {name: 2 if index == at - 1 else 1 for index, name in enumerate(names)} == RAN
    assert stored(job) == [("1", "one"), ("2", "two"), ("3", "three")]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_i14_killed_right_after_a_checkpoint_no_step_runs_again(runner: Runner, at: int) -> None:
    runner.enqueue(three_steps)
    runner.attempt_until_killed("after-checkpoint", at=at)
    assert runner.attempt(rescued=True) == Completed('"onetwothree"')
    assert RAN == {"one": 1, "two": 1, "three": 1}


def test_i14_a_failed_attempt_keeps_the_calls_before_the_failure(runner: Runner) -> None:
    def script() -> str:
        first = call(one)
        RAN["script"] += 1
        if RAN["script"] < 3:
            raise OSError("not yet")
        return first + call(two)

    runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert isinstance(runner.attempt(), BackedOff)
    assert runner.attempt() == Completed('"onetwo"')
    assert RAN == {"one": 1, "two": 1, "script": 3}


def test_i14_calls_inside_a_call_that_did_not_finish_are_not_repeated_in_the_next_attempt(runner: Runner) -> None:
    def script() -> list[str]:
        return call(outer)

    job = runner.enqueue(script)
    runner.attempt_until_killed("before-checkpoint", at=2)  # inside outer(), after its first call was stored
    assert stored(job) == [("1.1", "one")]
    assert runner.attempt(rescued=True) == Completed('["one","two"]')
    assert RAN == {"outer": 2, "one": 1, "two": 2}


def test_a_finished_call_is_replayed_without_asking_for_the_calls_inside_it(runner: Runner) -> None:
    def script() -> list[str]:
        return [*call(outer), call(three)]

    runner.enqueue(script)
    runner.attempt_until_killed("before-checkpoint", at=4)
    assert runner.attempt(rescued=True) == Completed('["one","two","three"]')
    assert RAN == {"outer": 1, "one": 1, "two": 1, "three": 2}


# Errors -----------------------------------------------------------------------------------------------------------


def caught_then_on() -> list[str]:
    got = []
    try:
        got.append(call.using(retries=0)(one))
    except ValueError as error:
        got.append(f"caught {error}")
    return [*got, call(two)]


def test_i14_an_error_that_the_code_caught_is_final(runner: Runner) -> None:
    FAIL.add("one")
    job = runner.enqueue(caught_then_on)
    runner.attempt_until_killed("after-body")
    assert stored(job) == [("1", "one!"), ("2", "two")]
    FAIL.clear()
    assert runner.attempt(rescued=True) == Completed('["caught one","two"]')
    assert RAN == {"one": 1, "two": 1}


def test_i14_an_error_that_ended_the_attempt_is_dropped_and_the_call_runs_again(runner: Runner) -> None:
    FAIL.add("two")

    def script() -> str:
        return call(one) + call.using(retries=0)(two)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert stored(job) == [("1", "one")]
    FAIL.clear()
    assert runner.attempt() == Completed('"onetwo"')
    assert RAN == {"one": 1, "two": 2}


def test_i14_an_error_that_was_raised_again_after_other_calls_stays_final(runner: Runner) -> None:
    FAIL.add("one")

    def script() -> None:
        try:
            call.using(retries=0)(one)
        except ValueError:
            call(two)
            raise

    job = runner.enqueue(script, retries=1)
    assert isinstance(runner.attempt(), BackedOff)
    assert stored(job) == [("1", "one!"), ("2", "two")]
    FAIL.clear()
    assert isinstance(runner.attempt(), Failed)
    assert RAN == {"one": 1, "two": 1}
    assert row(job).last_error == "ValueError: one"


def test_i14_an_error_that_the_code_caught_last_is_stored_when_the_job_returns(runner: Runner) -> None:
    FAIL.add("one")

    def script() -> str:
        try:
            return call.using(retries=0)(one)
        except ValueError:
            return "without"

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"without"')
    assert stored(job) == [("1", "one!")]


def _catching(around: Callable[[], list[str]]) -> list[str]:
    try:
        return around()
    except ValueError:
        return ["caught outside"]


def nested_caught() -> list[str]:
    return _catching(lambda: [call.using(retries=0)(one)])


def test_i14_an_error_caught_inside_a_call_is_not_kept_once_the_call_is(runner: Runner) -> None:
    FAIL.add("one")

    def script() -> list[str]:
        return [*call(nested_caught), call(two)]

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert stored(job) == [("1", "nested_caught"), ("2", "two")]
    FAIL.clear()
    assert runner.attempt(rescued=True) == Completed('["caught outside","two"]')
    assert RAN == {"one": 1, "two": 1}


def test_i14_an_error_that_passes_through_a_call_and_is_caught_outside_belongs_to_the_outer_call(
    runner: Runner,
) -> None:
    FAIL.add("two")

    def script() -> list[str]:
        return [*_catching(lambda: call.using(retries=0)(outer_once)), call(three)]

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert stored(job) == [("1", "outer_once!"), ("1.1", "one"), ("2", "three")]
    FAIL.clear()
    assert runner.attempt(rescued=True) == Completed('["caught outside","three"]')
    assert RAN == {"outer": 1, "one": 1, "two": 1, "three": 1}


def outer_once() -> list[str]:
    _step("outer")
    return [call(one), call.using(retries=0)(two)]


def test_i13_i17_a_repeat_of_an_outer_call_does_not_repeat_the_stored_calls_inside_it(runner: Runner) -> None:
    def failing_once() -> str:
        inner = call(one)
        RAN["failing_once"] += 1
        if RAN["failing_once"] == 1:
            raise OSError("once")
        return inner + call(two)

    def script() -> str:
        return call.using(retries=1)(failing_once)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"onetwo"')
    assert RAN == {"one": 1, "two": 1, "failing_once": 2}
    assert stored(job) == [("1", "failing_once"), ("1.1", "one"), ("1.2", "two")]


def test_i13_a_checkpoint_is_never_changed_by_a_late_writer(runner: Runner) -> None:
    runner.enqueue(three_steps)
    old = runner.claim()
    runner.lose(old)
    assert runner.attempt(rescued=True) == Completed('"onetwothree"')
    runner.leases.add([old])  # a zombie that has not learnt it yet
    outcome = runner.run(old)
    assert type(outcome).__name__ == "Lost"
    assert Checkpoint.objects.count() == 3
    assert RAN == {"one": 2, "two": 1, "three": 1}


def test_of_many_calls_in_loops_only_the_unfinished_one_runs_again(runner: Runner) -> None:
    def script() -> int:
        return sum(call(number) for _ in range(40)) + sum(call(another) for _ in range(40))

    runner.enqueue(script)
    runner.attempt_until_killed("before-checkpoint", at=80)
    assert runner.attempt(rescued=True) == Completed("80")
    assert RAN == {"number": 40, "another": 41}


def number() -> int:
    RAN["number"] += 1
    return 1


def another() -> int:
    RAN["another"] += 1
    return 1
