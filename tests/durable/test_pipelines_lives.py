"""What a lost worker does to the tries of a pipeline: nothing. What a failure or an order to retry does: all anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from django_durable_jobs import (
    NoRetry,
    Pipeline,
    acall,
    call,
    cancel,
    fork,
    gather,
    idempotency_key,
    retry,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import DefinitionError
from django_durable_jobs.operations.reports import RunReport
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.outcomes import Completed, Failed, Parked
from django_durable_jobs.states import FINAL
from tests.durable.running import COMMITS, LEASE, Runner, killed_at, row

pytestmark = COMMITS

LEDGER: list[Any] = []
FAILS: list[Exception] = []
"""What the next tries raise."""


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    LEDGER.clear()
    FAILS.clear()


def told(report: RunReport) -> None:
    LEDGER.append(f"told {report.outcome}")


def keys() -> tuple[UUID, UUID]:
    """Return the key of the task that runs, and that of a call in it."""
    return idempotency_key(), call(idempotency_key)


ends = Pipeline("lives-ends", retries=0, on_complete=told)
waits = Pipeline("lives-waits", retries=1, retry_interval=60.0)
again = Pipeline("lives-again", retries=2, retry_interval=0)
timed = Pipeline("lives-timed", retries=0, timeout=60)


@ends.task
def only(number: int) -> None:
    LEDGER.append("try")
    if FAILS:
        raise FAILS.pop(0)


@waits.task
def patient(number: int) -> None:
    only(number)


@again.task
def first(items: list[int]) -> None:
    items.append(1)
    LEDGER.append((list(items), keys()))
    if FAILS:
        raise FAILS.pop(0)


@again.task
def second(items: list[int]) -> None:
    LEDGER.append((list(items), keys()))


@timed.task
def quick(number: int) -> None:
    LEDGER.append("quick")


@timed.task
def fragile(number: int) -> None:
    only(number)


@pytest.mark.parametrize("error", [ValueError("once"), NoRetry("never")], ids=["fails", "wants no retry"])
def test_a_worker_that_is_lost_before_the_end_is_stored_gives_no_further_try(runner: Runner, error: Exception) -> None:
    FAILS.append(error)
    job = ends.enqueue(1)
    claimed = runner.claim()
    assert isinstance(runner.run(claimed), Failed)
    runner.lose(claimed)
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert LEDGER == ["try", "told failed"], "nothing runs twice, nobody is told twice"
    assert row(job).status == "failed"
    retry(job)
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["try", "told failed", "try", "told completed"]


def test_a_worker_that_is_lost_between_two_tries_gives_no_third(runner: Runner, dialect: Dialect) -> None:
    FAILS.extend([ValueError("one"), ValueError("two")])
    job = waits.enqueue(1)
    claimed = runner.claim()
    assert isinstance(runner.run(claimed), Parked)
    runner.lose(claimed)
    assert isinstance(runner.attempt(rescued=True), Parked)
    dialect.clock_offset += timedelta(seconds=61)
    runner.promote()
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["try", "try"]
    assert row(job).status == "failed"


@pytest.mark.parametrize("end", ["stale", "cancelled"])
def test_an_order_to_retry_gives_all_tries_anew_however_the_run_has_ended(
    runner: Runner, dialect: Dialect, end: str
) -> None:
    FAILS.append(ValueError("one"))
    job = ends.using(retries=0).enqueue(1)
    claimed = runner.claim()
    with killed_at("before-checkpoint", at=3):  # its failed try is stored, what it is told is not
        runner.run(claimed)
    runner.leases.end([claimed])
    if end == "cancelled":
        cancel(job)
    dialect.clock_offset += LEASE + timedelta(seconds=1)
    rescue()
    if end == "cancelled":
        runner.attempt(rescued=True)
    assert row(job).status == ("failed" if end == "stale" else "cancelled")
    report = job.report()
    assert report is not None
    assert report.outcome == ("failed_stale" if end == "stale" else "cancelled")
    retry(job)
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER.count("try") == 2


def test_each_try_has_the_arguments_as_they_were_given_and_the_key_of_its_task(runner: Runner) -> None:
    FAILS.extend([ValueError("one"), ValueError("two")])
    again.enqueue([])
    assert runner.attempt() == Completed('"completed"')
    seen = [items for items, _keys in LEDGER]
    assert seen == [[1], [1], [1], []]
    of_first, of_second = {found for _items, found in LEDGER[:3]}, LEDGER[3][1]
    assert len(of_first) == 1, "an outside system recognises the repeated request"
    assert len({*next(iter(of_first)), *of_second}) == 4, "and tells tasks and calls apart"


def test_a_fork_has_a_time_of_its_own(runner: Runner, dialect: Dialect) -> None:
    FAILS.append(ValueError("one"))
    old = timed.enqueue(1)
    assert isinstance(runner.attempt(), Failed)
    dialect.clock_offset += timedelta(seconds=100)
    new = fork(old, from_call="3")
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["quick", "try", "try"]
    before, after = old.report(), new.report()
    assert before is not None
    assert after is not None
    assert before.started_at is not None
    assert after.started_at is not None
    assert after.started_at - before.started_at > timedelta(seconds=90)


def test_a_pipeline_cannot_be_called(runner: Runner) -> None:
    def calls() -> None:
        call(ends.job, 1)

    def calls_by_name() -> None:
        call("lives-ends", 1)

    async def acalls() -> None:
        await acall(ends.job, 1)

    for script in (calls, calls_by_name, acalls):
        runner.enqueue(script, retries=0)
        outcome = runner.attempt()
        assert isinstance(outcome, Failed)
        assert "Use gather(pipeline.s(...)), or enqueue it." in outcome.failure.error
        assert outcome.failure.error.startswith(DefinitionError.__name__)
    assert LEDGER == []


def test_a_pipeline_can_be_gathered(runner: Runner) -> None:
    def parent() -> list[str]:
        return list(gather(ends.s(1)).values())

    handle = runner.enqueue(parent)
    runner.attempt()
    runner.attempt()
    runner.attempt()
    assert handle.result() == ["completed"]
    assert LEDGER == ["try", "told completed"]


worst = Pipeline("lives-worst", retries=1, retry_interval=0, on_complete=told)


@worst.task
def good(number: int) -> None:
    LEDGER.append("good")


@worst.task
def bad(number: int) -> None:
    LEDGER.append("bad")
    raise ValueError("each time")


@pytest.mark.parametrize("point", ["before-checkpoint", "after-checkpoint", "before-step", "after-step"])
def test_a_death_at_any_moment_changes_no_outcome_and_repeats_one_thing_at_most(runner: Runner, point: str) -> None:
    usual = ["good", "bad", "bad", "told failed"]
    for at in range(1, 30):
        LEDGER.clear()
        job = worst.enqueue(1)
        claimed = runner.claim()
        with killed_at(point, at=at) as reached:
            outcome = runner.run(claimed)
        if reached:
            runner.forget_connections()
            runner.lose(claimed)
        else:
            runner.finish(claimed, outcome)
        while job.status not in FINAL:
            runner.attempt(rescued=row(job).rescues > 0)
        report = job.report()
        assert (job.status, report and report.outcome) == ("failed", "failed"), at
        assert report is not None
        assert [len([one for one in task.attempts if one.finished_at]) for task in report.tasks] == [1, 2], at
        assert sorted(set(LEDGER)) == sorted(set(usual)), at
        assert len(LEDGER) <= len(usual) + 1, (at, LEDGER)
        if not reached:
            assert at > 3
            return
    raise AssertionError("it never came through")
