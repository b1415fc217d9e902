"""Fan-out and fan-in: children stored once, waited for without a slot, their outcome kept (A12, I14, I15)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import ChildFailed, agather, call, gather, retry, threshold
from django_durable_jobs.durable.results import Results
from django_durable_jobs.errors import ArgumentError, NotInJob, OptionError
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Checkpoint, Job, Queue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Parked
from tests.durable.family import FAILING, RAN, Doubled, children_of, double, halve, run_all
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import noop

pytestmark = COMMITS

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    FAILING.clear()
    SEEN.clear()


def three() -> list[int]:
    results = gather(double.s(1), double.s(2), double.s(3))
    SEEN.append(results)
    return [one.value for one in results.values()]


async def async_three() -> list[int]:
    results = await agather(double.s(1), double.s(2), double.s(3))
    SEEN.append(results)
    return [one.value for one in results.values()]


def collect() -> list[str]:
    results = gather(double.s(1), double.s(2), double.s(3), strategy="collect_all")
    SEEN.append(results)
    return [status.value for status in results.statuses]


@pytest.mark.parametrize("script", [three, async_three])
def test_a12_children_run_as_jobs_and_their_results_come_in_call_order(runner: Runner, script: Any) -> None:
    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    parent = row(job)
    assert (parent.status, parent.attempt, parent.worker, parent.waiting_for) == ("waiting", 0, None, "children! 0/1")
    children = children_of(job)
    assert [(child.status, child.depth, child.parent_call) for child in children] == [
        ("pending", 1, "children! 0/1")
    ] * 3
    for number in (1, 2, 3):
        assert row(job).status == "waiting"
        runner.attempt()
        assert RAN[number] == 1
    assert row(job).status == "pending"
    assert runner.attempt() == Completed("[2,4,6]")
    (results,) = SEEN
    assert results.values() == [Doubled(1, 2), Doubled(2, 4), Doubled(3, 6)]
    assert [one.id for one in results] == [child.id for child in children]
    assert results.all_succeeded
    assert results.failures() == []
    assert row(job).attempt == 1
    assert stored(job) == [("1", "gather"), ("1.0", "gather")]


def test_i15_a_replay_gives_the_same_whatever_becomes_of_the_children_later(runner: Runner) -> None:
    def script() -> None:
        SEEN.append(gather(double.s(1), double.s(2), halve.s(3), strategy="collect_all"))
        if len(SEEN) == 1:
            raise OSError("once")

    FAILING.add(2)
    job = runner.enqueue(script)
    runner.attempt()
    for _ in range(3):
        runner.attempt()
    assert isinstance(runner.attempt(), BackedOff)
    FAILING.clear()
    retry(children_of(job)[1])
    Job.objects.filter(id=children_of(job)[0].id).update(result='{"$dataclass":{"of":9,"value":9}}')
    run_all(runner)
    first, second = SEEN
    assert first == second
    assert [one.status for one in second] == ["completed", "failed", "completed"]
    assert second[0].value == Doubled(1, 2)
    assert type(second[2].value) is float
    assert [one.error for one in second.failures()] == ["ValueError: not 2"]
    with pytest.raises(ChildFailed, match=r"Child 1 \(tests.durable.family.double, .*not 2"):
        second.values()
    assert children_of(job)[1].status == "completed"


def test_an_empty_gather_returns_at_once(runner: Runner) -> None:
    def script() -> list[int]:
        results: Results[int] = gather(strategy=threshold(1))
        assert results.all_succeeded
        return results.values()

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("[]")
    assert stored(job) == [("1", "gather")]


def test_children_may_fail_and_all_is_collected(runner: Runner) -> None:
    FAILING.update({1, 3})
    runner.enqueue(collect)
    assert run_all(runner)[-1] == Completed('["failed","completed","failed"]')
    assert [one.index for one in SEEN[0].failures()] == [0, 2]
    assert not SEEN[0].all_succeeded


def test_fail_fast_cancels_the_others_and_names_the_child(runner: Runner) -> None:
    FAILING.add(2)
    job = runner.enqueue(three, retries=0)
    runner.attempt()
    runner.attempt()
    runner.attempt()
    assert row(job).status == "pending"
    Job.objects.filter(id=children_of(job)[2].id).update(status="scheduled", run_at="2100-01-01T00:00:00Z")
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "ChildFailed: Child 1 of 3 (tests.durable.family.double, " in outcome.failure.error
    assert "is failed: ValueError: not 2." in outcome.failure.error
    assert [child.status for child in children_of(job)] == ["completed", "failed", "cancelled"]
    assert children_of(job)[2].last_error == f"cancelled by its parent {job.id}"
    assert RAN[3] == 0


@pytest.mark.parametrize(
    ("share", "failing", "ok"), [(0.7, 3, True), (0.7, 4, False), (1, 0, True), (1, 1, False), (0.1, 9, True)]
)
def test_a_threshold_waits_for_all_and_counts(runner: Runner, share: float, failing: int, ok: bool) -> None:
    def script() -> int:
        return len(gather(*(double.s(n) for n in range(10)), strategy=threshold(share)).failures())

    FAILING.update(range(failing))
    runner.enqueue(script, retries=0)
    outcomes = run_all(runner)
    assert sum(RAN.values()) == 10
    assert len(outcomes) == 12
    if ok:
        assert outcomes[-1] == Completed(str(failing))
    else:
        assert isinstance(outcomes[-1], Failed)
        assert f"{10 - failing} of 10 children succeeded, but a share of {share:g} must." in outcomes[-1].failure.error


def test_i14_the_next_attempt_runs_the_children_again_that_failed_and_no_others(runner: Runner) -> None:
    FAILING.add(2)
    job = runner.enqueue(three, retries=2)
    for _ in range(3):
        runner.attempt()
    assert isinstance(runner.attempt(), BackedOff)  # the parent, beside child 3, which it has cancelled
    assert [child.status for child in children_of(job)] == ["completed", "failed", "cancelled"]
    FAILING.clear()
    assert isinstance(runner.attempt(), Parked)
    assert run_all(runner)[-1] == Completed("[2,4,6]")
    assert RAN == {1: 1, 2: 2, 3: 1}
    assert len(children_of(job)) == 3
    assert row(job).attempt == 2


def test_i14_an_order_to_retry_a_failed_parent_runs_its_failed_children_again(runner: Runner) -> None:
    FAILING.update({1, 2, 3})
    job = runner.enqueue(three, retries=1)
    outcomes = run_all(runner)
    assert isinstance(outcomes[-1], Failed)
    assert row(job).status == "failed"
    FAILING.clear()
    retry(job.id)
    assert run_all(runner)[-1] == Completed("[2,4,6]")


def test_i14_an_error_that_the_code_caught_is_final(runner: Runner) -> None:
    def script() -> str:
        try:
            gather(double.s(1))
        except ChildFailed as error:
            SEEN.append(str(error))
        result = call(noop, 1)
        if len(SEEN) == 1:
            raise OSError("once")
        return str(result)

    FAILING.add(1)
    job = runner.enqueue(script)
    outcomes = run_all(runner)
    assert isinstance(outcomes[-1], Completed)
    assert SEEN[0] == SEEN[1]
    assert RAN == {1: 1}
    assert ("1", "gather!") in stored(job)


def test_a_retry_of_a_failed_child_while_its_parent_waits_opens_it_again(runner: Runner) -> None:
    FAILING.add(1)
    job = runner.enqueue(collect)
    runner.attempt()
    runner.attempt()
    FAILING.clear()
    retry(children_of(job)[0])
    assert run_all(runner)[-1] == Completed('["completed","completed","completed"]')


def test_options_hold_for_all_children_and_those_of_a_child_for_it(runner: Runner) -> None:
    def script() -> None:
        gather(double.using(retries=7, priority=3).s(1), halve.s(2), queue="elsewhere", retries=4, timeout=5)

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    assert outcome.until is not None
    assert [(child.queue, child.max_attempts, child.rank) for child in children_of(job)] == [
        ("elsewhere", 5, -3),
        ("elsewhere", 5, 0),
    ]
    assert Queue.objects.filter(name="elsewhere").exists()


# Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: gather([double.s(1)]), ArgumentError, "Argument 0 of gather.* is list.*Write gather\\(\\*invoc"),  # type: ignore[arg-type]
        (lambda: gather(double.s(1), double), ArgumentError, "Argument 1 .* is DurableJob.*Write job.s"),  # type: ignore[arg-type]
        (lambda: gather(double.s(1), strategy="some"), OptionError, "'fail_fast', 'collect_all' or threshold"),  # type: ignore[arg-type]
        (lambda: gather(double.s(1), strategy=0.8), OptionError, "threshold\\(share\\), not 0.8"),  # type: ignore[arg-type]
        (lambda: threshold(0), OptionError, "more than 0 and at most 1"),
        (lambda: threshold(1.1), OptionError, "not 1.1"),
        (lambda: threshold(float("nan")), OptionError, "not nan"),
        (lambda: threshold(True), OptionError, "not True"),
        (lambda: gather(double.s(1), timeout=-1), OptionError, "gather.*timeout"),
        (lambda: gather(double.s(1), timeout=float("nan")), OptionError, "gather.*timeout"),
        (lambda: gather(double.s(1), timeout=0), OptionError, "longer than 0"),
        (lambda: gather(double.s(1), queue="a b"), OptionError, "queue 'a b'"),
        (lambda: gather(double.s(1), retries=-1), OptionError, "retries"),
        (lambda: gather(double.s(1), priority=101), OptionError, "priority"),
        (lambda: gather(double.s(1), double.s("x")), ArgumentError, "Job 1 of 2: .*expects int"),  # type: ignore[arg-type]
        (lambda: gather(double.using(id=new_job_id()).s(1)), OptionError, "Child 0 .* was given an id"),
    ],
)
def test_what_cannot_be_gathered_is_refused_and_nothing_stored(
    runner: Runner, make: Callable[[], Any], error: type[Exception], said: str
) -> None:
    def script() -> str:
        with pytest.raises(error, match=said):
            make()
        return "unharmed"

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"unharmed"')
    assert not Checkpoint.objects.exists()
    assert [one.id for one in Job.objects.all()] == [job.id]


def test_n33_a_child_cannot_be_its_own_ancestor(runner: Runner) -> None:
    def script() -> None:
        gather(double.using(id=job.id).s(1))

    job = runner.enqueue(script, retries=0)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "its own ancestor" in outcome.failure.error
    assert Job.objects.count() == 1


def test_x33_gather_inside_a_transaction_is_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            gather(double.s(1))

    runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "OpenTransaction" in outcome.failure.error
    assert Job.objects.count() == 1


def test_gather_outside_of_a_job_says_so() -> None:
    with pytest.raises(NotInJob, match=r"gather\(\)"):
        gather(double.s(1))


async def test_gather_in_an_async_job_says_what_to_write() -> None:
    with pytest.raises(NotInJob, match="agather"):
        gather(double.s(1))
    with pytest.raises(NotInJob, match="running durable job"):
        await agather(double.s(1))


def test_a_results_object_is_no_result_of_a_job(runner: Runner) -> None:
    def script() -> Any:
        return gather(double.s(1))

    runner.enqueue(script)
    outcome = run_all(runner)[-1]
    assert isinstance(outcome, Failed)
    assert "Results" in outcome.failure.error
