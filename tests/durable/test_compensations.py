"""What a job has registered undoes it when it fails for good or is cancelled: in reverse, durably (F14; X2, X5)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_jobs import (
    Backoff,
    NoRetry,
    acall,
    acompensate,
    call,
    cancel,
    compensate,
    durable_job,
    faults,
    gather,
    registry,
    retry,
    sleep,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.errors import ArgumentError, DefinitionError, Interrupted, NotInJob, UnknownDefinition
from django_durable_jobs.models import Attempt, Checkpoint, Job
from django_durable_jobs.operations.compensations import LOSSES
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.steps import cancelled
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Failed, Lost, Parked, Released
from tests.durable.running import COMMITS, LEASE, NOW, Runner, killed_at, row, stored
from tests.waiting import elsewhere

pytestmark = COMMITS

LEDGER: list[str] = []
FAIL: dict[str, int] = {}
"""How often an undoing step is still to fail."""
RUNNERS: list[Runner] = []
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()
    FAIL.clear()


def book(what: str) -> str:
    LEDGER.append(f"book {what}")
    return what


@durable_job(call_backoff=NOW)
def unbook(what: str) -> None:
    """Undo a booking."""
    LEDGER.append(f"unbook {what}")
    if FAIL.get(what, 0) > 0:
        FAIL[what] -= 1
        raise OSError(f"no {what}")


@durable_job(call_backoff=NOW)
async def aunbook(what: str) -> None:
    """Undo a booking on the event loop."""
    await asyncio.sleep(0)
    LEDGER.append(f"aunbook {what}")


@durable_job
def stopping() -> None:
    """Have the worker stop, the first time."""
    LEDGER.append("stopping")
    if RUNNERS:
        runner = RUNNERS.pop()
        runner.leases.interrupt(set(runner.leases.held()), Interrupted("The worker stops."))
        call(book, "never")


def trip() -> None:
    call(book, "flight")
    compensate(unbook, "flight")
    call(book, "hotel")
    compensate(aunbook, "hotel")
    call(book, "car")
    compensate(unbook, what="car")
    raise NoRetry("no trip")


async def async_trip() -> None:
    await acall(book, "flight")
    await acompensate(unbook, "flight")
    await acall(book, "hotel")
    await acompensate(aunbook, "hotel")
    await acall(book, "car")
    await acompensate("tests.durable.test_compensations.unbook", what="car")
    raise NoRetry("no trip")


BOOKED = ["book flight", "book hotel", "book car"]
UNDONE = ["unbook car", "aunbook hotel", "unbook flight"]
both = pytest.mark.parametrize("script", [trip, async_trip])


@both
def test_a_job_that_fails_for_good_is_undone_in_reverse(runner: Runner, script: Any) -> None:
    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "no trip" in outcome.failure.traceback
    assert LEDGER == BOOKED + UNDONE
    now = row(job)
    assert (now.status, now.last_error, now.attempt) == ("failed", "no trip", 1)
    assert [key for key, _name in stored(job)] == ["1", "2", "3", "4", "5", "6", "c.0", "c.1", "c.2", "c.3"]
    begun = Checkpoint.objects.get(job_id=job.id, key="2")
    assert (begun.kind, begun.name) == ("compensation", "compensate tests.durable.test_compensations.unbook")
    assert Checkpoint.objects.get(job_id=job.id, key="c.0").kind == "ending"
    assert Attempt.objects.filter(job_id=job.id).count() == 1


def test_an_attempt_that_is_followed_by_another_undoes_nothing(runner: Runner) -> None:
    def script() -> str:
        call(book, "flight")
        compensate(unbook, "flight")
        if FAIL.get("script", 0) < 1:
            FAIL["script"] = 1
            raise OSError("not yet")
        return "done"

    runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert runner.attempt() == Completed('"done"')
    assert LEDGER == ["book flight"]


def test_a_job_without_attempts_left_is_undone_once(runner: Runner) -> None:
    def script() -> None:
        call(book, "flight")
        compensate(unbook, "flight")
        raise OSError("never")

    job = runner.enqueue(script, retries=1)
    assert isinstance(runner.attempt(), BackedOff)
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["book flight", "unbook flight"]
    assert (row(job).attempt, row(job).last_error) == (2, "OSError: never")


# Deaths -----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("point", ["before-checkpoint", "after-checkpoint"])
@pytest.mark.parametrize("at", [4, 5, 6])
def test_x2_x5_killed_while_it_is_undone_another_worker_goes_on(
    runner: Runner, script: Any, point: str, at: int
) -> None:
    job = runner.enqueue(script, retries=0)
    runner.attempt_until_killed(point, at=at)  # three bookings have a checkpoint each
    outcome = runner.attempt(rescued=True)
    assert isinstance(outcome, Failed)
    assert outcome.failure.error == "no trip"
    repeated = UNDONE[at - 4 : at - 3] if point == "before-checkpoint" else []
    done = at - 3
    assert BOOKED + UNDONE[:done] + repeated + UNDONE[done:] == LEDGER
    now = row(job)
    assert (now.status, now.attempt, now.max_attempts) == ("failed", 1, 1)


@both
@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_before_it_failed_a_job_goes_on_and_is_undone_later(runner: Runner, script: Any, at: int) -> None:
    runner.enqueue(script)
    runner.attempt_until_killed("after-checkpoint", at=at)
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert LEDGER == BOOKED + UNDONE


def test_a_job_whose_last_attempt_was_lost_is_undone_and_its_code_does_not_run_again(runner: Runner) -> None:
    def script() -> None:
        call(book, "flight")
        compensate(unbook, "flight")
        call(book, "hotel")

    job = runner.enqueue(script, retries=0)
    runner.attempt_until_killed("before-checkpoint", at=2)
    assert LEDGER == ["book flight", "book hotel"]
    outcome = runner.attempt(rescued=True)
    assert isinstance(outcome, Failed)
    assert LEDGER == ["book flight", "book hotel", "unbook flight"]
    assert row(job).status == "failed"
    assert (row(job).last_error or "").startswith("WorkerLost")


def test_a_job_without_compensations_still_ends_with_its_last_worker(runner: Runner, dialect: Dialect) -> None:
    def script() -> None:
        call(book, "flight")

    job = runner.enqueue(script, retries=0)
    claimed = runner.claim()
    with killed_at("after-checkpoint"):
        runner.run(claimed)
    runner.leases.end([claimed])
    dialect.clock_offset += LEASE + timedelta(seconds=1)
    assert [one.id for one in rescue().failed] == [claimed.id]
    assert row(job).status == "failed"


def test_a_compensation_that_kills_its_workers_counts_as_failed_and_the_others_run(runner: Runner) -> None:
    job = runner.enqueue(trip, retries=0)
    runner.attempt_until_killed("before-checkpoint", at=5)  # in the second compensation
    for _ in range(LOSSES - 1):
        runner.attempt_until_killed("before-checkpoint", rescued=True)
    outcome = runner.attempt(rescued=True)
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith(
        "no trip; compensation tests.durable.test_compensations.aunbook failed: JobFailed"
    )
    assert [*BOOKED, "unbook car", *["aunbook hotel"] * LOSSES, "unbook flight"] == LEDGER
    assert row(job).status == "failed"


def test_a_worker_that_stops_hands_the_job_back_and_the_next_one_goes_on(runner: Runner) -> None:

    def script() -> None:
        compensate(unbook, "flight")
        compensate(stopping)
        raise NoRetry("no")

    RUNNERS.append(runner)

    job = runner.enqueue(script, retries=0)
    claimed = runner.claim()
    outcome = runner.run(claimed)
    assert isinstance(outcome, Released)
    runner.finish(claimed, outcome)
    assert (row(job).status, row(job).attempt) == ("pending", 0)
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["stopping", "stopping", "unbook flight"]


# Failures ---------------------------------------------------------------------------------------------------------


@both
def test_a_compensation_is_repeated_like_any_call(runner: Runner, script: Any) -> None:
    FAIL["car"] = 2
    runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error == "no trip"
    assert [*BOOKED, "unbook car", "unbook car", *UNDONE] == LEDGER


@both
def test_a_compensation_that_fails_is_recorded_and_the_others_run(runner: Runner, script: Any) -> None:
    FAIL["car"] = 100
    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert [*BOOKED, *["unbook car"] * 4, *UNDONE[1:]] == LEDGER
    assert (
        row(job).last_error == "no trip; compensation tests.durable.test_compensations.unbook failed: OSError: no car"
    )
    assert ("c.3", "unbook!") in stored(job)


@both
def test_a_failed_compensation_is_named_after_a_kill_too_and_does_not_run_again(runner: Runner, script: Any) -> None:
    FAIL["car"] = 4
    job = runner.enqueue(script)
    runner.attempt_until_killed("before-checkpoint", at=5)  # its error is the fourth, and stored
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert [*BOOKED, *["unbook car"] * 4, "aunbook hotel", "aunbook hotel", "unbook flight"] == LEDGER
    assert (
        row(job).last_error == "no trip; compensation tests.durable.test_compensations.unbook failed: OSError: no car"
    )


def test_the_options_of_a_compensation_are_its_own(runner: Runner) -> None:
    def script() -> None:
        compensate(unbook.using(call_retries=1, call_backoff=Backoff.none()), "car")
        raise NoRetry("no")

    FAIL["car"] = 100
    runner.enqueue(script, call_retries=7)
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["unbook car", "unbook car"]


@durable_job
def exits() -> None:
    """End as only a process should."""
    raise SystemExit(3)


@durable_job
def confused() -> None:
    """Register what undoes undoing."""
    compensate(unbook, "flight")


@durable_job
async def aconfused() -> None:
    """Do it on the event loop."""
    await acompensate(unbook, "flight")


@pytest.mark.parametrize(
    ("wrong", "error"), [(exits, "SystemExit"), (confused, "NotInJob"), (aconfused, "NotInJob"), ("gone", "Unknown")]
)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_compensation_that_cannot_work_does_not_keep_the_others_from_running(
    runner: Runner, wrong: Any, error: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrong == "gone":
        monkeypatch.setitem(registry._definitions, "gone", replace(unbook.definition, name="gone"))

    def script() -> None:
        compensate(unbook, "flight")
        compensate(wrong, *(["hotel"] if wrong == "gone" else []))
        monkeypatch.undo()
        raise NoRetry("no")

    async def async_script() -> None:
        await acompensate(unbook, "flight")
        await acompensate(wrong, *(["hotel"] if wrong == "gone" else []))
        monkeypatch.undo()
        raise NoRetry("no")

    job = runner.enqueue(script if kind == "sync" else async_script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["unbook flight"]
    assert error in (row(job).last_error or "")


def test_a_job_that_took_another_way_than_recorded_is_undone(runner: Runner) -> None:
    def script() -> None:
        call(book, "flight")
        compensate(unbook, "flight")
        if FAIL.get("script", 0) < 1:
            FAIL["script"] = 1
            call(book, "hotel")
            raise OSError("not yet")
        sleep(1)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["book flight", "book hotel", "unbook flight"]
    assert (row(job).last_error or "").startswith("NonDeterminism")


@durable_job
def patient(what: str) -> None:
    """Undo something after a day."""
    LEDGER.append(f"begin {what}")
    sleep(24 * HOUR)
    LEDGER.append(f"end {what}")


def test_a_compensation_may_wait_also_after_an_order_to_cancel(runner: Runner, dialect: Dialect) -> None:
    def script() -> None:
        compensate(unbook, "flight")
        compensate(patient, "hotel")
        sleep(HOUR)

    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Parked)
    cancel(job.id)
    assert isinstance(runner.attempt(), Parked)
    assert (row(job).status, row(job).waiting_for) == ("waiting", "time")
    # An order to cancel what is being undone changes nothing, and does not wake it.
    assert cancel(job.id).requested == [job.id]
    assert row(job).status == "waiting"
    dialect.clock_offset += 24 * HOUR
    runner.promote()
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["begin hotel", "begin hotel", "end hotel", "unbook flight"]
    assert row(job).status == "cancelled"


# Orders to cancel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_running_job_that_is_cancelled_is_undone(runner: Runner, kind: str) -> None:
    def script() -> None:
        call(book, "flight")
        compensate(unbook, "flight")
        cancel(job.id)
        call(book, "hotel")
        call(book, "car")

    async def async_script() -> None:
        await acall(book, "flight")
        await acompensate(unbook, "flight")
        await acall(cancel_it)
        await acall(book, "hotel")
        await acall(book, "car")

    def cancel_it() -> None:
        cancel(job.id)

    job = runner.enqueue(script if kind == "sync" else async_script)
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER[0] == "book flight"
    assert LEDGER[-1] == "unbook flight"
    assert "book car" not in LEDGER
    assert row(job).status == "cancelled"
    assert "cancelled by an order" in (row(job).last_error or "")


def test_an_order_between_a_call_and_its_compensation_leaves_nothing_that_is_not_undone(runner: Runner) -> None:
    def script() -> None:
        call(book_while_cancelled)
        compensate(unbook, "flight")
        LEDGER.append("never")

    def book_while_cancelled() -> None:
        book("flight")
        elsewhere(lambda: cancel(job.id))

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["book flight", "unbook flight"]
    assert row(job).status == "cancelled"


def test_an_order_that_only_the_database_knows_of_does_not_keep_a_compensation_out(runner: Runner) -> None:
    def script() -> None:
        call(book, "flight")
        elsewhere(lambda: cancel(job.id))
        compensate(unbook, "flight")
        call(book, "hotel")
        call(book, "never")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["book flight", "book hotel", "unbook flight"]


@pytest.mark.parametrize("in_branch", [False, True])
def test_an_order_that_the_result_of_an_async_call_brings_leaves_nothing_that_is_not_undone(
    runner: Runner, in_branch: bool
) -> None:
    async def async_script() -> None:
        await asyncio.gather(acall(branch)) if in_branch else await branch()
        LEDGER.append("never")

    async def branch() -> None:
        await acall(book_while_cancelled)
        await acompensate(unbook, "flight")
        await asyncio.sleep(3600)

    def book_while_cancelled() -> None:
        book("flight")
        cancel(job.id)

    job = runner.enqueue(async_script)
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["book flight", "unbook flight"]


@pytest.mark.parametrize("when", ["before it begins", "while it is stored"])
def test_an_order_does_not_keep_an_async_job_from_registering(runner: Runner, when: str) -> None:
    async def async_script() -> None:
        await acall(book, "flight")
        if when == "before it begins":
            runner.leases.tell(job.id, cancelled(job.id))  # strikes the task at its next wait
        await acompensate(unbook, "flight")
        LEDGER.append("never")

    struck, over = threading.Event(), threading.Event()

    def hook(where: str) -> None:
        if where == "before-step" and when == "while it is stored" and not struck.is_set():
            struck.set()
            runner.leases.tell(job.id, cancelled(job.id))
            # A job that did not wait for this would be over now, undone without it.
            over.wait(0.5)

    job = runner.enqueue(async_script)
    faults.install(hook)
    try:
        assert isinstance(runner.attempt(), Cancelled)
    finally:
        over.set()
        faults.install(None)
    assert LEDGER == ["book flight", "unbook flight"]


@pytest.mark.parametrize("state", ["waiting", "retrying", "pending"])
def test_a_job_that_does_not_run_is_undone_by_a_worker_before_it_is_cancelled(runner: Runner, state: str) -> None:
    def script() -> None:
        call(book, "flight")
        compensate(unbook, "flight")
        if state == "waiting":
            sleep(HOUR)
        raise OSError("no")

    job = runner.enqueue(script, backoff=Backoff.fixed(HOUR if state == "retrying" else timedelta(0)))
    runner.attempt()
    assert row(job).status == state
    done = cancel(job.id)
    assert (done.cancelled, done.requested) == ([], [job.id])
    assert row(job).status == "pending"
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["book flight", "unbook flight"]
    assert row(job).status == "cancelled"


def test_a_worker_that_dies_while_a_cancelled_job_is_undone_leaves_it_cancelled_in_the_end(runner: Runner) -> None:
    def script() -> None:
        compensate(unbook, "flight")
        compensate(unbook, "hotel")
        sleep(HOUR)

    job = runner.enqueue(script, retries=0)
    runner.attempt()
    cancel(job.id)
    runner.attempt_until_killed("after-checkpoint")
    assert isinstance(runner.attempt(rescued=True), Cancelled)
    assert LEDGER == ["unbook hotel", "unbook flight"]
    assert row(job).status == "cancelled"


def test_branches_that_still_run_end_before_anything_is_undone(runner: Runner) -> None:
    async def slow() -> None:
        await acompensate(unbook, "slow")
        try:
            await asyncio.sleep(60)
        finally:
            LEDGER.append("slow ended")

    async def fails() -> None:
        await acall(book, "flight")
        while not await sync_to_async(Checkpoint.objects.filter(key="1.1").exists)():  # noqa: ASYNC110 -- in a database
            await asyncio.sleep(0)
        await acompensate(unbook, "flight")
        raise NoRetry("no")

    async def script() -> None:
        await asyncio.gather(acall(slow), acall(fails))

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["book flight", "slow ended", "unbook flight", "unbook slow"]


# Again ------------------------------------------------------------------------------------------------------------


def test_a_job_that_was_undone_begins_anew_when_an_operator_retries_it(runner: Runner) -> None:
    def script() -> str:
        call(book, "flight")
        compensate(unbook, "flight")
        if len(LEDGER) == 1:
            raise NoRetry("no")
        return "done"

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    retry(job.id)
    assert row(job).generation == 1
    assert runner.attempt() == Completed('"done"')
    assert LEDGER == ["book flight", "unbook flight", "book flight"]


def test_a_job_that_failed_without_compensations_keeps_its_results_at_a_retry(runner: Runner) -> None:
    def script() -> str:
        call(book, "flight")
        if len(LEDGER) == 1:
            LEDGER.append("failed")
            raise NoRetry("no")
        return "done"

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    retry(job.id)
    assert row(job).generation == 0
    assert runner.attempt() == Completed('"done"')
    assert LEDGER == ["book flight", "failed"]


def test_a_job_that_was_given_up_while_it_was_undone_goes_on_there_when_it_is_retried(runner: Runner) -> None:
    job = runner.enqueue(trip)
    runner.attempt_until_killed("after-checkpoint", at=4)
    Job.objects.filter(id=job.id).update(status="failed", finished_at=DatabaseNow())
    retry(job.id)
    assert row(job).generation == 0
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == BOOKED + UNDONE


@durable_job(retries=0)
def child() -> None:
    """Fail the first time, as a child that is undone."""
    call(book, "child")
    compensate(unbook, "child")
    if LEDGER.count("book child") == 1:
        raise NoRetry("no")


def test_a_child_that_was_undone_begins_anew_when_its_parent_runs_it_again(runner: Runner) -> None:
    def script() -> str:
        gather(child.s())
        return "done"

    job = runner.enqueue(script)
    outcomes = [type(runner.attempt()) for _ in range(5)]
    assert outcomes == [Parked, Failed, BackedOff, Parked, Completed]
    assert runner.attempt() == Completed('"done"')
    assert LEDGER == ["book child", "unbook child", "book child"]
    assert row(job).status == "completed"


def test_a_zombie_undoes_nothing(runner: Runner) -> None:
    def script() -> None:
        compensate(unbook, "flight")
        if not LEDGER:
            LEDGER.append("lost")
            runner.lose(claimed)
        raise NoRetry("no")

    job = runner.enqueue(script)
    claimed = runner.claim()
    assert isinstance(runner.run(claimed), Lost)
    assert LEDGER == ["lost"]
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert LEDGER == ["lost", "unbook flight"]
    assert row(job).status == "failed"


# Misuse -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_undone_later_is_refused_and_nothing_stored(runner: Runner) -> None:
    def script() -> None:
        with pytest.raises(DefinitionError, match=r"book.*registered name"):
            compensate(book, "flight")  # type: ignore[arg-type]
        with pytest.raises(UnknownDefinition):
            compensate("no.such.job")
        with pytest.raises(ArgumentError, match="nothing"):
            compensate(unbook, nothing=1)  # type: ignore[call-arg]

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert stored(job) == []


async def test_outside_of_a_job_it_says_so(runner: Runner) -> None:
    with pytest.raises(NotInJob, match="acompensate"):
        compensate(unbook, "flight")
    with pytest.raises(NotInJob, match="running durable job"):
        await acompensate(unbook, "flight")


def test_outside_of_a_job_it_says_so_too() -> None:
    with pytest.raises(NotInJob, match=r"compensate\(\)"):
        compensate(unbook, "flight")
