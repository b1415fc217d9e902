"""Pausing queues and workers, on every database: orders, errors, lists, and the barrier at the claim (C2–C5, I28)."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from django_durable_jobs import (
    OptionError,
    enqueue_many,
    is_queue_paused,
    pause_queue,
    pause_worker,
    paused_queues,
    registry,
    resume_queue,
    resume_worker,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.errors import AlreadyPaused, NotPaused, OpenTransaction, QueueNotFound, WorkerNotFound
from django_durable_jobs.models import Job, Queue, Worker
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.control import WHOLE_WORKER, gates_for, orders_for
from django_durable_jobs.operations.queues import resume_due
from tests.factories import claim_of, make_job, make_worker, present
from tests.jobs import noop
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])


@pytest.fixture(autouse=True)
def _queues() -> None:
    for name in ("mail", "video"):
        Queue.objects.create(name=name)


# Queues -------------------------------------------------------------------------------------------------------------


def test_c2_a_paused_queue_is_not_claimed_from_and_others_are() -> None:
    jobs = {name: make_job(queue=name) for name in ("mail", "video")}
    worker = make_worker()
    pause_queue("mail", reason="provider is down", by="ada")
    assert [job.id for job in claim(claim_of(worker, 5, "mail", "video"))] == [jobs["video"].id]
    assert present(jobs["mail"]).status == "pending"
    resume_queue("mail")
    assert [job.id for job in claim(claim_of(worker, 5, "mail", "video"))] == [jobs["mail"].id]


def test_c2_who_when_why_and_until_when_are_stored_and_forgotten(dialect: Dialect) -> None:
    before = dialect.now()
    until = before + timedelta(hours=1)
    pause_queue("mail", mode="aggressive", reason="provider is down", by="ada", resume_at=until)
    row = Queue.objects.get(name="mail")
    assert (row.pause_mode, row.pause_reason, row.paused_by) == ("aggressive", "provider is down", "ada")
    assert row.paused_at is not None
    assert before <= row.paused_at <= dialect.now()
    assert row.resume_at == until
    resume_queue("mail")
    row.refresh_from_db()
    assert (row.pause_mode, row.pause_reason, row.paused_by) == ("", "", "")
    assert not is_queue_paused("mail")
    assert Queue.objects.filter(name="mail", paused_at=None, resume_at=None).exists()


def test_c5_paused_queues_are_listed() -> None:
    assert not paused_queues().exists()
    pause_queue("video")
    assert [queue.name for queue in paused_queues()] == ["video"]
    assert is_queue_paused("video")
    assert not is_queue_paused("mail")
    assert not is_queue_paused("nothing")


def test_c4_pausing_the_paused_resuming_the_running_and_unknown_queues_are_refused() -> None:
    pause_queue("mail", by="ada")
    before = Queue.objects.values().get(name="mail")
    with pytest.raises(AlreadyPaused, match=r"'mail' is paused already, since .* UTC by ada"):
        pause_queue("mail", by="bob")
    with pytest.raises(NotPaused, match="'video' is not paused"):
        resume_queue("video")
    assert Queue.objects.values().get(name="mail") == before
    for unknown in ("nothing", "", None, 3, "Mail"):
        with pytest.raises(QueueNotFound, match=r"Known queues: .*mail"):
            pause_queue(unknown)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(QueueNotFound):
            resume_queue(unknown)  # type: ignore[arg-type]  # what is refused
    assert not Queue.objects.filter(name="nothing").exists()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"mode": "gentle"}, "'graceful' or 'aggressive'"),
        ({"reason": 3}, "reason must be a text"),
        ({"reason": "x" * 10_001}, "reason must be a text"),
        ({"by": "x" * 201}, "by must be a text"),
        ({"by": None}, "by must be a text"),
        ({"resume_at": datetime(2020, 1, 1)}, "time zone"),  # noqa: DTZ001 -- what is refused
        ({"resume_at": "tomorrow"}, "time zone"),
        ({"wait": 0}, "more than 0 seconds"),
        ({"wait": -1}, "more than 0 seconds"),
        ({"wait": float("nan")}, "more than 0 seconds"),
        ({"wait": True}, "more than 0 seconds"),
        ({"wait": timedelta(days=2)}, "at most a day"),
    ],
)
def test_a_bad_order_changes_nothing(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        pause_queue("mail", **bad)
    assert not is_queue_paused("mail")


def test_a_time_to_resume_that_is_over_is_refused(dialect: Dialect) -> None:
    with pytest.raises(OptionError, match="must lie in the future"):
        pause_queue("mail", resume_at=dialect.now() - timedelta(seconds=1))
    assert not is_queue_paused("mail")


def test_a_queue_that_only_a_definition_names_can_be_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "queues", lambda: {"declared"})
    pause_queue("declared")
    noop.using(queue="declared").enqueue(1)
    assert claim(claim_of(make_worker(), 5, "declared")) == []


def test_a_pause_is_part_of_the_transaction_and_cannot_wait_in_one() -> None:
    with transaction.atomic():
        pause_queue("mail")
        with pytest.raises(OpenTransaction, match="outside of atomic"):
            pause_queue("video", wait=1)
        transaction.set_rollback(True)
    assert not paused_queues().exists()


def test_a_queue_resumes_at_its_time(dialect: Dialect) -> None:
    pause_queue("mail", resume_at=dialect.now() + timedelta(hours=1))
    pause_queue("video")
    assert resume_due() == 0
    dialect.clock_offset += timedelta(hours=1, seconds=1)
    assert resume_due() == 1
    assert [queue.name for queue in paused_queues()] == ["video"]


def test_jobs_can_be_enqueued_while_the_queue_is_paused() -> None:
    pause_queue("mail")
    handles = enqueue_many([noop.using(queue="mail").s(n) for n in range(3)])
    assert claim(claim_of(make_worker(), 5, "mail")) == []
    resume_queue("mail")
    assert {job.id for job in claim(claim_of(make_worker(), 5, "mail"))} == {handle.id for handle in handles}


def test_an_aggressive_pause_puts_running_jobs_back_with_their_attempt() -> None:
    worker = make_worker()
    jobs = [make_job(queue="mail") for _ in range(3)]
    leases = claim(claim_of(worker, 3, "mail"))
    ending = make_job("running", queue="mail", cancel_requested_at=DatabaseNow(), worker=worker)
    pausing = make_job("running", queue="mail", pause_requested_at=DatabaseNow(), worker=worker)
    elsewhere = make_job("running", queue="video", worker=worker)
    pause_queue("mail", mode="aggressive")
    for job in jobs:
        now = present(job)
        assert (now.status, now.attempt, now.worker, now.lease_expires_at) == ("pending", 0, None, None)
    assert (present(pausing).status, present(pausing).paused_from) == ("paused", "pending")
    assert [present(job).status for job in (ending, elsewhere)] == ["running", "running"]
    held = orders_for(worker.pk)
    assert not {lease.id for lease in leases} & {lease.id for lease in held.held}
    assert held.cancelled == [ending.id]


# Workers ------------------------------------------------------------------------------------------------------------


def test_c3_a_paused_worker_claims_nothing_and_others_do() -> None:
    job = make_job()
    held_back, free = make_worker(), make_worker()
    pause_worker(held_back.name, reason="its disk is full", by="ada")
    assert claim(claim_of(held_back, 5)) == []
    row = Worker.objects.get(pk=held_back.pk)
    assert (row.pause_mode, row.pause_reason, row.paused_by) == ("graceful", "its disk is full", "ada")
    assert gates_for(held_back.pk).paused.keys() == {WHOLE_WORKER}
    assert gates_for(free.pk).paused == {}
    resume_worker(held_back)
    assert [one.id for one in claim(claim_of(held_back, 5))] == [job.id]


def test_c3_an_aggressive_pause_of_a_worker_takes_its_jobs_only() -> None:
    worker, other = make_worker(), make_worker()
    mine, theirs = make_job("running", worker=worker), make_job("running", worker=other)
    pause_worker(worker, mode="aggressive")
    assert (present(mine).status, present(theirs).status) == ("pending", "running")


def test_c4_orders_to_workers_are_refused_with_their_own_errors() -> None:
    worker, lost = make_worker(), make_worker(lease=timedelta(seconds=-5))
    with pytest.raises(NotPaused, match="is not paused"):
        resume_worker(worker)
    pause_worker(worker)
    with pytest.raises(AlreadyPaused, match="is paused already"):
        pause_worker(worker)
    for unknown in ("nobody", lost.name, None, 3):
        with pytest.raises(WorkerNotFound, match="No live worker"):
            pause_worker(unknown)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(WorkerNotFound, match="No live worker"):
            resume_worker(unknown)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(OptionError, match="'graceful' or 'aggressive'"):
        pause_worker(make_worker(), mode="gentle")  # type: ignore[arg-type]  # what is refused


# The barrier --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["queue", "worker"])
def test_i28_no_claim_takes_a_job_after_the_pause_has_returned(scope: str) -> None:
    """Claims from several threads while the order is given: what is claimed later was committed before it returned."""
    workers = [make_worker() for _ in range(3)]
    for _round in range(10):
        noop.using(queue="mail").enqueue_many([(n,) for n in range(200)])
        begun, over = threading.Barrier(len(workers) + 1), threading.Event()
        claimed: list[UUID] = []

        def work(worker: Worker, begun: Any = begun, over: Any = over, claimed: Any = claimed) -> None:
            begun.wait(20)
            while not over.is_set():
                claimed.extend(job.id for job in claim(claim_of(worker, 2, "mail")))

        def order(begun: Any = begun, over: Any = over) -> set[UUID]:
            begun.wait(20)
            try:
                if scope == "queue":
                    pause_queue("mail")
                else:
                    for worker in workers:
                        pause_worker(worker)
                running = set(Job.objects.running().values_list("id", flat=True))
                for worker in workers:
                    assert claim(claim_of(worker, 2, "mail")) == []
                assert set(Job.objects.running().values_list("id", flat=True)) == running
                return running
            finally:
                over.set()

        *_none, running = together(*[lambda one=one: work(one) for one in workers], order)
        assert set(claimed) == running
        Job.objects.all().delete()
        if scope == "queue":
            resume_queue("mail")
        else:
            for worker in workers:
                resume_worker(worker)


@pytest.mark.parametrize("scope", ["queue", "worker"])
def test_i28_a_pause_waits_for_a_claim_that_is_on_its_way(scope: str, dialect: Dialect) -> None:
    if not dialect.has_parallel_writers:
        pytest.skip("has_parallel_writers: one writer at a time, whoever it is")
    make_job(queue="mail")
    worker = make_worker()
    claimed, committed, ordered = threading.Event(), threading.Event(), threading.Event()
    seen: list[str] = []

    def take() -> None:
        with transaction.atomic():
            assert len(claim(claim_of(worker, 1, "mail"))) == 1
            claimed.set()
            # The order is given now; it cannot be over before this commits.
            assert not ordered.wait(0.2)
            seen.append("claim")
        committed.set()

    def order() -> None:
        assert claimed.wait(10)
        pause_queue("mail") if scope == "queue" else pause_worker(worker)
        seen.append("pause")
        ordered.set()

    together(take, order)
    assert seen == ["claim", "pause"]


@pytest.mark.parametrize("scope", ["queue", "worker"])
def test_a_claim_does_not_wait_for_an_order_that_is_not_committed(scope: str, dialect: Dialect) -> None:
    """A transaction of a project that pauses may take its time; workers have other queues to serve."""
    if not dialect.has_parallel_writers:
        pytest.skip("has_parallel_writers: one writer at a time, whoever it is")
    paused, free = make_job(queue="mail"), make_job(queue="video")
    worker = make_worker()
    ordered, claimed = threading.Event(), threading.Event()

    def order() -> None:
        with transaction.atomic():
            pause_queue("mail") if scope == "queue" else pause_worker(worker)
            ordered.set()
            assert claimed.wait(10), "the claim waits for the order"

    def take() -> list[UUID]:
        assert ordered.wait(10)
        found = [job.id for job in claim(claim_of(worker, 5, "mail", "video"))]
        claimed.set()
        return found

    _none, found = together(order, take)
    assert found == ([free.id] if scope == "queue" else [])
    assert present(paused).status == "pending"
