"""Pipelines whose tasks run side by side, as jobs of their own (E7, E8)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import Pipeline, cancel, retry
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.models import Job
from django_durable_jobs.operations.reports import RunReport
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Failure, Parked
from tests.durable.family import run_all
from tests.durable.running import COMMITS, Runner, row

pytestmark = COMMITS

LEDGER: list[str] = []
FAIL: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _empty() -> None:
    for kept in (LEDGER, FAIL):
        kept.clear()


def _do(name: str) -> None:
    LEDGER.append(name)
    if FAIL.get(name, 0) > 0:
        FAIL[name] -= 1
        raise OSError(f"no {name}")


def left(day: str) -> None:
    _do("left")


async def middle(day: str) -> str:
    _do("middle")
    return day


def right(day: str) -> None:
    _do("right")


PIPELINES = {
    mode: Pipeline(
        f"parallel-{mode}",
        mode="parallel",
        on_failure=mode,
        retries=1,
        retry_interval=0,
        run_retries=1,
        timeout=3600,
    )
    for mode in ("fail_fast", "continue", "retry_on_failure")
}
for _pipeline in PIPELINES.values():
    for _function in (left, middle, right):
        _pipeline.task(_function)
modes = pytest.mark.parametrize("mode", PIPELINES)


def _report(job: JobHandle[Any]) -> RunReport:
    report = job.report()
    assert report is not None
    return report


def _statuses(job: JobHandle[Any]) -> list[tuple[str, str, int]]:
    return [(task.name, task.status, len(task.attempts)) for task in _report(job).tasks]


@modes
def test_tasks_run_side_by_side_and_are_reported(runner: Runner, mode: str) -> None:
    job = PIPELINES[mode].enqueue("monday")
    assert isinstance(runner.attempt(), Parked)
    assert Job.objects.filter(parent_id=job.id).count() == 3
    run_all(runner)
    assert sorted(LEDGER) == ["left", "middle", "right"]
    assert _report(job).outcome == "completed"
    assert _statuses(job) == [(name, "completed", 1) for name in ("left", "middle", "right")]
    for task in _report(job).tasks:
        (attempt,) = task.attempts
        assert attempt.started_at is not None
        assert attempt.finished_at is not None
        assert attempt.started_at <= attempt.finished_at


@modes
def test_a_task_that_fails_once_is_tried_again(runner: Runner, mode: str) -> None:
    FAIL["middle"] = 1
    job = PIPELINES[mode].enqueue("monday")
    run_all(runner)
    assert _report(job).outcome == "completed"
    assert _statuses(job)[1] == ("middle", "completed", 2)
    assert [attempt.error for attempt in _report(job).tasks[1].attempts] == ["OSError: no middle", None]


def test_continue_completes_with_errors(runner: Runner) -> None:
    FAIL["middle"] = 9
    job = PIPELINES["continue"].enqueue("monday")
    run_all(runner)
    assert row(job).status == "completed"
    assert job.result() == "completed_with_errors"
    assert _statuses(job) == [("left", "completed", 1), ("middle", "failed", 2), ("right", "completed", 1)]


def test_fail_fast_fails_and_a_retry_runs_what_did_not_succeed(runner: Runner) -> None:
    FAIL["left"] = 2
    job = PIPELINES["fail_fast"].enqueue("monday")
    run_all(runner)
    assert row(job).status == "failed"
    assert _report(job).outcome == "failed"
    assert _statuses(job)[0] == ("left", "failed", 2)
    done = {name for name, status, _tries in _statuses(job) if status == "completed"}
    LEDGER.clear()
    retry(job.id)
    run_all(runner)
    assert _report(job).outcome == "completed"
    assert set(LEDGER) == {"left", "middle", "right"} - done


def test_retry_on_failure_runs_the_failed_tasks_in_the_next_attempt(runner: Runner) -> None:
    FAIL["middle"] = 2
    job = PIPELINES["retry_on_failure"].enqueue("monday")
    outcomes = run_all(runner)
    assert any(isinstance(outcome, BackedOff) for outcome in outcomes)
    assert _report(job).outcome == "completed"
    assert sorted(LEDGER) == ["left", *["middle"] * 3, "right"]
    assert _statuses(job)[1] == ("middle", "completed", 3)


def test_a_run_that_takes_too_long_ends_as_timeout_and_its_tasks_are_cancelled(
    runner: Runner, dialect: Dialect
) -> None:
    job = PIPELINES["continue"].enqueue("monday")
    assert isinstance(runner.attempt(), Parked)
    Job.objects.filter(parent_id=job.id).update(queue="elsewhere")
    dialect.clock_offset += timedelta(hours=1)
    runner.promote()
    run_all(runner)
    assert (row(job).status, _report(job).outcome) == ("failed", "timeout")
    assert set(Job.objects.filter(parent_id=job.id).values_list("status", flat=True)) == {"cancelled"}
    assert _statuses(job) == [(name, "not_started", 0) for name in ("left", "middle", "right")]


def test_a_waiting_run_is_cancelled_with_its_tasks(runner: Runner) -> None:
    job = PIPELINES["fail_fast"].enqueue("monday")
    assert isinstance(runner.attempt(), Parked)
    cancel(job.id)
    assert row(job).status == "cancelled"
    assert _report(job).outcome == "cancelled"
    assert set(Job.objects.filter(parent_id=job.id).values_list("status", flat=True)) == {"cancelled"}


def test_a_run_that_goes_on_behind_its_tasks_still_reports_them(runner: Runner) -> None:
    """A new generation takes over what was gathered in the old one."""
    job = PIPELINES["fail_fast"].enqueue("monday")
    for _ in range(4):
        runner.attempt()
    claimed = runner.claim()
    assert isinstance(runner.run(claimed), Completed)
    runner.finish(claimed, Failed(Failure("the end was lost", "")))
    retry(job.id, from_call="3")
    assert isinstance(runner.attempt(), Completed)
    assert row(job).generation == 1
    assert _statuses(job) == [(name, "completed", 1) for name in ("left", "middle", "right")]


def test_a_run_whose_tasks_are_gathered_anew_reports_the_new_ones(runner: Runner) -> None:
    FAIL["middle"] = 2
    job = PIPELINES["fail_fast"].enqueue("monday")
    run_all(runner)
    assert row(job).status == "failed"
    retry(job.id, from_call="2")
    run_all(runner)
    assert (row(job).status, row(job).generation) == ("completed", 1)
    assert _statuses(job) == [(name, "completed", 1) for name in ("left", "middle", "right")]
    assert Job.objects.filter(parent_id=job.id).count() == 6


def test_a_run_that_is_cancelled_while_it_parks_says_so(runner: Runner) -> None:
    job = PIPELINES["fail_fast"].enqueue("monday")
    claimed = runner.claim()
    outcome = runner.run(claimed)
    assert isinstance(outcome, Parked)
    cancel(job.id)
    runner.finish(claimed, outcome)
    runner.attempt()
    assert (row(job).status, _report(job).outcome) == ("cancelled", "cancelled")
    assert _statuses(job) == [(name, "not_started", 0) for name in ("left", "middle", "right")]


@modes
@pytest.mark.parametrize("point", ["before-step", "after-step"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_x2_x5_killed_at_any_step_each_task_runs_once(runner: Runner, mode: str, point: str, at: int) -> None:
    job = PIPELINES[mode].enqueue("monday")
    runner.attempt_until_killed(point, at=at)
    while (pending := Job.objects.pending()).exists():
        runner.attempt(rescued=not pending.filter(rescues=0).exists())
    assert row(job).status == "completed"
    assert sorted(LEDGER) == ["left", "middle", "right"]
    assert _report(job).outcome == "completed"
