"""`cancel(job, force=True)`: taken from its worker at once, and never completed afterwards (X59)."""

from __future__ import annotations

from typing import Any

import pytest

from django_durable_jobs import OptionError, call, cancel, compensate, durable_job, gather, retry
from django_durable_jobs.errors import LeaseLost, TransitionRefused
from django_durable_jobs.models import Attempt, Job
from django_durable_jobs.outcomes import Completed, Lost, Parked
from django_durable_jobs.states import OPEN, Status
from tests.durable.running import COMMITS, Runner, row, scripted
from tests.factories import make_job, present
from tests.waiting import elsewhere, together

pytestmark = COMMITS

LEDGER: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


@durable_job
def note(what: str) -> str:
    LEDGER.append(what)
    return what


def untouched() -> None:
    LEDGER.append("ran")


@pytest.mark.parametrize("status", sorted(OPEN))
def test_a_job_in_any_open_status_is_cancelled_when_it_returns(status: Status) -> None:
    job = make_job(status)
    result = cancel(job, reason="no longer wanted", force=True)
    assert (result.cancelled, result.requested) == ([job.id], [])
    now = present(job)
    assert (now.status, now.last_error, now.worker_id, now.lease_expires_at) == (
        *("cancelled", "no longer wanted"),
        *(None, None),
    )
    assert now.token == job.token + (status == Status.RUNNING)
    with pytest.raises(TransitionRefused, match="is cancelled"):
        cancel(job, force=True)


def test_code_that_runs_on_is_refused_at_its_next_call(runner: Runner) -> None:
    def script() -> None:
        call(note, "first")
        assert elsewhere(lambda: cancel(here.id, force=True)).cancelled == [here.id]
        try:
            call(note, "second")
        except LeaseLost:
            LEDGER.append("lost")
            raise

    here = runner.enqueue(script)
    assert runner.attempt() == Lost()
    assert LEDGER == ["first", "second", "lost"], "the call ran, and its result was refused"
    assert row(here).status == "cancelled"
    assert not Attempt.objects.exists()


def test_what_the_code_returns_is_not_stored(runner: Runner) -> None:
    def script() -> str:
        elsewhere(lambda: cancel(here.id, force=True))
        return "done"

    here = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    now = row(here)
    assert (now.status, now.result, now.last_error) == ("cancelled", None, "cancelled by an order")


def test_a_job_that_is_retried_afterwards_has_a_greater_token_than_the_code_that_still_runs(runner: Runner) -> None:
    here = runner.enqueue(untouched)
    late = runner.claim()
    cancel(here.id, force=True)
    retry(here.id)
    again = runner.claim()
    assert again.token > late.token
    runner.finish(late, Completed('"late"'))
    assert (row(here).status, row(here).token) == ("running", again.token)


def test_what_was_registered_is_undone_by_another_worker(runner: Runner) -> None:
    def script() -> None:
        call(note, "book")
        compensate(note, "unbook")
        done = elsewhere(lambda: cancel(here.id, force=True, reason="too dear"))
        assert (done.cancelled, done.requested) == ([], [here.id])
        call(note, "pay")

    here = runner.enqueue(script)
    assert runner.attempt() == Lost()
    assert row(here).status == "pending"
    runner.attempt()
    assert row(here).status == "cancelled"
    assert LEDGER == ["book", "pay", "unbook"]


def test_the_whole_family_is_taken_away(runner: Runner) -> None:
    def parent() -> None:
        gather(scripted.s("untouched"))

    here = runner.enqueue(parent)
    runner.enqueue(untouched, delay=3600)
    assert isinstance(runner.attempt(), Parked)
    child = runner.claim()
    assert set(cancel(here.id, force=True).cancelled) == {here.id, child.id}
    runner.finish(child, Completed(None))
    assert {job.status for job in Job.objects.filter(id__in=[here.id, child.id])} == {"cancelled"}


def test_x59_force_and_completion_at_one_moment_have_one_outcome(runner: Runner) -> None:
    for _round in range(60):
        here = runner.enqueue(untouched)
        job = runner.claim()
        answers: list[object] = []

        def order(job_id: Any = here.id, answers: list[object] = answers) -> None:
            try:
                answers.append(cancel(job_id, force=True).cancelled)
            except TransitionRefused:
                answers.append("refused")

        together(lambda job=job: runner.finish(job, Completed(None)), order)  # type: ignore[misc]
        now = row(here)
        ended = {"completed": "refused", "cancelled": [here.id]}
        assert answers == [ended[now.status]]
        assert (now.worker, now.lease_expires_at) == (None, None)


@pytest.mark.parametrize("value", [1, "yes", None, ["true"]], ids=repr)
def test_anything_but_yes_or_no_is_refused(value: Any) -> None:
    job = make_job()
    with pytest.raises(OptionError, match="force must be true or false"):
        cancel(job, force=value)
    assert present(job).status == "pending"
