"""Orders to whole queues: clear, move, drain, delete, and the counts of their live jobs (D8)."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Q

from django_durable_jobs import clear_queue, delete_queue, drain_queue, limit_queue, move_jobs, retry
from django_durable_jobs.errors import OpenTransaction, OptionError, QueueNotEmpty, QueueNotFound, TimedOut
from django_durable_jobs.models import Coalescing, Job, Limit, Queue
from django_durable_jobs.operations import clearing
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.queues import add_missing, known_queue, live_counts
from django_durable_jobs.states import FINAL, OPEN, Status
from tests import jobs
from tests.factories import claim_of, make_checkpoint, make_job, make_worker, present

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _queues() -> None:
    Queue.objects.bulk_create([Queue(name="mail"), Queue(name="other")])


# Clear ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_clear_cancels_what_nobody_has_begun_and_touches_nothing_else(status: Status) -> None:
    job, elsewhere = make_job(status, queue="mail"), make_job("pending", queue="other")
    unbegun = status in OPEN - {Status.RUNNING, Status.RETRYING} and job.attempt == 0
    assert clear_queue("mail", by="ada", reason="a flood") == unbegun
    now = present(job)
    assert now.status == ("cancelled" if unbegun else status)
    assert unbegun or now.cancel_requested_at == job.cancel_requested_at
    assert now.last_error == ("cleared by ada: a flood" if unbegun else job.last_error)
    assert present(elsewhere).status == "pending"


@pytest.mark.parametrize("status", ["pending", "waiting", "paused", "scheduled"])
def test_clear_leaves_what_is_in_the_midst_of_its_work(status: str) -> None:
    recorded, tried = make_job(status, queue="mail", attempt=0), make_job(status, queue="mail", attempt=1)
    make_checkpoint(recorded)
    assert clear_queue("mail") == 0
    assert {present(job).status for job in (recorded, tried)} == {status}


def test_clear_never_touches_a_job_that_is_claimed_while_it_is_under_way() -> None:
    """Between the look and the write."""
    job, worker = make_job("pending", queue="mail"), make_worker()
    (batch,) = clearing._batches("mail", clearing.unbegun())
    (held,) = claim(claim_of(worker, 1, "mail"))
    assert held.id == job.id
    assert clearing._clear(batch, "cleared").cancelled == []
    now = present(job)
    assert (now.status, now.cancel_requested_at) == ("running", None)


def test_clear_works_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "BATCH", 2)
    monkeypatch.setattr(clearing, "READ", 3)
    for _number in range(8):
        make_job("pending", queue="mail")
    assert clear_queue("mail") == 8
    assert set(Job.objects.values_list("status", flat=True)) == {"cancelled"}


def test_a_cleared_job_lets_its_parent_and_its_unique_key_go_and_can_be_retried() -> None:
    Queue.objects.create(name="default")
    first = jobs.noop.using(unique_key="one").enqueue(1)
    assert clear_queue("default") == 1
    second = jobs.noop.using(unique_key="one").enqueue(1)
    assert second.id != first.id
    assert Coalescing.objects.get().job_id == second.id
    assert clear_queue("default") == 1
    retry(first)
    assert first.status == "pending"


@pytest.mark.django_db(transaction=True)
def test_the_next_of_a_sequence_comes_when_the_first_is_cleared() -> None:
    first = jobs.noop.using(sequence_key="line", queue="mail").enqueue(1)
    second = jobs.noop.using(sequence_key="line", queue="other").enqueue(1)
    assert (first.status, second.status) == ("pending", "waiting")
    assert clear_queue("mail") == 1
    assert (first.status, second.status) == ("cancelled", "pending")


# Move -----------------------------------------------------------------------------------------------------------------


def test_move_takes_all_that_no_worker_holds_and_that_has_not_ended() -> None:
    made = {status: make_job(status, queue="mail", rank=-7) for status in Status}
    assert move_jobs("mail", "other") == len(OPEN) - 1
    for status, job in made.items():
        now = present(job)
        moved = status in OPEN - {Status.RUNNING}
        assert (now.queue, now.status, now.rank) == ("other" if moved else "mail", status, -7)


def test_a_claimed_job_is_not_moved() -> None:
    job, worker = make_job("pending", queue="mail"), make_worker()
    (batch,) = clearing._batches("mail", Q())
    claim(claim_of(worker, 1, "mail"))
    assert clearing._move(batch, "mail", "other") == 0
    assert present(job).queue == "mail"


@pytest.mark.parametrize(("queue", "to", "error"), [
    ("mail", "mail", OptionError),
    ("mail", "no-such", QueueNotFound),
    ("no-such", "mail", QueueNotFound),
    (7, "mail", QueueNotFound),
])  # fmt: skip
def test_a_move_from_or_to_nowhere_is_refused(queue: Any, to: str, error: type[Exception]) -> None:
    job = make_job("pending", queue="mail")
    with pytest.raises(error):
        move_jobs(queue, to)
    assert present(job).queue == "mail"


# Drain ----------------------------------------------------------------------------------------------------------------


def test_drain_pauses_and_says_how_many_run() -> None:
    make_job("running", queue="mail")
    make_job("pending", queue="mail")
    assert drain_queue("mail", by="ada", reason="new version") == 1
    row = Queue.objects.get(name="mail")
    assert (row.paused_at is not None, row.paused_by, row.pause_reason) == (True, "ada", "new version")
    assert drain_queue("mail", by="bob") == 1
    assert Queue.objects.get(name="mail").paused_by == "ada"


@pytest.mark.parametrize("wait", [0, -1, True, "long", 10**9])
def test_a_wait_that_is_none_is_refused_before_anything_is_paused(wait: Any) -> None:
    with pytest.raises(OptionError, match="wait must be"):
        drain_queue("mail", wait=wait)
    assert not Queue.objects.filter(paused_at__isnull=False).exists()


def test_a_wait_in_a_transaction_is_refused() -> None:
    with pytest.raises(OpenTransaction):
        drain_queue("mail", wait=1)
    assert not Queue.objects.filter(paused_at__isnull=False).exists()


@pytest.mark.django_db(transaction=True)
def test_drain_waits_for_what_runs() -> None:
    job = make_job("running", queue="mail")
    with pytest.raises(TimedOut, match=r"after 0\.01 s jobs of it run: 1"):
        drain_queue("mail", wait=0.01)
    assert Queue.objects.get(name="mail").paused_at is not None
    job.delete()
    assert drain_queue("mail", wait=5) == 0


# Delete ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(OPEN))
def test_a_queue_with_a_job_that_has_not_ended_is_not_deleted(status: Status) -> None:
    make_job(status, queue="mail")
    limit_queue("mail", concurrency=1)
    with pytest.raises(QueueNotEmpty, match=rf"have not ended \(1 {status}\): clear it"):
        delete_queue("mail")
    assert Queue.objects.filter(name="mail").exists()
    assert Limit.objects.filter(key="queue mail").exists()


def test_a_queue_is_deleted_with_its_limits_and_its_ended_jobs_stay() -> None:
    ended = [make_job(status, queue="mail") for status in sorted(FINAL)]
    limit_queue("mail", concurrency=1)
    delete_queue("mail")
    assert not Queue.objects.filter(name="mail").exists()
    assert not Limit.objects.exists()
    assert {present(job).queue for job in ended} == {"mail"}
    with pytest.raises(QueueNotFound):
        delete_queue("mail")


def test_force_clears_first_and_leaves_what_runs() -> None:
    pending, running = make_job("pending", queue="mail"), make_job("running", queue="mail")
    with pytest.raises(QueueNotEmpty, match="1 running"):
        delete_queue("mail", force=True)
    assert (present(pending).status, present(running).status) == ("cancelled", "running")
    running.delete()
    make_job("pending", queue="mail")
    delete_queue("mail", force=True, by="ada")
    assert not Queue.objects.filter(name="mail").exists()


def test_a_deleted_queue_comes_back_with_its_next_job() -> None:
    jobs.noop.using(queue="mail").enqueue(1)
    delete_queue("mail", force=True)
    jobs.noop.using(queue="mail").enqueue(1)
    assert Queue.objects.get(name="mail").paused_at is None


def test_a_job_that_came_at_that_very_moment_gives_it_a_row_again() -> None:
    """Another process remembers that there is one, so workers look, and orders do."""
    make_job("pending", queue="mail")
    make_job("pending", queue="zebra")
    Queue.objects.filter(name="mail").delete()
    assert known_queue("mail") == "mail"
    Queue.objects.filter(name="mail").delete()
    add_missing()
    assert {"mail", "other", "zebra"} <= set(Queue.objects.values_list("name", flat=True))


# Counts ---------------------------------------------------------------------------------------------------------------


def test_live_jobs_are_counted_by_queue_and_status() -> None:
    for number, status in enumerate(sorted(Status), 1):
        for _job in range(number):
            make_job(status, queue="mail")
    make_job("pending", queue="other")
    numbers = {status: number for number, status in enumerate(sorted(Status), 1) if status in OPEN}
    assert live_counts(["mail", "other", "none"]) == {
        "mail": numbers,
        "other": dict.fromkeys(OPEN, 0) | {Status.PENDING: 1},
        "none": dict.fromkeys(OPEN, 0),
    }
