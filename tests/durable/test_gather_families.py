"""Families of jobs: nesting, time limits, orders to cancel, deleting, and what a large one costs (X59, X72, P15)."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings

from django_durable_jobs import TransitionRefused, agather, call, cancel, durable_job, gather, retry
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.durable.frames import current_job
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.prune import prune
from django_durable_jobs.operations.wake import wake_waiting
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Failed, Outcome, Parked
from django_durable_jobs.states import OPEN
from tests.durable.family import FAILING, RAN, anested, children_of, double, nested, run_all
from tests.durable.running import COMMITS, NOW, Runner, row
from tests.factories import claim_of, make_job, make_worker, present
from tests.reliability.outages import options, working
from tests.waiting import eventually, together

pytestmark = COMMITS

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    FAILING.clear()


# Depth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [nested, anested])
def test_nesting_ends_at_the_setting_with_nothing_stored(runner: Runner, tree: Any) -> None:
    with override_settings(DURABLE_JOBS={"CHILD_DEPTH": 2}):
        top = tree.enqueue(4, 1)
        run_all(runner)
    depths = sorted(Job.objects.values_list("depth", flat=True), key=lambda depth: depth or 0)
    assert depths == [None, 1, 2]
    deepest = Job.objects.get(depth=2)
    assert deepest.status == "failed"
    assert "TooDeep" in (deepest.last_error or "")
    assert "a child at level 2: deeper than 2 levels (setting CHILD_DEPTH)" in (deepest.last_error or "")
    assert not Checkpoint.objects.filter(job=deepest).exists()
    assert row(top).status == "failed"


def test_what_is_nested_too_deep_is_not_tried_again(runner: Runner) -> None:
    job = nested.using(retries=5).enqueue(1, 1)
    Job.objects.filter(id=job.id).update(depth=50)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "deeper than 50 levels" in outcome.failure.error


# Time limits ------------------------------------------------------------------------------------------------------


def limited() -> int:
    return len(gather(double.s(1), double.using(delay=2 * HOUR).s(2), timeout=HOUR))


async def async_limited() -> int:
    return len(await agather(double.s(1), double.using(delay=2 * HOUR).s(2), timeout=HOUR))


@pytest.mark.parametrize("script", [limited, async_limited])
def test_a_gather_that_takes_too_long_cancels_what_is_open(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = runner.enqueue(script, retries=0)
    run_all(runner)
    first = row(job).run_at
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert row(job).run_at == first
    dialect.clock_offset += HOUR
    runner.promote()
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "TimedOut: gather() of 2 children took longer than 1:00:00" in outcome.failure.error
    assert [child.status for child in children_of(job)] == ["completed", "cancelled"]


def test_the_attempt_after_a_time_out_has_its_own_time(runner: Runner, dialect: Dialect) -> None:
    job = runner.enqueue(limited, retries=1)
    run_all(runner)
    dialect.clock_offset += HOUR
    runner.promote()
    assert isinstance(runner.attempt(), BackedOff)
    assert isinstance(runner.attempt(), Parked)
    assert run_all(runner)[-1] == Completed("2")
    assert RAN == {1: 1, 2: 1}
    assert row(job).attempt == 2


# Cancel -----------------------------------------------------------------------------------------------------------

REACHED = threading.Semaphore(0)


@durable_job(retries=0, backoff=NOW)
def stays() -> None:
    """Stay until told to stop."""
    REACHED.release()
    job = current_job()
    while True:
        job.pause(0.05)


@durable_job(retries=0, backoff=NOW)
def family(depth: int) -> None:
    """Be a tree whose leaves run, wait and are scheduled."""
    if depth == 0:
        gather(stays.s(), double.using(delay=HOUR).s(1), strategy="collect_all")
    else:
        gather(family.s(depth - 1), family.s(depth - 1), stays.s())


def test_x59_cancel_of_a_parent_reaches_three_levels_and_what_runs(runner: Runner) -> None:
    top = family.enqueue(2)
    with working(options(queues={"default": 16}), seconds=30):
        for _ in range(1 + 2 + 4):
            assert REACHED.acquire(timeout=20)
        eventually(lambda: Job.objects.filter(status="waiting").count() == 7)
        done = cancel(top.id)
        eventually(lambda: not Job.objects.in_status(*OPEN).exists(), seconds=20)
    assert len(done.cancelled) == 7 + 4
    assert len(done.requested) == 7
    assert dict(Job.objects.all().counted_by("status")) == {"cancelled": 18}


@pytest.mark.parametrize("grand", [False, True], ids=["child", "grandchild"])
def test_a_child_that_ends_while_its_parent_is_cancelled(grand: bool) -> None:
    def end(child: Claimed) -> object:
        return finish([Ending(child, Completed("1"))])

    for _ in range(30):
        parent = make_job("waiting", waiting_for="children 0/1")
        holder = make_job("waiting", waiting_for="children 0/1", parent=parent, parent_call="children 0/1")
        make_job("pending", parent=holder if grand else parent, parent_call="children 0/1", queue="children")
        (child,) = claim(claim_of(make_worker(), 1, "children"))
        together(partial(cancel, parent), partial(end, child))
        assert present(parent).status == present(holder).status == "cancelled"
        now = present(child)
        assert now.status == "completed" or (now.status == "running" and now.cancel_requested_at is not None)
        Job.objects.all().delete()


def test_a_parent_cancelled_while_it_spawns_leaves_no_child_running(runner: Runner) -> None:
    def run(claimed: Claimed) -> Outcome | None:
        return runner.run_here(claimed)

    def order(job_id: UUID) -> Outcome | None:
        cancel(job_id)
        return None

    for _ in range(20):
        job = nested.enqueue(1, 3)
        claimed = runner.claim()
        outcome, _done = together(partial(run, claimed), partial(order, job.id))
        assert outcome is not None
        runner.finish(claimed, outcome)
        outcomes = run_all(runner)
        assert all(child.status == "cancelled" for child in children_of(job)), outcomes
        assert row(job).status == "cancelled"


def test_children_that_still_stop_when_the_next_attempt_begins_run_again(runner: Runner) -> None:
    def script() -> int:
        return len(gather(double.s(1), double.s(2)))

    job = runner.enqueue(script, retries=1)
    runner.attempt()
    slow = runner.claim()  # child 1, whose code will take its time to stop
    FAILING.add(2)
    runner.attempt()
    assert isinstance(runner.attempt(), BackedOff)
    assert present(slow).cancel_requested_at is not None
    FAILING.clear()
    assert isinstance(runner.attempt(), Parked)
    runner.attempt()
    runner.finish(slow, Cancelled("an order"))
    assert present(slow).status == "cancelled"
    assert isinstance(runner.attempt(), Parked)  # it had been told by the attempt before
    assert run_all(runner)[-1] == Completed("2")
    assert row(job).attempt == 2


def test_a_retried_child_of_a_parent_that_ended_runs_alone(runner: Runner) -> None:
    FAILING.add(1)
    job = nested_pair(runner)
    run_all(runner)
    FAILING.clear()
    retry(children_of(job)[0])
    assert run_all(runner) == [Completed('{"$dataclass":{"of":1,"value":2}}')]
    assert row(job).status == "completed"


def nested_pair(runner: Runner) -> Any:
    def script() -> int:
        return len(gather(double.s(1), double.s(2), strategy="collect_all"))

    return runner.enqueue(script)


# Deleting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "completed", "failed"])
def test_x72_a_child_is_not_deleted_while_its_parent_needs_it(status: str) -> None:
    parent = make_job("waiting", waiting_for="children 0/1")
    child = make_job(status, parent=parent, parent_call="children 0/1")
    with pytest.raises(TransitionRefused, match="which has not ended and needs its result"):
        delete(child)
    assert present(child).status == status


def test_x72_a_parent_is_not_deleted_while_a_child_is_open() -> None:
    parent = make_job("failed")
    child = make_job("pending", parent=parent, parent_call="children 0/1")
    with pytest.raises(TransitionRefused, match="children that have not ended"):
        delete(parent)
    cancel(child)
    delete(parent)
    delete(child)
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("parent", "child", "kept"),
    [
        ("waiting", "completed", 2),
        ("retrying", "failed", 2),
        ("failed", "completed", 2),
        ("completed", "pending", 2),
        ("cancelled", "scheduled", 2),
        ("completed", "completed", 0),
        ("completed", "failed", 0),
        ("cancelled", "cancelled", 0),
    ],
)
def test_x72_retention_keeps_a_family_while_a_member_may_run(
    dialect: Dialect, parent: str, child: str, kept: int
) -> None:
    older = make_job(parent)
    make_job(child, parent=older, parent_call="children 0/1")
    make_job("completed")
    # Completed and cancelled jobs are past their time then; failed ones only later.
    dialect.clock_offset += timedelta(days=40 if (parent, child) == ("completed", "failed") else 20)
    prune(None)
    assert Job.objects.count() == kept


# Size -------------------------------------------------------------------------------------------------------------


def statements_of(size: int, runner: Runner) -> dict[str, int]:
    """Return how many statements each part of a fan-out of this size takes, on the connection that it uses."""

    def script() -> int:
        return len(gather(*(double.s(n) for n in range(size)), strategy="collect_all"))

    counts = {}
    job = runner.enqueue(script)
    spawning = runner.claim()
    with CaptureQueriesContext(connection) as captured:
        outcome = runner.executor.run(spawning)
    counts["spawn, on the job's own connection"] = len(captured)
    runner.finish(spawning, outcome)
    claimed = claim(claim_of(runner.worker.pk, size))
    assert len(claimed) == size
    with CaptureQueriesContext(connection) as captured:
        finish([Ending(one, Completed("1")) for one in claimed[:-1]])
    counts["look while one is open"] = len([one for one in captured if "SELECT" in one["sql"]])
    with CaptureQueriesContext(connection) as captured:
        wake_waiting({(job.id, "children 0/1")})
    counts["wake"] = len(captured)
    finish([Ending(claimed[-1], Completed("1"))])
    assert runner.attempt() == Completed(str(size))
    return counts


def test_p15_a_larger_family_takes_no_more_statements_to_wait_for(runner: Runner) -> None:
    small, large = statements_of(100, runner), statements_of(2000, runner)
    assert small == large


# Sequences --------------------------------------------------------------------------------------------------------


@durable_job(retries=1, backoff=NOW)
def of_a_sequence() -> int:
    """Gather one child, which is one of a sequence."""
    return len(gather(double.using(sequence_key="family").s(1)))


def test_a_child_that_runs_again_waits_for_its_turn_in_its_sequence(runner: Runner, dialect: Dialect) -> None:
    FAILING.add(1)
    job = of_a_sequence.enqueue()
    assert [type(runner.attempt()) for _ in range(2)] == [Parked, Failed]
    (child,) = children_of(job)
    following = double.using(sequence_key="family").enqueue(2)
    assert isinstance(runner.attempt(), BackedOff)
    FAILING.clear()
    Job.objects.filter(id=job.id).update(run_at=dialect.now())
    runner.promote()
    assert isinstance(runner.attempt(), Parked)
    assert (present(child).status, present(child).waiting_for) == ("waiting", "sequence")
    assert isinstance(runner.attempt(), Completed)
    assert row(following).status == "completed"
    run_all(runner)
    assert (row(job).status, present(child).status) == ("completed", "completed")


def in_line_behind_itself() -> None:
    call(gather_below)


def gather_below() -> None:
    gather(double.using(sequence_key="family").s(1))


@pytest.mark.parametrize("script", [in_line_behind_itself, gather_below])
def test_n33_a_child_that_would_wait_for_a_job_above_it_is_refused(runner: Runner, script: Any) -> None:
    job = runner.enqueue(script, sequence_key="family")
    outcome = runner.attempt()
    while isinstance(outcome, BackedOff):
        outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "sequence_key 'family' of a job above it" in outcome.failure.error
    assert not Job.objects.filter(parent=job.id).exists()
