"""What orders tell: who, why and how, once they are committed, and nothing when they are rolled back (C6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from django.db import transaction

from django_durable_jobs import (
    AlreadyPaused,
    aresume,
    cancel,
    enqueue_many,
    explain,
    pause,
    pause_queue,
    pause_worker,
    resume,
    resume_queue,
    resume_worker,
    signals,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.errors import DefinitionError
from django_durable_jobs.events import (
    JobCancelledEvent,
    JobFailedEvent,
    JobPausedEvent,
    JobReleasedEvent,
    JobRescuedEvent,
    JobResumedEvent,
    QueuePausedEvent,
    QueueResumedEvent,
    WorkerPausedEvent,
    WorkerResumedEvent,
    WorkerStartedEvent,
    WorkerStoppedEvent,
)
from django_durable_jobs.models import AuditEntry, Job, Queue
from django_durable_jobs.operations.catalogue import carry_out, verb_of
from django_durable_jobs.operations.queues import resume_due
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.workers import register, stopped
from tests.factories import make_abandoned_job, make_job, make_worker, present
from tests.jobs import add, noop
from tests.listening import kinds, listening
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])


def of(job: Job) -> dict[str, Any]:
    """Return what each event of a job says."""
    return {"job_id": job.id, "definition": job.definition, "queue": job.queue, "attempt": job.attempt}


# Jobs ---------------------------------------------------------------------------------------------------------------


def test_c6_a_job_is_paused_and_resumed_by_somebody_for_a_reason() -> None:
    job = make_job("scheduled")
    with listening() as told:
        assert pause(job, reason="wrong price", by="ada")
        assert (present(job).paused_by, present(job).pause_reason) == ("ada", "wrong price")
        assert explain(job).text == "It was paused by ada while it was scheduled: wrong price; resume it."
        resume(job, reason="mended", by="bob")
    assert told == [
        JobPausedEvent(**of(job), mode="graceful", reason="wrong price", by="ada"),
        JobResumedEvent(**of(job), reason="mended", by="bob"),
    ]
    assert (present(job).paused_by, present(job).pause_reason) == (None, None)


def test_c6_an_aggressive_pause_says_that_it_was_one() -> None:
    job = make_job("running", attempt=1)
    with listening() as told:
        pause(job, mode="aggressive", by="ada")
    assert told == [JobPausedEvent(**{**of(job), "attempt": 0}, mode="aggressive", reason="", by="ada")]


def test_a_job_that_was_to_be_paused_and_goes_on_is_told_neither_of() -> None:
    job = make_job("running")
    with listening() as told:
        pause(job, by="ada")
        resume(job)
    assert told == []
    assert present(job).paused_by is None


def test_a_refused_order_tells_nothing() -> None:
    job = make_job("paused")
    with listening() as told, pytest.raises(AlreadyPaused):
        pause(job)
    assert told == []


def test_each_job_that_an_order_cancels_is_told_of() -> None:
    job = make_job()
    child = make_job("waiting", parent=job)
    with listening() as told:
        cancel(job, reason="too late")
    assert told == [JobCancelledEvent(**of(one), reason="too late") for one in (job, child)]


def test_jobs_that_were_lost_with_their_worker_are_told_of_as_rescued_or_failed() -> None:
    again = make_abandoned_job(attempt=1)
    over = make_abandoned_job(attempt=3)
    held = make_abandoned_job(attempt=1, pause_requested_at=DatabaseNow(), paused_by="ada")
    names = [job.worker.name for job in (again, over, held) if job.worker is not None]
    with listening() as told:
        rescue()
    error = f"WorkerLost: worker {names[1]} was lost while it held this job"
    assert told == [
        JobRescuedEvent(**of(again), worker=names[0]),
        JobFailedEvent(**of(over), worker=names[1], error=error),
        JobRescuedEvent(**of(held), worker=names[2]),
        JobPausedEvent(**of(held), mode="graceful", reason="", by="ada"),
    ]


# Queues and workers -------------------------------------------------------------------------------------------------


def test_c6_a_queue_is_paused_and_resumed_by_somebody_for_a_reason(dialect: Dialect) -> None:
    Queue.objects.create(name="mail")
    until = dialect.now() + timedelta(hours=1)
    with listening() as told:
        pause_queue("mail", mode="aggressive", reason="provider is down", by="ada", resume_at=until)
        resume_queue("mail", reason="it is back", by="bob")
    assert told == [
        QueuePausedEvent(queue="mail", mode="aggressive", reason="provider is down", by="ada", resume_at=until),
        QueueResumedEvent(queue="mail", reason="it is back", by="bob", by_itself=False),
    ]


def test_c6_a_queue_that_goes_on_by_itself_is_told_of_once_whoever_tries() -> None:
    for name in ("mail", "video"):
        Queue.objects.create(name=name, paused_at=DatabaseNow(), resume_at=DatabaseNow() - timedelta(seconds=1))
    Queue.objects.create(name="later", paused_at=DatabaseNow(), resume_at=DatabaseNow() + timedelta(hours=1))
    with listening() as told:
        resumed = together(resume_due, resume_due)
    assert sum(resumed) == 2
    assert sorted(event.queue for event in told if isinstance(event, QueueResumedEvent) and event.by_itself) == [
        "mail",
        "video",
    ]
    assert len(told) == 2


def test_jobs_that_an_aggressive_pause_takes_away_are_told_of() -> None:
    job = make_job("running", attempt=2)
    Queue.objects.create(name=job.queue)
    with listening() as told:
        pause_queue(job.queue, mode="aggressive")
    assert kinds(told) == ["queue_paused", "job_released"]
    assert told[1] == JobReleasedEvent(**of(job))


def test_c6_a_worker_is_paused_and_resumed_by_somebody_for_a_reason() -> None:
    worker = make_worker()
    with listening() as told:
        pause_worker(worker, reason="its disk is full", by="ada")
        resume_worker(worker, reason="a new disk", by="bob")
    assert told == [
        WorkerPausedEvent(worker=worker.name, mode="graceful", reason="its disk is full", by="ada"),
        WorkerResumedEvent(worker=worker.name, reason="a new disk", by="bob"),
    ]


def test_a_worker_that_starts_and_stops_is_told_of() -> None:
    with listening() as told:
        worker = register("web-1", host="here", pid=7, queues={"mail": 2}, lease=timedelta(seconds=20))
        stopped(worker)
    assert told == [
        WorkerStartedEvent(worker="web-1", host="here", pid=7, queues=("mail",)),
        WorkerStoppedEvent(worker="web-1"),
    ]


ORDERS: dict[str, Callable[[], object]] = {
    "enqueue": lambda: noop.enqueue(1),
    "enqueue many": lambda: enqueue_many([noop.s(1), add.s(1, 2)]),
    "pause a job": lambda: pause(Job.objects.get(status="pending")),
    "resume a job": lambda: resume(Job.objects.get(status="paused")),
    "cancel": lambda: cancel(Job.objects.get(status="pending")),
    "pause a queue": lambda: pause_queue("mail"),
    "resume a queue": lambda: resume_queue("video"),
    "pause a worker": lambda: pause_worker("one"),
    "resume a worker": lambda: resume_worker("two"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_rolled_back_is_never_told_and_what_is_committed_is_told_then(order: str) -> None:
    Queue.objects.create(name="mail")
    Queue.objects.create(name="video", paused_at=DatabaseNow())
    make_worker(name="one")
    make_worker(name="two", paused_at=DatabaseNow())
    make_job("pending")
    make_job("paused")
    with listening() as told:
        with transaction.atomic():
            ORDERS[order]()
            transaction.set_rollback(True)
        assert told == []
        with transaction.atomic():
            ORDERS[order]()
            assert told == []
        assert len(told) == (2 if order == "enqueue many" else 1)


async def test_orders_have_async_twins_that_say_the_same() -> None:
    job = await make_paused()
    with listening() as told:
        await aresume(job, reason="mended", by="bob")
    assert told == [JobResumedEvent(**of(job), reason="mended", by="bob")]


async def make_paused() -> Job:
    from asgiref.sync import sync_to_async  # noqa: PLC0415 -- for one line

    return await sync_to_async(make_job)("paused")


@pytest.mark.parametrize("verb", ["pause", "resume"])
@pytest.mark.parametrize("target", ["job", "queue", "worker"])
def test_c6_an_order_through_any_surface_says_who_and_why(target: str, verb: str) -> None:
    since = DatabaseNow() if verb == "resume" else None
    makers: dict[str, Callable[[], object]] = {
        "job": lambda: make_job("paused" if since else "pending").id,
        "queue": lambda: Queue.objects.create(name="mail", paused_at=since).name,
        "worker": lambda: make_worker(paused_at=since).name,
    }
    what = makers[target]()
    with listening() as told:
        carry_out(verb_of(target, verb), what, {"reason": "because"}, by="ada", surface="api")
    assert kinds(told) == [f"{target}_{verb}d"]
    said = dataclasses.asdict(cast("Any", told[0]))
    assert (said["by"], said["reason"]) == ("ada", "because")
    assert AuditEntry.objects.get().by == "ada"


# Senders ------------------------------------------------------------------------------------------------------------


def test_a_receiver_for_one_job_hears_of_no_other() -> None:
    with (
        listening(signals.job_enqueued, sender=noop) as by_job,
        listening(signals.job_enqueued, sender="tests.jobs.add") as by_name,
        listening(signals.job_enqueued) as of_all,
    ):
        enqueue_many([noop.s(1), add.s(1, 2)])
        # Names that come from rows are other texts than those that receivers were connected with.
        assert signals.job_enqueued.hears(f"{noop.__module__}.noop")
    assert [event.sender for event in by_job] == ["tests.jobs.noop"]
    assert [event.sender for event in by_name] == ["tests.jobs.add"]
    assert len(of_all) == 2
    assert not signals.job_enqueued.hears("tests.jobs.noop")


@pytest.mark.once
def test_a_sender_without_a_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="has no name: give a durable job"):
        signals.job_failed.connect(lambda **_more: None, sender=test_a_sender_without_a_name_is_refused)
