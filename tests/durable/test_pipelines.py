"""Pipelines: named tasks one after the other, their tries, the policy for failures, and the report (E7, E8)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.test.utils import override_settings

from django_durable_jobs import (
    Determinism,
    NoRetry,
    Pipeline,
    call,
    cancel,
    compensate,
    durable_job,
    faults,
    registry,
    retry,
    sleep,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.durable.pipeline import Run
from django_durable_jobs.errors import ArgumentError, DefinitionError, JobFailed, OptionError
from django_durable_jobs.models import Checkpoint, ExecutionReport
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.reports import RunReport
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.steps import cancelled
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Failed, Parked
from tests.durable.running import COMMITS, LEASE, Runner, killed_at, row, stored
from tests.waiting import elsewhere

pytestmark = COMMITS

LEDGER: list[str] = []
FAIL: dict[str, int] = {}
"""How often a task is still to fail."""
TOLD: list[Any] = []
ORDERS: dict[str, Any] = {}
"""What a task does besides."""


@pytest.fixture(autouse=True)
def _empty() -> None:
    for kept in (LEDGER, FAIL, TOLD, ORDERS):
        kept.clear()


def _do(name: str, day: str) -> str:
    LEDGER.append(name)
    if name in ORDERS:
        ORDERS[name]()
    if FAIL.get(name, 0) > 0:
        FAIL[name] -= 1
        raise OSError(f"no {name}")
    return f"{name} {day}"


def note_start(run: Run) -> None:
    TOLD.append(run)
    if FAIL.get("hooks"):
        raise OSError("no hook")


def note_end(report: RunReport) -> None:
    TOLD.append(report)
    if FAIL.get("hooks"):
        raise OSError("no hook")


def extract(day: str) -> str:
    return call.using(retries=0)(_do, "extract", day)


def load(day: str) -> str:
    return _do("load", day)


def publish(day: str) -> str:
    return _do("publish", day)


async def aextract(day: str) -> str:
    await asyncio.sleep(0)
    return _do("extract", day)


async def aload(day: str) -> str:
    return _do("load", day)


MODES = ("fail_fast", "continue", "retry_on_failure")
KINDS = ("sync", "async")


def _pipeline(kind: str, on_failure: Any, **settings: Any) -> Pipeline:
    name = f"{kind}-{on_failure}" + "".join(f"-{value}" for value in settings.values())
    hooks = {"on_start": note_start, "on_complete": note_end}
    pipeline = Pipeline(
        name.replace(":", ""), on_failure=on_failure, retry_interval=0, run_retries=1, **{**hooks, **settings}
    )
    for function in (extract, load) if kind == "sync" else (aextract, aload):
        pipeline.task(name=function.__name__.removeprefix("a"))(function)
    pipeline.task(publish)
    return pipeline


PIPELINES = {(kind, mode): _pipeline(kind, mode) for kind in KINDS for mode in MODES}
TIMED = {kind: _pipeline(kind, "fail_fast", timeout=60) for kind in KINDS}
PATIENT = Pipeline("patient", retry_interval=10, retry_factor=3, retries=2, timeout=timedelta(hours=1))
PATIENT.task(load)
both = pytest.mark.parametrize("kind", KINDS)
ALL = ["extract", "load", "publish"]


def _statuses(report: RunReport | None) -> list[tuple[str, str, int]]:
    assert report is not None
    return [(task.name, task.status, len(task.attempts)) for task in report.tasks]


@both
@pytest.mark.parametrize("mode", MODES)
def test_tasks_run_in_order_and_are_reported(runner: Runner, kind: str, mode: str, dialect: Dialect) -> None:
    before = dialect.now()
    job = PIPELINES[kind, mode].enqueue("monday")
    assert job.report() is None
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ALL
    report = job.report()
    assert report is not None
    assert (report.job_id, report.outcome, report.failures) == (job.id, "completed", ())
    assert _statuses(report) == [(name, "completed", 1) for name in ALL]
    assert report.started_at is not None
    times = [before, report.started_at]
    for task in report.tasks:
        (attempt,) = task.attempts
        assert (attempt.number, attempt.error) == (1, None)
        assert attempt.started_at is not None
        assert attempt.finished_at is not None
        times += [attempt.started_at, attempt.finished_at]
    assert times[:-1] == sorted(times[:-1])
    assert dialect.now() >= report.finished_at
    run, told = TOLD
    assert run == Run(job.id, job.definition, report.started_at, ("extract", "load", "publish"))
    assert told == report
    assert job.result() == "completed"


@both
def test_fail_fast_ends_the_run_with_the_first_task_that_failed(runner: Runner, kind: str) -> None:
    FAIL["load"] = 2
    job = PIPELINES[kind, "fail_fast"].enqueue("monday")
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error == f"TaskFailed: Task load of {kind}-fail_fast failed: OSError: no load"
    assert LEDGER == ["extract", "load", "load"]
    report = job.report()
    assert _statuses(report) == [("extract", "completed", 1), ("load", "failed", 2), ("publish", "not_started", 0)]
    assert report is not None
    assert [attempt.error for attempt in report.tasks[1].attempts] == ["OSError: no load"] * 2
    assert report.outcome == "failed"
    assert TOLD[-1].outcome == "failed"
    with pytest.raises(JobFailed, match="no load"):
        job.result()


@both
def test_continue_runs_the_others_and_completes_with_errors(runner: Runner, kind: str) -> None:
    FAIL["extract"] = 5
    job = PIPELINES[kind, "continue"].enqueue("monday")
    assert runner.attempt() == Completed('"completed_with_errors"')
    assert ["extract"] * (8 if kind == "sync" else 2) + ["load", "publish"] == LEDGER or kind == "sync"
    report = job.report()
    assert report is not None
    assert report.outcome == "completed_with_errors"
    assert [task.name for task in report.failures] == ["extract"]
    assert row(job).status == "completed"


@both
def test_a_task_whose_result_is_too_large_is_a_failed_task(runner: Runner, kind: str) -> None:
    # Small enough for itself, but not within what is stored of a try.
    job = PIPELINES[kind, "continue"].enqueue('"' * 400)
    with override_settings(DURABLE_JOBS={"RESULT_LIMIT": 1024}):
        assert runner.attempt() == Completed('"completed_with_errors"')
    assert _statuses(job.report()) == [("extract", "failed", 1), ("load", "failed", 1), ("publish", "failed", 1)]


@both
def test_retry_on_failure_tries_the_failed_task_in_the_next_attempt_and_keeps_the_others(
    runner: Runner, kind: str
) -> None:
    FAIL["load"] = 3
    job = PIPELINES[kind, "retry_on_failure"].enqueue("monday")
    assert isinstance(runner.attempt(), BackedOff)
    assert job.report() is None
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["extract", "load", "load", "load", "load", "publish"]
    assert _statuses(job.report()) == [
        ("extract", "completed", 1),
        ("load", "completed", 4),
        ("publish", "completed", 1),
    ]
    assert [type(told).__name__ for told in TOLD] == ["Run", "RunReport"]


@both
def test_best_effort_goes_another_way_where_a_task_was_exchanged(
    runner: Runner, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = PIPELINES[kind, "retry_on_failure"]
    FAIL["load"] = 2
    job = pipeline.using(determinism=Determinism.BEST_EFFORT).enqueue("mo")
    assert isinstance(runner.attempt(), BackedOff)
    monkeypatch.setattr(pipeline, "tasks", pipeline.tasks[::-1])
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["extract", "load", "load", "publish", "load", "extract"]
    assert row(job).generation == 1


@both
def test_retry_on_failure_fails_when_no_attempt_is_left(runner: Runner, kind: str) -> None:
    FAIL["load"] = 100
    job = PIPELINES[kind, "retry_on_failure"].enqueue("monday")
    assert isinstance(runner.attempt(), BackedOff)
    assert isinstance(runner.attempt(), Failed)
    assert ["extract", *["load"] * 4] == LEDGER
    assert _statuses(job.report())[1] == ("load", "failed", 4)


@both
def test_an_operator_who_retries_a_failed_run_has_its_failed_task_tried_again(runner: Runner, kind: str) -> None:
    FAIL["load"] = 2
    job = PIPELINES[kind, "fail_fast"].enqueue("monday")
    assert isinstance(runner.attempt(), Failed)
    retry(job.id)
    assert job.report() is None
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["extract", "load", "load", "load", "publish"]
    assert _statuses(job.report()) == [
        ("extract", "completed", 1),
        ("load", "completed", 3),
        ("publish", "completed", 1),
    ]
    assert [told.outcome for told in TOLD[1:]] == ["failed", "completed"]


def test_a_task_that_wants_no_retry_gets_none(runner: Runner) -> None:
    def refuse() -> None:
        raise NoRetry("never")

    ORDERS["load"] = refuse
    job = PIPELINES["sync", "fail_fast"].enqueue("monday")
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["extract", "load"]
    report = job.report()
    assert report is not None
    assert report.tasks[1].attempts[0].error == "never"


def test_between_two_tries_the_run_waits_without_a_slot(runner: Runner, dialect: Dialect) -> None:
    FAIL["load"] = 2
    job = PATIENT.enqueue("monday")
    for seconds in (10, 30):
        before = dialect.now()
        outcome = runner.attempt()
        assert isinstance(outcome, Parked)
        assert outcome.until is not None
        assert timedelta(0) <= outcome.until - before - timedelta(seconds=seconds) < timedelta(seconds=5)
        dialect.clock_offset += timedelta(seconds=seconds)
        runner.promote()
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["load"] * 3
    assert _statuses(job.report()) == [("load", "completed", 3)]


# Deaths -----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", range(1, 7))
def test_x2_x5_killed_between_two_steps_the_run_goes_on(runner: Runner, kind: str, mode: str, at: int) -> None:
    job = PIPELINES[kind, mode].enqueue("monday")
    runner.attempt_until_killed("after-checkpoint", at=min(at, 5 if kind == "async" else 6))
    assert runner.attempt(rescued=True) == Completed('"completed"')
    assert LEDGER == ALL
    # The second step is a call that the first task makes: the worker was lost in the middle of its try.
    again = {"extract"} if (kind, at) == ("sync", 2) else set()
    assert _statuses(job.report()) == [(name, "completed", 1 + (name in again)) for name in ALL]
    assert len([told for told in TOLD if isinstance(told, Run)]) == 1


@both
def test_killed_in_a_task_that_task_runs_again_and_no_other(runner: Runner, kind: str) -> None:
    job = PIPELINES[kind, "fail_fast"].enqueue("monday")
    runner.attempt_until_killed("before-checkpoint", at=4 if kind == "sync" else 3)
    assert LEDGER == ["extract", "load"]
    assert runner.attempt(rescued=True) == Completed('"completed"')
    assert LEDGER == ["extract", "load", "load", "publish"]
    report = job.report()
    assert _statuses(report) == [("extract", "completed", 1), ("load", "completed", 2), ("publish", "completed", 1)]
    assert report is not None
    lost, made = report.tasks[1].attempts
    assert (lost.number, made.number) == (1, 2)
    assert lost.finished_at is None
    assert lost.error is not None
    assert lost.error.startswith("WorkerLost: ")
    assert lost.started_at is not None
    assert made.started_at is not None
    assert made.finished_at is not None
    assert lost.started_at < made.started_at <= made.finished_at
    assert made.error is None


def test_killed_between_report_and_ending_the_report_is_written_again(runner: Runner) -> None:
    FAIL["load"] = 2
    job = PIPELINES["sync", "fail_fast"].enqueue("monday")
    runner.attempt_until_killed("before-checkpoint", at=6)  # in the last hook
    assert ExecutionReport.objects.get().outcome == "failed"
    assert job.report() is None
    assert isinstance(runner.attempt(rescued=True), Failed), "a worker that is lost gives no further tries"
    assert ExecutionReport.objects.get().outcome == "failed"
    retry(job)
    assert runner.attempt() == Completed('"completed"')
    assert ExecutionReport.objects.get().outcome == "completed"


def test_a_run_whose_worker_was_lost_for_the_last_time_is_reported_as_stale(runner: Runner, dialect: Dialect) -> None:
    job = PIPELINES["sync", "fail_fast"].using(retries=0).enqueue("monday")
    claimed = runner.claim()
    with killed_at("before-checkpoint", at=4):
        runner.run(claimed)
    runner.leases.end([claimed])
    dialect.clock_offset += LEASE + timedelta(seconds=1)
    assert [one.id for one in rescue().failed] == [job.id]
    report = job.report()
    assert report is not None
    assert report.outcome == "failed_stale"
    assert _statuses(report) == [("extract", "completed", 1), ("load", "interrupted", 1), ("publish", "not_started", 0)]
    (attempt,) = report.tasks[1].attempts
    assert attempt.started_at is not None
    assert attempt.finished_at is None


def test_a_zombie_writes_no_report(runner: Runner) -> None:
    job = PIPELINES["sync", "fail_fast"].enqueue("monday")
    claimed = runner.claim()
    stored_rows = 0

    def lose_after_the_last_task(where: str) -> None:
        nonlocal stored_rows
        stored_rows += where == "after-checkpoint"
        if stored_rows == 5:
            faults.install(None)
            runner.lose(claimed)

    faults.install(lose_after_the_last_task)
    assert type(runner.run(claimed)).__name__ == "Lost"
    assert LEDGER == ALL
    assert not ExecutionReport.objects.exists()
    assert runner.attempt(rescued=True) == Completed('"completed"')
    assert LEDGER == ALL
    assert job.report() is not None


# Orders to cancel -------------------------------------------------------------------------------------------------


@both
def test_a_run_that_is_cancelled_in_the_middle_says_so(runner: Runner, kind: str) -> None:
    job = PIPELINES[kind, "continue"].enqueue("monday")
    ORDERS["load"] = lambda: cancel(job.id)
    if kind == "async":
        ORDERS["load"] = lambda: runner.leases.tell(job.id, cancelled(job.id))
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["extract", "load"]
    report = job.report()
    assert report is not None
    assert report.outcome == "cancelled"
    assert _statuses(report)[0] == ("extract", "completed", 1)
    assert _statuses(report)[2] == ("publish", "not_started", 0)


def test_a_run_that_waits_is_cancelled_at_once_and_says_so(runner: Runner) -> None:
    FAIL["load"] = 1
    job = PATIENT.enqueue("monday")
    assert isinstance(runner.attempt(), Parked)
    cancel(job.id)
    report = job.report()
    assert report is not None
    assert (report.outcome, _statuses(report)) == ("cancelled", [("load", "failed", 1)])


@pytest.mark.parametrize("on_failure", ["fail_fast", "retry_on_failure"])
def test_a_run_that_is_ordered_to_end_when_its_code_is_over_says_so(runner: Runner, on_failure: str) -> None:
    """It parks between two tries, or backs off."""
    FAIL["load"] = 3
    job = (PATIENT if on_failure == "fail_fast" else PIPELINES["sync", on_failure]).enqueue("monday")
    claimed = runner.claim()
    outcome = runner.run(claimed)
    assert isinstance(outcome, Parked | BackedOff)
    cancel(job.id)
    runner.finish(claimed, outcome)
    assert isinstance(runner.attempt(), Cancelled)
    report = job.report()
    assert report is not None
    assert (report.outcome, [task.name for task in report.failures]) == ("cancelled", ["load"])


def test_a_run_that_is_to_be_cancelled_and_loses_its_worker_says_so(runner: Runner) -> None:
    job = PIPELINES["sync", "continue"].enqueue("monday")
    ORDERS["extract"] = lambda: elsewhere(lambda: cancel(job.id))
    runner.attempt_until_killed("before-checkpoint", at=2)  # the first is that of on_start
    assert isinstance(runner.attempt(rescued=True), Cancelled)
    report = job.report()
    assert report is not None
    assert (report.outcome, _statuses(report)[0]) == ("cancelled", ("extract", "interrupted", 1))


def test_a_waiting_run_that_is_undone_when_it_is_cancelled_says_so(runner: Runner) -> None:
    FAIL["load"] = 1
    ORDERS["load"] = lambda: compensate(undo, "load")
    job = PATIENT.enqueue("monday")
    assert isinstance(runner.attempt(), Parked)
    cancel(job.id)
    assert (row(job).status, job.report()) == ("pending", None)
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["load", "undo load"]
    report = job.report()
    assert report is not None
    assert (report.outcome, _statuses(report)) == ("cancelled", [("load", "failed", 1)])


def test_a_run_that_never_began_has_no_report(runner: Runner) -> None:
    job = PATIENT.enqueue("monday")
    cancel(job.id)
    assert row(job).status == "cancelled"
    assert job.report() is None


# Time -------------------------------------------------------------------------------------------------------------


@both
def test_a_run_that_takes_too_long_ends_as_timeout(runner: Runner, dialect: Dialect, kind: str) -> None:
    job = TIMED[kind].enqueue("monday")
    runner.attempt_until_killed("after-checkpoint", at=3)
    dialect.clock_offset += timedelta(minutes=2)
    outcome = runner.attempt(rescued=True)
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith("TimedOut: The run of")
    report = job.report()
    assert report is not None
    assert report.outcome == "timeout"
    assert "publish" not in LEDGER
    assert TOLD[-1].outcome == "timeout"


def test_a_run_does_not_wait_for_a_try_beyond_its_time(runner: Runner, dialect: Dialect) -> None:
    FAIL["load"] = 5
    job = PATIENT.enqueue("monday")
    runner.attempt()
    dialect.clock_offset += timedelta(minutes=59, seconds=45)
    runner.promote()
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    assert outcome.until is not None
    assert outcome.until - dialect.now() < timedelta(seconds=16)
    dialect.clock_offset += timedelta(seconds=16)
    runner.promote()
    assert isinstance(runner.attempt(), Failed)
    report = job.report()
    assert report is not None
    assert (report.outcome, _statuses(report)) == ("timeout", [("load", "failed", 2)])


async def endless(day: str) -> None:
    LEDGER.append(day)
    await asyncio.Event().wait()


HASTY = Pipeline("hasty", retries=1, retry_interval=0, on_failure="continue")
HASTY.task(timeout=0.05)(endless)


def test_a_try_that_takes_too_long_is_a_failed_try(runner: Runner) -> None:
    job = HASTY.enqueue("monday")
    assert runner.attempt() == Completed('"completed_with_errors"')
    assert LEDGER == ["monday"] * 2
    report = job.report()
    assert report is not None
    assert all("TimedOut" in (attempt.error or "") for attempt in report.tasks[0].attempts)


SHORT = Pipeline("short", timeout=0.2)
SHORT.task(endless)


def test_the_time_of_the_run_ends_a_task_that_may_take_longer(runner: Runner) -> None:
    job = SHORT.enqueue("monday")
    assert isinstance(runner.attempt(), Failed)
    report = job.report()
    assert report is not None
    assert (report.outcome, _statuses(report)) == ("timeout", [("endless", "failed", 1)])


# Hooks and undoing ------------------------------------------------------------------------------------------------


@both
def test_errors_of_hooks_are_recorded_and_do_not_fail_the_run(runner: Runner, kind: str) -> None:
    FAIL["hooks"] = 1
    job = PIPELINES[kind, "fail_fast"].using(call_retries=0).enqueue("monday")
    assert runner.attempt() == Completed('"completed"')
    assert {("1.1", "note_start!"), ("1.2", "note_end!")} <= set(stored(job))


@durable_job
def undo(what: str) -> None:
    """Undo a task."""
    LEDGER.append(f"undo {what}")


def test_a_failed_run_is_undone_after_its_report(runner: Runner) -> None:
    ORDERS["load"] = lambda: compensate(undo, "load")
    FAIL["publish"] = 5
    job = PIPELINES["sync", "fail_fast"].enqueue("monday")
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["extract", "load", "publish", "publish", "undo load"]
    report = job.report()
    assert report is not None
    assert report.outcome == "failed"


def test_a_task_may_wait(runner: Runner, dialect: Dialect) -> None:
    ORDERS["load"] = lambda: sleep(30)
    job = PIPELINES["sync", "fail_fast"].enqueue("monday")
    assert isinstance(runner.attempt(), Parked)
    dialect.clock_offset += timedelta(seconds=30)
    runner.promote()
    assert runner.attempt() == Completed('"completed"')
    assert LEDGER == ["extract", "load", "load", "publish"]
    assert _statuses(job.report()) == [(name, "completed", 1) for name in ALL]


def test_a_report_goes_with_its_job(runner: Runner) -> None:
    job = PATIENT.enqueue("monday")
    assert runner.attempt() == Completed('"completed"')
    delete(job.id)
    assert not ExecutionReport.objects.exists()
    assert not Checkpoint.objects.exists()


# Declaring --------------------------------------------------------------------------------------------------------


def test_settings_go_down_from_the_pipeline_to_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})
    pipeline = Pipeline("settings", retries=4, task_timeout=60, queue="night", priority="high", retry_interval=2)
    pipeline.task(load)
    pipeline.task(publish, name="other", retries=0, timeout=5, queue="day", retry_factor=1)
    usual, other = (registry.get(f"settings.{name}").options for name in ("load", "other"))
    assert (usual.retries, usual.timeout, usual.queue, usual.priority) == (4, timedelta(minutes=1), "night", 50)
    assert (other.retries, other.timeout, other.queue, other.priority) == (0, timedelta(seconds=5), "day", 50)
    delays = [[one.backoff.delay(n).total_seconds() for n in range(3)] for one in (usual, other) if one.backoff]
    assert delays == [[2, 4, 8], [2, 2, 2]]
    assert registry.get("settings").options.queue == "night"


def other_parameters(night: str) -> None:
    """Take something else."""


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: Pipeline("p", mode="both"), OptionError, "sequential"),  # type: ignore[arg-type]
        (lambda: Pipeline("p", on_failure="hope"), OptionError, "fail_fast"),  # type: ignore[arg-type]
        (lambda: Pipeline("p", retries=-1), OptionError, "retries"),
        (lambda: Pipeline("p", task_timeout=0), OptionError, "timeout"),
        (lambda: Pipeline("p", timeout=float("nan")), OptionError, "timeout"),
        (lambda: Pipeline("p", retry_factor=0), OptionError, "factor"),
        (lambda: Pipeline("p", on_start=lambda _run: None), DefinitionError, "lambda"),
        (lambda: Pipeline("p").enqueue("monday"), DefinitionError, "no tasks"),
        (lambda: Pipeline("p").task(name="a.b")(load), DefinitionError, "name of a task"),
        (lambda: Pipeline("no name").task(load), DefinitionError, "name"),
        (lambda: _two(Pipeline("p1"), publish, "load"), DefinitionError, "two tasks"),
        (lambda: _two(Pipeline("p2"), other_parameters, "other"), DefinitionError, "all take the same"),
    ],
)
def test_a_pipeline_that_cannot_work_is_refused(wrong: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        wrong()


def _two(pipeline: Pipeline, other: Any, name: str) -> None:
    pipeline.task(load)
    pipeline.task(name=name)(other)


def test_arguments_that_do_not_fit_are_refused(runner: Runner) -> None:
    with pytest.raises(ArgumentError):
        PATIENT.enqueue("monday", "tuesday")
    with pytest.raises(ArgumentError):
        PATIENT.enqueue(5)
