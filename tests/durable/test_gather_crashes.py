"""Fan-out across crashes, lost answers and changed code: nothing is spawned twice or mixed up (I13, I17, A4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from django_durable_jobs import Invocation, agather, call, gather
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations.wake import wake_forgotten
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Parked
from tests.durable.family import FAILING, RAN, children_of, double, halve, run_all
from tests.durable.running import COMMITS, Runner, killed_at, row
from tests.reliability.outages import lose_answers, options, working
from tests.waiting import eventually

pytestmark = COMMITS

GIVEN: list[Invocation[Any]] = []
"""What the script gathers: the test changes it between attempts."""
FAIL_AFTER: list[str] = []
LOST_SHARE = 0.2


@pytest.fixture(autouse=True)
def _begin() -> None:
    RAN.clear()
    FAILING.clear()
    FAIL_AFTER.clear()
    GIVEN[:] = [double.s(1), double.s(2), halve.s(3)]


def given() -> int:
    results = gather(*GIVEN, strategy="collect_all")
    if FAIL_AFTER:
        raise OSError(FAIL_AFTER.pop())
    return len(results)


# Determinism ------------------------------------------------------------------------------------------------------

CHANGES: list[Callable[[], Any]] = [
    lambda: GIVEN.append(double.s(4)),
    GIVEN.pop,
    GIVEN.reverse,
    lambda: GIVEN.__setitem__(0, halve.s(1)),
    GIVEN.clear,
]


@pytest.mark.parametrize("ended", [False, True], ids=["waiting", "ended"])
@pytest.mark.parametrize("change", CHANGES, ids=["more", "fewer", "order", "definition", "none"])
def test_a4_other_children_in_a_replay_are_refused(runner: Runner, change: Callable[[], Any], ended: bool) -> None:
    job = runner.enqueue(given)
    if ended:
        FAIL_AFTER.append("after the gather")
    runner.attempt()
    runner.attempt()
    runner.attempt()
    runner.attempt()
    if ended:
        assert isinstance(runner.attempt(), BackedOff)
    change()
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "NonDeterminism" in outcome.failure.error
    assert "3 children (2 x tests.durable.family.double, 1 x tests.durable.family.halve)" in outcome.failure.error
    assert f" ({__file__}:{given.__code__.co_firstlineno + 1}). What children" in outcome.failure.error
    assert len(children_of(job)) == 3


def test_a4_other_children_than_those_whose_failure_was_caught_are_refused(runner: Runner) -> None:
    def script() -> None:
        try:
            gather(*GIVEN)
        except Exception:  # noqa: BLE001 -- the second time it must not help
            call(sorted, [])
        if FAIL_AFTER:
            raise OSError(FAIL_AFTER.pop())

    FAILING.add(1)
    FAIL_AFTER.append("after the gather")
    runner.enqueue(script)
    runner.attempt()
    runner.attempt()
    assert isinstance(runner.attempt(), BackedOff)
    GIVEN.pop()
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "NonDeterminism" in outcome.failure.error


def test_other_arguments_in_a_replay_change_nothing(runner: Runner) -> None:
    runner.enqueue(given)
    runner.attempt()
    GIVEN[0] = double.s(100)
    assert run_all(runner)[-1] == Completed("3")
    assert RAN == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(("before", "after"), [("fail_fast", "collect_all"), ("collect_all", "fail_fast")])
def test_another_strategy_in_a_replay_neither_spins_nor_hides_errors(runner: Runner, before: Any, after: Any) -> None:
    strategy = [before]

    def script() -> None:
        gather(*GIVEN, strategy=strategy[0])

    FAILING.add(1)
    runner.enqueue(script, retries=0)
    runner.attempt()
    strategy[0] = after
    outcomes = run_all(runner)
    assert isinstance(outcomes[-1], Failed)
    assert "not 1" in outcomes[-1].failure.error
    assert len(outcomes) <= 4


# Crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before-step", "after-step"])
def test_i17_killed_around_the_spawn_every_child_runs_once(runner: Runner, point: str) -> None:
    job = runner.enqueue(given)
    runner.attempt_until_killed(point)
    assert len(children_of(job)) == (3 if point == "after-step" else 0)
    runner.attempt(rescued=True)
    assert row(job).status == "waiting"
    assert len(children_of(job)) == 3
    assert run_all_with_rescued(runner) == Completed("3")
    assert RAN == {1: 1, 2: 1, 3: 1}


def run_all_with_rescued(runner: Runner) -> Any:
    """Run until nothing is pending, whether it was rescued or not."""
    outcome: Any = None
    while (found := Job.objects.pending().order_by("id").first()) is not None:
        outcome = runner.attempt(rescued=found.rescues > 0)
    return outcome


@pytest.mark.parametrize("point", ["before-step", "after-step", "after-body"])
def test_killed_around_the_outcome_the_children_do_not_run_again(runner: Runner, point: str) -> None:
    runner.enqueue(given)
    for _ in range(4):
        runner.attempt()
    runner.attempt_until_killed(point)
    assert runner.attempt(rescued=True) == Completed("3")
    assert RAN == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("at", [1, 2])
def test_killed_while_it_gives_up_the_parent_gives_up_in_its_next_attempt(runner: Runner, at: int) -> None:
    def script() -> None:
        gather(*GIVEN)

    FAILING.add(1)
    job = runner.enqueue(script, retries=1)
    runner.attempt()
    runner.attempt()
    runner.attempt_until_killed("before-step", at=at)  # at its look, or at the note that it has failed
    outcome = runner.attempt(rescued=True)
    assert isinstance(outcome, Failed)
    assert "not 1" in outcome.failure.error
    assert [child.status for child in children_of(job)] == ["failed", "cancelled", "cancelled"]


def test_killed_between_the_end_of_a_child_and_the_look_the_parent_is_found(runner: Runner) -> None:
    job = runner.enqueue(given)
    for _ in range(3):
        runner.attempt()
    with pytest.raises(BaseException, match="before-wake"), killed_at("before-wake"):
        runner.attempt()
    assert [child.status for child in children_of(job)] == ["completed"] * 3
    assert row(job).status == "waiting"
    assert wake_forgotten() == 1
    assert wake_forgotten() == 0
    assert runner.attempt() == Completed("3")


def test_killed_between_the_end_of_a_child_and_the_look_a_parent_with_several_waits_is_found(
    runner: Runner, dialect: Dialect
) -> None:
    async def script() -> int:
        return sum(map(len, await asyncio.gather(agather(double.s(1)), agather(halve.s(2)))))

    job = runner.enqueue(script)
    runner.attempt()
    assert row(job).waiting_for == "several"
    dialect.clock_offset += timedelta(seconds=1)
    with pytest.raises(BaseException, match="before-wake"), killed_at("before-wake"):
        runner.attempt()
    assert wake_forgotten() == 1
    dialect.clock_offset += timedelta(seconds=1)
    assert isinstance(runner.attempt(), Parked)
    assert wake_forgotten() == 0
    dialect.clock_offset += timedelta(seconds=1)
    assert run_all(runner)[-1] == Completed("2")


# Lost answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["answer", "request", "conflict"])
@pytest.mark.parametrize("wave", [1, 5], ids=["spawn", "outcome"])
def test_a_commit_whose_answer_is_lost_spawns_nothing_twice(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, fate: str, wave: int
) -> None:
    job = runner.enqueue(given)
    for _ in range(wave - 1):
        runner.attempt()
    claimed = runner.claim()
    with monkeypatch.context() as patch:
        losses = lose_answers(patch, dialect, ("in_own_transaction",), lambda _door, nth: fate if nth == 1 else None)
        outcome = runner.run(claimed)
    assert losses.lost["in_own_transaction"] == 1
    runner.finish(claimed, outcome)
    if wave == 1:
        outcome = run_all(runner)[-1]
    assert outcome == Completed("3")
    assert RAN == {1: 1, 2: 1, 3: 1}
    assert len(children_of(job)) == 3
    assert Checkpoint.objects.filter(job_id=job.id).count() == 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_that_loses_answers_all_the_time_completes_a_family(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    doors = ("claim", "complete", "complete_and_claim", "in_own_transaction")
    GIVEN[:] = [double.s(n) for n in range(10)]
    job = runner.enqueue(given)
    fate = Random(seed)
    losses = lose_answers(
        monkeypatch, dialect, doors, lambda _door, _nth: "answer" if fate.random() < LOST_SHARE else None
    )
    with working(options()):
        eventually(lambda: row(job).status == "completed", seconds=30)
    assert sum(losses.lost.values()) > 0
    assert row(job).result == "10"
    assert len(children_of(job)) == 10
