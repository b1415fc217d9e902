"""Pausing and resuming a job: in every status, while its code runs, and with what comes meanwhile (C1, C4, C5, I12)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import (
    Backoff,
    OptionError,
    Snooze,
    apause,
    approve,
    aresume,
    call,
    cancel,
    durable_job,
    emit,
    gather,
    is_paused,
    is_pausing,
    pause,
    paused_jobs,
    pending_approvals,
    resume,
    retry,
    send_message,
    sleep,
    wait_for_approval,
    wait_for_event,
    wait_for_message,
)
from django_durable_jobs.errors import (
    AlreadyPaused,
    CannotPause,
    JobNotFound,
    JobPaused,
    NotPaused,
    TransitionRefused,
)
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Attempt, Checkpoint, Job
from django_durable_jobs.outcomes import BackedOff, Completed, Lost, Parked, Released, Snoozed
from django_durable_jobs.states import FINAL, PAUSABLE
from tests.durable.running import COMMITS, Runner, row
from tests.factories import make_job, present
from tests.waiting import elsewhere, together

pytestmark = COMMITS

LEDGER: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


def note(what: str) -> str:
    LEDGER.append(what)
    return what


def untouched() -> None:
    note("ran")


# What does not run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(PAUSABLE))
def test_a_job_that_does_not_run_is_paused_at_once_and_resumed_where_it_was(status: str) -> None:
    job = make_job(status)
    before = Job.objects.values().get(id=job.id)
    assert pause(job) is True
    now = present(job)
    assert (now.status, now.paused_from, now.waiting_for) == ("paused", status, before["waiting_for"])
    assert is_paused(job)
    assert not is_pausing(job)
    resume(job)
    assert Job.objects.values().get(id=job.id) == before
    assert not is_paused(job)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_job_that_has_ended_can_be_neither_paused_nor_resumed(status: str) -> None:
    job = make_job(status)
    before = Job.objects.values().get(id=job.id)
    with pytest.raises(CannotPause, match=f"is {status}: only a job that is pending, retrying, running"):
        pause(job)
    with pytest.raises(NotPaused, match=f"is {status}"):
        resume(job)
    assert Job.objects.values().get(id=job.id) == before


def test_pausing_the_paused_and_resuming_what_is_not_paused_are_refused() -> None:
    job = make_job("pending")
    with pytest.raises(NotPaused, match="is pending"):
        resume(job)
    pause(job)
    before = Job.objects.values().get(id=job.id)
    for mode in ("graceful", "aggressive"):
        with pytest.raises(AlreadyPaused, match="paused already"):
            pause(job, mode=mode)
    assert Job.objects.values().get(id=job.id) == before


@pytest.mark.parametrize("job", ["no id", new_job_id(), 3])
def test_an_unknown_job_is_neither_paused_nor_can_it_be(job: Any) -> None:
    with pytest.raises(JobNotFound, match="no job"):
        pause(job)
    with pytest.raises(JobNotFound, match="no job"):
        resume(job)
    assert not is_paused(job)
    assert not is_pausing(job)


@pytest.mark.parametrize("mode", ["gentle", None, 1, "GRACEFUL"])
def test_an_unknown_mode_is_refused(mode: Any) -> None:
    job = make_job("pending")
    with pytest.raises(OptionError, match="'graceful' or 'aggressive'"):
        pause(job, mode=mode)
    assert present(job).status == "pending"


def test_an_order_is_part_of_the_transaction() -> None:
    job = make_job("pending")
    with transaction.atomic():
        pause(job)
        transaction.set_rollback(True)
    assert present(job).status == "pending"


def test_paused_jobs_are_listed_by_queue() -> None:
    jobs = [make_job("pending", queue=name) for name in ("a", "b", "a")]
    make_job("pending", queue="a")
    for job in jobs:
        pause(job)
    assert [one.id for one in paused_jobs("a")] == [jobs[0].id, jobs[2].id]
    assert [one.id for one in paused_jobs()] == [job.id for job in jobs]
    assert list(paused_jobs("c")) == []


def test_a_paused_job_is_not_claimed_and_can_be_cancelled(runner: Runner) -> None:
    here = runner.enqueue(untouched)
    other = runner.enqueue(untouched)
    pause(here.id)
    assert runner.claim().id == other.id
    cancel(here.id)
    now = row(here)
    assert (now.status, now.paused_from) == ("cancelled", None)


# What runs ----------------------------------------------------------------------------------------------------------


def test_a_running_job_is_given_back_at_its_next_call_and_goes_on_from_its_checkpoints(runner: Runner) -> None:
    def script() -> str:
        call(note, "first")
        if not is_resumed:
            assert elsewhere(lambda: pause(here.id)) is False
            assert elsewhere(lambda: is_pausing(here.id))
        call(note, "second")  # its commit brings the order
        return call(note, "third")

    is_resumed: list[bool] = []
    here = runner.enqueue(script)
    assert isinstance(runner.attempt(), Released)
    now = row(here)
    assert (now.status, now.paused_from, now.attempt, now.worker) == ("paused", "pending", 0, None)
    assert now.pause_requested_at is None
    assert LEDGER == ["first", "second"]
    resume(here.id)
    is_resumed.append(True)
    assert runner.attempt() == Completed('"third"')
    assert LEDGER == ["first", "second", "third"]
    assert not Attempt.objects.exists()


def test_a_job_that_ends_before_it_notices_has_ended(runner: Runner) -> None:
    def script() -> str:
        elsewhere(lambda: pause(here.id))
        return "done"

    here = runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert (row(here).status, is_pausing(here.id)) == ("completed", False)


@pytest.mark.parametrize(
    ("error", "kind", "was"),
    [(OSError("broken"), BackedOff, "retrying"), (Snooze(timedelta(days=1)), Snoozed, "scheduled")],
)
def test_an_attempt_that_ends_otherwise_leaves_a_paused_job(
    runner: Runner, error: Exception, kind: type[object], was: str
) -> None:
    def script() -> None:
        elsewhere(lambda: pause(here.id))
        raise error

    here = runner.enqueue(script, backoff=Backoff.fixed(timedelta(hours=1)))
    assert isinstance(runner.attempt(), kind)
    now = row(here)
    assert (now.status, now.paused_from) == ("paused", was)
    resume(here.id)
    assert row(here).status == was


def test_a_job_that_parks_is_paused_in_its_wait(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_message("go")

    here = runner.enqueue(script)
    job = runner.claim()
    outcome = runner.run(job)
    pause(here.id)
    assert isinstance(outcome, Parked)
    runner.finish(job, outcome)
    now = row(here)
    assert (now.status, now.paused_from, now.waiting_for) == ("paused", "waiting", "message go")


def test_a_job_that_is_about_to_be_paused_can_be_resumed(runner: Runner) -> None:
    def script() -> str:
        elsewhere(lambda: pause(here.id))
        with pytest.raises(AlreadyPaused, match="about to be paused"):
            elsewhere(lambda: pause(here.id))
        elsewhere(lambda: resume(here.id))
        return call(note, "goes on")

    here = runner.enqueue(script)
    assert runner.attempt() == Completed('"goes on"')


def test_a_job_that_is_to_be_cancelled_cannot_be_paused_and_cancelling_wins(runner: Runner) -> None:
    here = runner.enqueue(untouched)
    job = runner.claim()
    pause(here.id)
    cancel(here.id)
    with pytest.raises(CannotPause, match="is to be cancelled"):
        pause(here.id, mode="aggressive")
    runner.finish(job, Released())
    assert row(here).status == "pending"  # a worker cancels it


def test_a_worker_that_dies_leaves_a_paused_job(runner: Runner) -> None:
    here = runner.enqueue(untouched)
    job = runner.claim()
    pause(here.id)
    runner.lose(job)
    now = row(here)
    assert (now.status, now.paused_from, now.worker) == ("paused", "pending", None)


def test_code_that_swallows_the_order_gets_it_again(runner: Runner) -> None:
    def script() -> None:
        elsewhere(lambda: pause(here.id))
        call(note, "first")
        try:
            call(note, "second")
        except JobPaused:
            note("swallowed")
        call(note, "third")

    here = runner.enqueue(script)
    assert isinstance(runner.attempt(), Released)
    assert row(here).status == "paused"
    assert LEDGER == ["first", "swallowed"]


# Aggressive ---------------------------------------------------------------------------------------------------------


def test_x58_an_aggressive_pause_takes_the_job_away_and_late_writes_are_refused(runner: Runner) -> None:
    def script() -> str:
        call(note, "first")
        if len(LEDGER) == 1:
            assert elsewhere(lambda: pause(here.id, mode="aggressive")) is True
            now = row(here)
            assert (now.status, now.paused_from, now.attempt, now.worker) == ("paused", "pending", 0, None)
            call(note, "late")
        return call(note, "second")

    here = runner.enqueue(script)
    job = runner.claim()
    outcome = runner.run(job)
    assert isinstance(outcome, Lost)
    resume(here.id)
    again = runner.claim()
    assert again.token > job.token
    runner.leases.add([again])
    # The old worker reports now: refused.
    runner.finish(job, Completed('"of the old attempt"'))
    assert row(here).status == "running"
    runner.leases.add([again])
    assert runner.run(again) == Completed('"second"')
    runner.finish(again, Completed('"second"'))
    assert row(here).result == '"second"'
    assert LEDGER == ["first", "late", "second"]
    assert [one.name.rpartition(".")[2] for one in Checkpoint.objects.filter(job_id=here.id)] == ["note", "note"]


def test_an_aggressive_pause_does_not_wait_for_a_graceful_one(runner: Runner) -> None:
    here = runner.enqueue(untouched)
    runner.claim()
    assert pause(here.id) is False
    assert pause(here.id, mode="aggressive") is True
    assert (row(here).status, row(here).pause_requested_at) == ("paused", None)


# What comes meanwhile -----------------------------------------------------------------------------------------------


def paused_in_its_wait(runner: Runner, script: Any) -> Any:
    here = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    pause(here.id)
    return here


def test_a_message_that_comes_meanwhile_is_found(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_message("go")

    here = paused_in_its_wait(runner, script)
    send_message(here.id, "go", 7)
    assert row(here).status == "paused"
    resume(here.id)
    assert row(here).status == "pending"
    assert runner.attempt() == Completed("7")


def test_an_event_that_comes_meanwhile_is_found(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_event("shipped")

    here = paused_in_its_wait(runner, script)
    emit("shipped", 8)
    assert row(here).status == "paused"
    resume(here.id)
    assert row(here).status == "pending"
    assert runner.attempt() == Completed("8")


def test_a_decision_that_comes_meanwhile_is_found(runner: Runner) -> None:
    def script() -> bool:
        return wait_for_approval("ship").approved

    here = paused_in_its_wait(runner, script)
    approve(pending_approvals(here.id).get())
    resume(here.id)
    assert row(here).status == "pending"
    assert runner.attempt() == Completed("true")


def test_a_time_that_comes_meanwhile_is_found(runner: Runner) -> None:
    def script() -> str:
        sleep(3600)
        return "woke"

    here = paused_in_its_wait(runner, script)
    resume(here.id)
    assert row(here).status == "waiting"
    pause(here.id)
    Job.objects.filter(id=here.id).update(run_at=row(here).created_at)
    runner.promote()
    assert row(here).status == "paused"
    resume(here.id)
    runner.promote()
    assert row(here).status == "pending"


@durable_job
def child(number: int) -> int:
    """Give a number back."""
    return number


def test_children_that_end_meanwhile_are_found(runner: Runner) -> None:
    def script() -> Any:
        return gather(child.s(1), child.s(2)).values()

    here = paused_in_its_wait(runner, script)
    runner.attempt()
    resume(here.id)
    assert row(here).status == "waiting"  # one is open
    pause(here.id)
    runner.attempt()
    assert row(here).status == "paused"
    resume(here.id)
    assert row(here).status == "pending"
    assert runner.attempt() == Completed("[1,2]")


def test_a_wait_for_which_nothing_came_goes_on(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_message("go")

    here = paused_in_its_wait(runner, script)
    before = row(here).waiting_for
    resume(here.id)
    assert (row(here).status, row(here).waiting_for) == ("waiting", before)
    send_message(here.id, "go", 7)
    assert runner.attempt() == Completed("7")


def test_a_paused_child_keeps_its_parent_waiting(runner: Runner) -> None:
    def script() -> Any:
        return gather(child.s(1), child.s(2)).values()

    here = runner.enqueue(script)
    runner.attempt()
    first, _second = Job.objects.filter(parent_id=here.id).order_by("id")
    pause(first)
    runner.attempt()
    assert row(here).status == "waiting"
    resume(first)
    runner.attempt()
    assert runner.attempt() == Completed("[1,2]")


# Sequences ----------------------------------------------------------------------------------------------------------


def test_a_job_that_is_paused_in_a_line_keeps_its_place(runner: Runner) -> None:
    first, second, third = (runner.enqueue(untouched, sequence_key="one") for _ in range(3))
    pause(second.id)
    assert runner.claim().id == first.id
    cancel(third.id)
    third = runner.enqueue(untouched, sequence_key="one")
    runner.finish(runner_job(runner, first), Completed(None))
    assert (row(second).status, row(third).status) == ("paused", "waiting")
    resume(second.id)
    assert (row(second).status, row(third).status) == ("pending", "waiting")
    runner.attempt()
    assert row(third).status == "pending"


def test_a_job_that_is_paused_behind_the_front_waits_for_its_turn_when_it_is_resumed(runner: Runner) -> None:
    first, second = (runner.enqueue(untouched, sequence_key="one") for _ in range(2))
    pause(second.id)
    resume(second.id)
    assert (row(first).status, row(second).status) == ("pending", "waiting")
    runner.attempt()
    assert row(second).status == "pending"


def test_a_paused_front_holds_the_line(runner: Runner) -> None:
    first, second = (runner.enqueue(untouched, sequence_key="one") for _ in range(2))
    pause(first.id)
    assert row(second).status == "waiting"
    resume(first.id)
    runner.attempt()
    assert row(second).status == "pending"


def runner_job(runner: Runner, handle: Any) -> Any:
    (held,) = [job for job in runner.leases.jobs() if job.id == handle.id]
    return held


# Races --------------------------------------------------------------------------------------------------------------


def test_pause_and_completion_at_one_moment_have_one_outcome(runner: Runner) -> None:
    for number in range(100):
        mode = "graceful" if number % 2 else "aggressive"
        here = runner.enqueue(untouched)
        job = runner.claim()
        outcome = runner.run(job)
        answers: list[object] = []

        def order(job_id: Any = here.id, mode: Any = mode, answers: list[object] = answers) -> None:
            try:
                answers.append(pause(job_id, mode=mode))
            except CannotPause:
                answers.append("refused")

        together(lambda job=job, outcome=outcome: runner.finish(job, outcome), order)  # type: ignore[misc]
        now = row(here)
        assert (now.worker, now.lease_expires_at) == (None, None)
        if answers == [True]:
            assert (now.status, now.result, now.attempt) == ("paused", None, 0)
        else:
            assert now.status == "completed"
        assert answers in ([True], [False], ["refused"])


def test_a_retry_of_a_paused_job_is_refused() -> None:
    job = make_job("failed")
    retry(job)
    pause(job)
    with pytest.raises(TransitionRefused, match="is paused"):
        retry(job)


def test_the_async_twins() -> None:
    job = make_job("pending")
    assert asyncio.run(apause(job)) is True
    assert is_paused(job)
    asyncio.run(aresume(job))
    assert present(job).status == "pending"
