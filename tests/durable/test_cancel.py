"""Orders to cancel: at once for what does not run, where the code notices for what does (X59)."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import Backoff, Snooze, acall, call, cancel, retry, sleep
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import (
    JobCancelled,
    JobNotFound,
    OptionError,
    SerializationError,
    TransitionRefused,
)
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Attempt, Job
from django_durable_jobs.operations.control import orders_for
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Released, Snoozed
from django_durable_jobs.states import FINAL, OPEN, Status
from tests.durable.running import COMMITS, Runner, row
from tests.factories import make_job, present
from tests.reliability.outages import options, working
from tests.waiting import elsewhere, eventually, together

pytestmark = COMMITS

LEDGER: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


def note(what: str) -> str:
    LEDGER.append(what)
    return what


@pytest.mark.parametrize("status", sorted(OPEN - {Status.RUNNING}))
def test_a_job_that_does_not_run_is_cancelled_at_once(status: Status) -> None:
    job = make_job(status)
    result = cancel(job, reason="no longer wanted")
    assert (result.cancelled, result.requested) == ([job.id], [])
    now = present(job)
    assert (now.status, now.last_error, now.waiting_for, now.paused_from) == (
        "cancelled",
        "no longer wanted",
        None,
        None,
    )
    assert now.cancel_requested_at is not None


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_job_that_has_ended_cannot_be_cancelled(status: Status) -> None:
    job = make_job(status)
    before = Job.objects.values().get(id=job.id)
    with pytest.raises(TransitionRefused, match=f"is {status}"):
        cancel(job)
    assert Job.objects.values().get(id=job.id) == before


@pytest.mark.parametrize("job", ["no id", new_job_id()])
def test_an_unknown_job_cannot_be_cancelled(job: Any) -> None:
    with pytest.raises(JobNotFound, match="no job"):
        cancel(job)


def test_a_running_job_stops_at_its_next_call(runner: Runner) -> None:
    def script() -> None:
        call(note, "first")
        result = elsewhere(lambda: cancel(here.id))
        assert result.requested == [here.id]
        note("goes on")
        call(note, "second")  # its commit brings the order
        call(note, "third")

    here = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Cancelled)
    assert LEDGER == ["first", "goes on", "second"]
    now = row(here)
    assert (now.status, now.worker) == ("cancelled", None)
    assert "order" in (now.last_error or "")
    assert not Attempt.objects.exists()


def test_a_wait_brings_the_order_too(runner: Runner) -> None:
    def script() -> None:
        elsewhere(lambda: cancel(here.id))
        sleep(3600)

    here = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert row(here).status == "cancelled"


def test_code_that_swallows_the_order_gets_it_again(runner: Runner) -> None:
    def script() -> None:
        elsewhere(lambda: cancel(here.id))
        call(note, "first")
        try:
            call(note, "second")
        except JobCancelled:
            note("swallowed")
        call(note, "third")

    here = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert LEDGER == ["first", "swallowed"]


def test_a_job_that_completes_before_it_notices_is_completed(runner: Runner) -> None:
    def script() -> str:
        elsewhere(lambda: cancel(here.id))
        return "done"

    here = runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert row(here).status == "completed"
    with pytest.raises(TransitionRefused):
        cancel(here.id)


def test_an_order_that_comes_while_the_job_parks_is_not_slept_over(runner: Runner) -> None:
    def script() -> None:
        call(note, "first")
        sleep(3600)

    here = runner.enqueue(script)
    job = runner.claim()
    outcome = runner.run(job)
    assert cancel(here.id).requested == [here.id]
    runner.finish(job, outcome)
    assert row(here).status == "pending"
    assert isinstance(runner.attempt(), Cancelled)
    assert row(here).status == "cancelled"
    assert LEDGER == ["first"]


@pytest.mark.parametrize("error", [OSError("broken"), Snooze(timedelta(days=1))])
def test_an_order_that_the_code_did_not_notice_is_not_left_lying(runner: Runner, error: Exception) -> None:
    def script() -> None:
        elsewhere(lambda: cancel(here.id))
        raise error

    here = runner.enqueue(script, backoff=Backoff.fixed(timedelta(hours=1)))
    assert isinstance(runner.attempt(), BackedOff | Snoozed)
    assert row(here).status == "pending"  # promoted at once
    assert isinstance(runner.attempt(), Cancelled)
    assert row(here).status == "cancelled"


def test_a_job_that_was_lost_with_an_order_in_its_last_attempt_is_cancelled(runner: Runner) -> None:
    here = runner.enqueue(untouched, retries=0)
    job = runner.claim()
    cancel(here.id)
    runner.lose(job)
    assert (row(here).status, row(here).attempt) == ("pending", 0)
    assert isinstance(runner.attempt(rescued=True), Cancelled)
    assert row(here).status == "cancelled"


@pytest.mark.parametrize("kind", ["released", "rescued"])
def test_a_job_that_comes_back_with_an_order_does_not_run(runner: Runner, kind: str) -> None:
    here = runner.enqueue(untouched)
    job = runner.claim()
    cancel(here.id)
    if kind == "released":
        runner.finish(job, Released())
    else:
        runner.lose(job)
    assert isinstance(runner.attempt(rescued=kind == "rescued"), Cancelled)
    assert row(here).status == "cancelled"
    assert LEDGER == []


def untouched() -> None:
    note("ran")


def test_a_cancelled_job_that_is_retried_runs(runner: Runner) -> None:
    here = runner.enqueue(untouched)
    cancel(here.id)
    retry(here.id)
    assert row(here).cancel_requested_at is None
    assert isinstance(runner.attempt(), Completed)
    assert LEDGER == ["ran"]


def test_the_holder_asks_for_orders(runner: Runner) -> None:
    here, _other = runner.enqueue(untouched), runner.enqueue(untouched)
    runner.claim()
    runner.claim()
    assert orders_for(runner.worker.pk).cancelled == []
    cancel(here.id)
    assert orders_for(runner.worker.pk).cancelled == [here.id]
    assert orders_for(runner.worker.pk + 1).cancelled == []


def test_an_async_job_is_cancelled_where_it_waits(runner: Runner, dialect: Dialect) -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def script() -> None:
        await acall(note, "first")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    quick = timedelta(seconds=3600 if dialect.has_notifications else 0.2)
    with working(options(poll_interval=quick, idle_poll_interval=quick)):
        here = runner.enqueue(script)
        assert begun.wait(20)
        cancel(here.id)
        eventually(lambda: row(here).status == "cancelled", seconds=20)
    assert cleaned.is_set()


def test_a_thread_that_waits_for_its_next_try_is_told_at_once(runner: Runner, dialect: Dialect) -> None:
    begun = threading.Event()

    def fail() -> None:
        begun.set()
        raise ValueError("no")

    def script() -> None:
        call.using(retries=9)(fail)

    quick = timedelta(seconds=3600 if dialect.has_notifications else 0.2)
    with working(options(poll_interval=quick, idle_poll_interval=quick)):
        here = runner.enqueue(script, call_backoff=Backoff.fixed(timedelta(hours=1)))
        assert begun.wait(20)
        cancel(here.id)
        eventually(lambda: row(here).status == "cancelled", seconds=20)


ROUNDS = 100


def test_x59_cancel_and_completion_at_one_moment_have_one_outcome(runner: Runner) -> None:
    came_first = set()
    for _round in range(ROUNDS):
        here = runner.enqueue(untouched)
        job = runner.claim()
        outcome = runner.run(job)
        answers: list[object] = []

        def order(job_id: Any = here.id, answers: list[object] = answers) -> None:
            try:
                answers.append(cancel(job_id).requested)
            except TransitionRefused:
                answers.append("refused")

        together(lambda job=job, outcome=outcome: runner.finish(job, outcome), order)  # type: ignore[misc]
        now = row(here)
        assert (now.status, now.result, now.last_error) == ("completed", None, None)
        assert (now.worker, now.lease_expires_at, now.run_at, now.waiting_for) == (None, None, None, None)
        assert now.finished_at is not None
        # The answer is what happened: the order is there if it was taken, and nothing of it if it was refused.
        assert answers == (["refused"] if now.cancel_requested_at is None else [[here.id]])
        came_first.add(now.cancel_requested_at is None)
        assert not Attempt.objects.filter(job_id=here.id).exists()
    assert LEDGER == ["ran"] * ROUNDS


@pytest.mark.parametrize("reason", ["a\0b", "\ud800", None, 5, "x" * 20_000], ids=lambda value: ascii(value)[:20])
def test_a_reason_that_cannot_be_stored_is_refused_and_nothing_happens(runner: Runner, reason: Any) -> None:
    job = runner.enqueue(untouched)
    with pytest.raises((OptionError, SerializationError), match="reason"):
        cancel(job, reason=reason)
    assert job.status == "pending"
