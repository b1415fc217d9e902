"""Jobs with ``atomic=True``: their writes and their completion are one commit (I16, I18)."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from django_durable_jobs import acall, call, durable_job, progress, sleep
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.errors import DefinitionError, OptionError
from django_durable_jobs.models import Attempt, Job, Queue
from django_durable_jobs.operations.cancel import cancel
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Failed, Lost, Stored
from django_durable_jobs.worker import waker
from tests.durable.committing import effects, lose_commit, take_away, write
from tests.durable.running import COMMITS, NOW, SCRIPTS, Runner, row
from tests.factories import make_job, present
from tests.reliability.outages import options, working
from tests.waiting import elsewhere, eventually

pytestmark = COMMITS

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    RAN.clear()


@durable_job(atomic=True, backoff=NOW)
def whole(script: str) -> Any:
    """Run a test's script as one transaction."""
    RAN.append(script)
    return SCRIPTS[script]()


def enqueue(script: Any, **given: Any) -> JobHandle[Any]:
    SCRIPTS[script.__name__] = script
    job: JobHandle[Any] = whole.using(**given).enqueue(script.__name__)
    return job


def transfer() -> int:
    write("moved")
    return 3


def test_it_is_completed_with_its_writes(runner: Runner) -> None:
    job = enqueue(transfer)
    claimed = runner.claim()
    assert runner.run(claimed) == Stored()
    now = row(job)
    assert (now.status, now.result, now.worker, now.lease_expires_at) == ("completed", "3", None, None)
    assert now.finished_at is not None
    assert effects() == ["moved"]
    assert job.result() == 3


@pytest.mark.parametrize(("point", "runs"), [("after-body", 2), ("before-commit", 2)])
def test_x3_i16_a_worker_that_dies_before_the_commit_leaves_nothing(runner: Runner, point: str, runs: int) -> None:
    job = enqueue(transfer)
    runner.attempt_until_killed(point)
    assert effects() == []
    assert runner.attempt(rescued=True) == Stored()
    assert (effects(), len(RAN), row(job).status) == (["moved"], runs, "completed")


def test_i16_an_error_undoes_the_writes_and_takes_the_usual_way(runner: Runner) -> None:
    def fails() -> None:
        write("half")
        raise ValueError("no")

    job = enqueue(fails, retries=1)
    assert isinstance(runner.attempt(), BackedOff)
    assert isinstance(runner.attempt(), Failed)
    now = row(job)
    assert (now.status, now.attempt, now.last_error) == ("failed", 2, "ValueError: no")
    assert Attempt.objects.filter(job_id=job.id).count() == 2
    assert effects() == []


def test_i16_under_a_token_that_is_gone_nothing_is_committed(runner: Runner) -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("one writer at a time: nobody can take the job while it runs")

    def loses() -> None:
        write("zombie")
        assert elsewhere(lambda: take_away(job.id)) == 1

    job = enqueue(loses)
    assert runner.attempt() == Lost()
    assert effects() == []
    assert row(job).status == "running"


@pytest.mark.parametrize(("what", "runs"), [("answer", 1), ("request", 2)])
def test_x4_a_commit_that_was_not_answered_is_looked_up(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, what: str, runs: int
) -> None:
    lost = lose_commit(monkeypatch, dialect, what)
    job = enqueue(transfer)
    outcomes = [runner.attempt()]
    if what == "request":
        assert isinstance(outcomes[0], BackedOff)
        outcomes.append(runner.attempt())
    assert outcomes[-1] == Stored()
    assert lost == [what]
    assert (effects(), len(RAN), row(job).status, row(job).attempt) == (["moved"], runs, "completed", runs)


@pytest.mark.parametrize("durable", [lambda: call(transfer), lambda: sleep(1)], ids=["call", "sleep"])
def test_x33_a_durable_call_inside_is_refused(runner: Runner, durable: Any) -> None:
    def script() -> None:
        write("half")
        durable()

    job = enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith("OpenTransaction")
    assert (effects(), row(job).status) == ([], "failed")


def test_x34_a_database_error_that_was_caught_gets_a_clear_error(runner: Runner) -> None:
    def script() -> None:
        write("half")
        Queue.objects.create(name="taken")
        with suppress(IntegrityError):
            Queue.objects.create(name="taken")

    job = enqueue(script, retries=0)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith(f"BrokenTransaction: Job {job.id} has returned")
    assert (effects(), row(job).status) == ([], "failed")
    assert Attempt.objects.get().error == row(job).last_error


def test_a_result_that_cannot_be_stored_undoes_the_writes(runner: Runner) -> None:
    def script() -> object:
        write("half")
        return object()

    enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "SerializationError" in outcome.failure.error
    assert effects() == []


def test_an_error_of_on_commit_does_not_undo_it(runner: Runner) -> None:
    def script() -> None:
        write("moved")
        transaction.on_commit(lambda: 1 / 0)

    job = enqueue(script)
    assert runner.attempt() == Stored()
    assert (effects(), row(job).status) == (["moved"], "completed")


def test_an_order_to_cancel_ends_it_at_its_progress(runner: Runner) -> None:
    def script() -> None:
        write("half")
        progress(1)

    job = enqueue(script)
    claimed = runner.claim()
    cancel(job.id)
    outcome = runner.run(claimed._replace(cancel_requested_at=row(job).cancel_requested_at))
    assert isinstance(outcome, Cancelled)
    assert effects() == []


def _child(runner: Runner) -> tuple[Job, Job]:
    parent = make_job("waiting", waiting_for="children 0/1")
    child = enqueue(transfer)
    Job.objects.filter(id=child.id).update(parent=parent.id, parent_call="children 0/1")
    return parent, row(child)


def test_the_end_of_a_child_that_stored_itself_wakes_its_parent(runner: Runner) -> None:
    parent, _ = _child(runner)
    claimed = runner.claim()
    assert runner.run(claimed) == Stored()
    assert present(parent).status == "waiting"
    assert finish([Ending(claimed, Stored())])[0] == {claimed.id}
    assert present(parent).status == "pending"


def test_a_worker_wakes_the_parent_of_an_atomic_child(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = _child(runner)
    Job.objects.filter(id=parent.id).update(queue="elsewhere")
    # The net for wake-ups that a crash has lost must not do it.
    monkeypatch.setattr(waker, "wake_forgotten", lambda: 0)
    with working():
        eventually(lambda: present(child).status == "completed")
        eventually(lambda: present(parent).status == "pending")
    assert effects() == ["moved"]


def test_a_worker_runs_atomic_jobs_beside_others_and_reports_none_as_lost(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [enqueue(transfer) for _ in range(20)]
    with working(options(heartbeat=timedelta(seconds=0.01))):
        eventually(lambda: Job.objects.filter(status="completed").count() == len(jobs))
    assert len(effects()) == len(jobs)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_an_atomic_job_is_no_call_of_another(runner: Runner) -> None:
    def script() -> None:
        with pytest.raises(DefinitionError, match=r"atomic=True.*@atomic_step"):
            call(whole, "transfer")

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)


def test_an_async_function_cannot_be_atomic() -> None:
    async def function() -> None:
        await acall(transfer)

    function.__qualname__ = "function"
    with pytest.raises(DefinitionError, match=r"function is async.*@atomic_step"):
        durable_job(atomic=True)(function)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_atomic_is_true_or_false(value: Any) -> None:
    def function() -> None: ...

    function.__qualname__ = "function"
    with pytest.raises(OptionError, match="atomic must be True or False"):
        durable_job(atomic=value)(function)


def test_atomic_belongs_to_the_function_not_to_one_enqueue() -> None:
    with pytest.raises(DefinitionError, match="no option 'atomic'"):
        whole.using(atomic=False)
