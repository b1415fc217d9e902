"""What signals tell of a job that runs: which events come, what they say, and nothing that is not committed (A11)."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from django_durable_jobs import (
    Backoff,
    NoRetry,
    Snooze,
    asave_checkpoint,
    cancel,
    durable_job,
    gather,
    get_version,
    pause,
    save_checkpoint,
    signals,
    sleep,
    wait_for_message,
)
from django_durable_jobs.durable.call import acall, call
from django_durable_jobs.events import (
    CheckpointSavedEvent,
    JobCancelledEvent,
    JobCompletedEvent,
    JobEnqueuedEvent,
    JobFailedEvent,
    JobParkedEvent,
    JobPausedEvent,
    JobReleasedEvent,
    JobRetryingEvent,
    JobSnoozedEvent,
    JobStartedEvent,
)
from django_durable_jobs.models import Job
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Completed, Released
from tests.durable.running import COMMITS, Runner, row, scripted
from tests.listening import connected, kinds, listening

pytestmark = COMMITS


def double(number: int) -> int:
    return 2 * number


def refuse() -> None:
    raise ValueError("no")


def of(job: Any, attempt: int) -> dict[str, Any]:
    """Return what each event of a job says."""
    return {"job_id": job.id, "definition": job.definition, "queue": "default", "attempt": attempt}


def test_a11_a_job_that_completes_is_told_of_from_its_enqueue_on(runner: Runner) -> None:
    def script() -> int:
        return call(double, 2) + 1

    with listening() as told:
        job = runner.enqueue(script)
        runner.attempt()
    enqueued, started, saved, completed = told
    assert enqueued == JobEnqueuedEvent(**of(job, 0))
    assert started == JobStartedEvent(**of(job, 1), worker=runner.worker.name)
    name = f"{double.__module__}.double"
    assert saved == CheckpointSavedEvent(**of(job, 1), call="1", name=name, kind="call", failed=False)
    assert completed == JobCompletedEvent(**of(job, 1), worker=runner.worker.name, duration=None)


def test_a11_an_attempt_that_fails_says_when_the_next_one_is_due_and_the_last_one_that_it_was_the_last(
    runner: Runner,
) -> None:
    with listening() as told:
        job = runner.enqueue(refuse, retries=1, backoff=Backoff.fixed(timedelta(hours=1)))
        runner.attempt()
        due = row(job).run_at
        Job.objects.filter(id=job.id).update(run_at=row(job).created_at)
        runner.promote()
        runner.attempt()
    assert kinds(told) == ["job_enqueued", "job_started", "job_retrying", "job_started", "job_failed"]
    worker = runner.worker.name
    assert due is not None
    assert told[2] == JobRetryingEvent(**of(job, 1), worker=worker, error="ValueError: no", next_run_at=due)
    assert told[4] == JobFailedEvent(**of(job, 2), worker=worker, error="ValueError: no")


def test_a11_a_job_that_waits_or_snoozes_says_for_what_and_until_when(runner: Runner) -> None:
    tries: list[int] = []

    def script() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Snooze(3600)
        sleep(3600)

    with listening(signals.job_snoozed, signals.job_parked) as told:
        job = runner.enqueue(script)
        runner.attempt()
        due = row(job).run_at
        Job.objects.filter(id=job.id).update(run_at=row(job).created_at)
        runner.promote()
        runner.attempt()
    assert due is not None
    snoozed, parked = told
    worker = runner.worker.name
    assert snoozed == JobSnoozedEvent(**of(job, 1), worker=worker, next_run_at=due)
    assert parked == JobParkedEvent(**of(job, 1), worker=worker, waiting_for=("time",), until=row(job).run_at)


def test_a11_every_kind_of_checkpoint_is_told_of_and_what_a_wait_fixes_is_not(runner: Runner) -> None:
    def script() -> None:
        get_version("change", 0, 1)
        try:
            call.using(retries=0)(refuse)
        except ValueError:
            call(double, 1)
        save_checkpoint("place", 7)
        wait_for_message("go", timeout=60)

    with listening(signals.checkpoint_saved) as told:
        runner.enqueue(script)
        runner.attempt()
    saved = [(event.kind, event.call, event.failed) for event in told if isinstance(event, CheckpointSavedEvent)]
    assert saved == [
        ("version", "v:change", False),
        ("call", "1", True),
        ("call", "2", False),
        ("value", "", False),
    ]


def test_a11_an_async_job_is_told_of_the_same_way(runner: Runner) -> None:
    async def async_script() -> None:
        await acall(double, 2)
        await asave_checkpoint("place", 7)

    with listening() as told:
        runner.enqueue(async_script)
        runner.attempt()
    assert kinds(told) == ["job_enqueued", "job_started", "checkpoint_saved", "checkpoint_saved", "job_completed"]


@durable_job(atomic=True)
def write_atomically() -> None:
    pass


def test_a11_an_atomic_job_is_told_of_once_it_is_committed(runner: Runner) -> None:
    with listening() as told:
        write_atomically.enqueue()
        runner.attempt()
    assert kinds(told) == ["job_enqueued", "job_started", "job_completed"]


def test_a11_children_have_events_of_their_own(runner: Runner) -> None:
    def child() -> None:
        pass

    def script() -> None:
        gather(scripted.s("child"), scripted.s("child"))

    with listening() as told:
        runner.enqueue(child)
        runner.attempt()
        told.clear()
        runner.enqueue(script)
        for _ in range(4):
            runner.attempt()
    started = ["job_started", "job_completed"]
    spawned = ["job_enqueued", "job_enqueued"]
    assert kinds(told)[:2] == ["job_enqueued", "job_started"]
    rest = [kind for kind in kinds(told)[2:] if kind != "checkpoint_saved"]
    assert rest == [*spawned, "job_parked", *started, *started, *started]


# Orders -----------------------------------------------------------------------------------------------------------


def test_c6_a_running_job_that_is_to_be_paused_says_who_wanted_it_once_it_is(runner: Runner) -> None:
    def script() -> None:
        call(double, 1)
        call(double, 2)

    with listening() as told:
        job = runner.enqueue(script)
        claimed = runner.claim()
        assert not pause(job, reason="wrong price", by="ada")
        assert "job_paused" not in kinds(told)
        outcome = runner.run(claimed)
        assert outcome == Released()
        runner.finish(claimed, outcome)
    assert kinds(told)[-1] == "job_paused"
    assert told[-1] == JobPausedEvent(**of(job, 0), mode="graceful", reason="wrong price", by="ada")


def test_a_running_job_that_is_cancelled_is_told_of_when_it_has_stopped(runner: Runner) -> None:
    def script() -> None:
        call(double, 1)
        call(double, 2)

    with listening(signals.job_cancelled) as told:
        job = runner.enqueue(script)
        claimed = runner.claim()
        cancel(job, reason="too late")
        assert told == []
        runner.finish(claimed, runner.run(claimed))
    (cancelled,) = told
    assert isinstance(cancelled, JobCancelledEvent)
    assert (cancelled.job_id, cancelled.worker) == (job.id, runner.worker.name)


def test_what_a_lost_lease_has_not_stored_is_not_told(runner: Runner) -> None:
    with listening(signals.job_completed, signals.job_failed, signals.job_released) as told:
        runner.enqueue(refuse, retries=0)
        claimed = runner.claim()
        stale = claimed._replace(token=claimed.token + 1)
        runner.finish(stale, Completed("1"))
        runner.finish(stale, runner.run(claimed))
    assert told == []


# Receivers --------------------------------------------------------------------------------------------------------


def test_i29_a_receiver_that_raises_is_logged_with_the_job_and_harms_nobody(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_more: object) -> None:
        raise RuntimeError("the mail server is away")

    with connected(broken), listening(signals.job_completed) as told, caplog.at_level(logging.ERROR):
        job = runner.enqueue(double_script)
        runner.attempt()
    assert row(job).status == "completed"
    assert kinds(told) == ["job_completed"]
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 4  # enqueued, started, saved, completed
    assert {(vars(line)["job"], line.exc_info is not None) for line in lines} == {(str(job.id), True)}


def double_script() -> int:
    return call(double, 2)


def test_receivers_may_be_async(runner: Runner) -> None:
    told: list[str] = []

    async def receiver(sender: str, event: JobCompletedEvent, **_more: object) -> None:
        told.append(f"{sender} {event.attempt}")

    with connected(receiver, signals.job_completed):
        job = runner.enqueue(double_script)
        runner.attempt()
    assert told == [f"{job.definition} 1"]


def test_receivers_are_called_after_the_commit(runner: Runner) -> None:
    """Nothing of ours is open when they run, and other connections see what they are told of."""
    seen: list[bool] = []

    def receiver(event: Any, **_more: object) -> None:
        seen.append(connection.in_atomic_block)

    with connected(receiver):
        runner.enqueue(refuse, retries=0)
        runner.attempt()
    assert seen == [False] * 3


def test_an_enqueue_that_is_rolled_back_is_not_told(runner: Runner) -> None:
    def enqueue_and_fail() -> None:
        with transaction.atomic():
            runner.enqueue(double_script)
            assert told == []
            raise ValueError("never mind")

    with listening() as told:
        with pytest.raises(ValueError, match="never mind"):
            enqueue_and_fail()
        assert told == []
        with transaction.atomic():
            runner.enqueue(double_script)
            assert told == []
    assert kinds(told) == ["job_enqueued"]


# Hooks ------------------------------------------------------------------------------------------------------------


@durable_job
def hooked(error: str = "") -> None:
    if error:
        raise NoRetry(ValueError(error))


HEARD: list[str] = []


@hooked.on_start
def _started(event: JobStartedEvent) -> None:
    HEARD.append(f"start {event.attempt}")


@hooked.on_complete
async def _completed(event: JobCompletedEvent) -> None:
    HEARD.append(f"complete {event.attempt}")


@hooked.on_failure
def _failed(event: JobFailedEvent) -> None:
    HEARD.append(f"failure {event.error}")


@durable_job(backoff=Backoff.none())
def tried_twice() -> None:
    raise ValueError("again")


@tried_twice.on_retry
def _retrying(event: JobRetryingEvent) -> None:
    HEARD.append(f"retry {event.error}")
    raise RuntimeError("in the hook")


def test_a11_hooks_are_called_for_their_own_definition(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    HEARD.clear()
    hooked.enqueue()
    runner.attempt()
    hooked.using(queue="default").enqueue("no")
    runner.attempt()
    runner.enqueue(double_script)
    runner.attempt()
    assert HEARD == ["start 1", "complete 1", "start 1", "failure ValueError: no"]
    HEARD.clear()
    job = tried_twice.enqueue()
    runner.attempt()
    assert HEARD == ["retry ValueError: again"]
    assert "in the hook" in caplog.text
    assert row(job).status == "pending"


def test_a_job_that_gives_way_to_a_stopping_worker_is_released(runner: Runner) -> None:

    with listening(signals.job_released) as told:
        job = runner.enqueue(double_script)
        finish([Ending(runner.claim(), Released())])
        assert told == []
        finish([Ending(runner.claim(), Released(), "me", 1.5)])
    assert told == [JobReleasedEvent(**of(job, 1), worker="me", duration=timedelta(seconds=1.5))]
