"""Enqueueing one job, on every database: what is stored, and in whose transaction (I1, I2)."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from django_durable_jobs import Backoff, JobNotFound, aenqueue, enqueue
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.promote import promote
from tests.factories import claim_of, make_worker
from tests.jobs import add, async_add, noop
from tests.transactions import rolled_back
from tests.waiting import elsewhere, eventually, together

pytestmark = pytest.mark.django_db(transaction=True)

TICK = timedelta(milliseconds=1)
"""SQLite tells time in milliseconds."""


def test_i1_a_job_exists_once_enqueue_has_returned(dialect: Dialect) -> None:
    before = dialect.now()
    handle = add.enqueue(1, b=2)
    row = elsewhere(handle.job)
    assert (row.status, row.queue, row.definition, row.rank) == ("pending", "default", "tests.jobs.add", 0)
    assert (row.attempt, row.max_attempts, row.token, row.run_at, row.options) == (0, 3, 0, None, None)
    assert (row.rescues, row.generation, row.result, row.last_error) == (0, 0, None, None)
    assert before - TICK <= row.created_at <= dialect.now() + TICK
    assert add.definition.arguments.load(row.payload) == ((1,), {"b": 2})


def test_options_of_one_enqueue_are_stored_with_the_job() -> None:
    when = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    changed = add.using(queue="mail", priority="high", retries=7, run_at=when, call_retries=1)
    row = changed.using(backoff=Backoff.fixed(3)).enqueue(1, 2).job()
    assert (row.status, row.queue, row.rank, row.max_attempts, row.run_at) == ("scheduled", "mail", -50, 8, when)
    assert row.priority == 50
    assert row.options is not None
    stored = json.loads(row.options)
    assert stored.keys() == {"backoff", "call_retries"}
    assert stored["call_retries"] == 1
    assert Backoff.from_form(stored["backoff"]) == Backoff.fixed(3)


def test_changed_options_do_not_stick_to_the_definition() -> None:
    add.using(queue="mail", retries=9).enqueue(1, 2)
    row = add.enqueue(1, 2).job()
    assert (row.queue, row.max_attempts) == ("default", 3)


def test_a_delay_makes_a_job_scheduled_by_the_databases_clock(dialect: Dialect) -> None:
    row = noop.using(delay=90).enqueue(1).job()
    assert row.status == "scheduled"
    assert row.run_at is not None
    assert row.run_at - row.created_at == pytest.approx(timedelta(seconds=90), abs=TICK)


def test_n26_a_moment_in_the_past_means_now() -> None:

    job = noop.using(run_at=datetime(2001, 1, 1, tzinfo=UTC)).enqueue(1)
    promote()
    assert job.status == "pending"


def test_a_job_is_enqueued_by_its_registered_name() -> None:
    handle = enqueue("tests.jobs.add", 1, b=2)
    assert handle.job().payload == add.enqueue(1, b=2).job().payload


async def test_enqueueing_does_not_block_an_event_loop() -> None:
    first = await add.aenqueue(1, 2)
    second = await aenqueue("tests.jobs.add", 1, 2)
    third = await async_add.aenqueue(1, 2)
    found = [row async for row in Job.objects.order_by("id").values_list("id", flat=True)]
    assert found == [first.id, second.id, third.id]
    await sync_to_async(connections.close_all)()  # of the thread behind the loop, which ends with the process


def test_i1_i2_a_job_is_part_of_the_callers_transaction() -> None:
    with transaction.atomic():
        handle = noop.enqueue(1)
        assert handle.status == "pending"
        assert elsewhere(lambda: Job.objects.filter(id=handle.id).exists()) is False
    assert elsewhere(lambda: handle.status) == "pending"


def test_i2_a_rolled_back_transaction_leaves_no_trace_of_the_job() -> None:
    job = noop.using(queue="never")
    with rolled_back():
        handle = job.enqueue(1)
    assert not Job.objects.exists()
    assert not Queue.objects.filter(name="never").exists()
    with pytest.raises(JobNotFound, match="not committed"):
        handle.job()


def test_i2_a_rolled_back_savepoint_takes_only_its_own_jobs() -> None:
    with transaction.atomic():
        kept = noop.enqueue(1)
        with rolled_back():
            noop.enqueue(2)
    assert list(Job.objects.values_list("id", flat=True)) == [kept.id]


def test_x36_a_worker_that_polls_meanwhile_gets_the_job_after_the_commit_and_not_before(dialect: Dialect) -> None:
    worker, stored, looked = make_worker(), threading.Event(), threading.Event()
    committed: list[bool] = []

    def enqueue_slowly() -> list[Claimed]:
        with transaction.atomic():
            noop.enqueue(1)
            stored.set()
            # Where writers take turns the other one can only wait for this commit.
            if dialect.has_parallel_writers:
                assert looked.wait(10)
            committed.append(True)
        return []

    def poll() -> list[Claimed]:
        assert stored.wait(10)
        if dialect.has_parallel_writers:
            assert claim(claim_of(worker, 5)) == []
            looked.set()
        claimed = eventually(lambda: claim(claim_of(worker, 5)))
        assert committed, "claimed before the commit"
        return claimed

    _none, claimed = together(enqueue_slowly, poll)
    assert len(claimed) == 1


def test_n30_a_broken_transaction_gives_djangos_own_error() -> None:
    def use_a_broken_transaction() -> None:
        with transaction.atomic():
            transaction.set_rollback(True)
            noop.enqueue(1)

    with pytest.raises(TransactionManagementError):
        use_a_broken_transaction()
    assert not Job.objects.exists()


# Queues -----------------------------------------------------------------------------------------------------


def test_a_queue_gets_its_row_with_its_first_job() -> None:
    for n in range(3):
        noop.using(queue="mail").enqueue(n)
    assert list(Queue.objects.values_list("name", flat=True)) == ["mail"]


def test_a_queue_gets_its_row_later_when_the_first_transaction_rolled_back() -> None:
    job = noop.using(queue="mail")
    with rolled_back():
        job.enqueue(1)
    job.enqueue(2)
    assert Queue.objects.filter(name="mail").exists()


def test_the_first_jobs_of_a_queue_may_come_from_several_threads_at_once() -> None:
    handles = together(*[lambda: noop.using(queue="mail").enqueue(1) for _n in range(5)])
    assert Job.objects.filter(id__in=[handle.id for handle in handles]).count() == 5
    assert Queue.objects.filter(name="mail").count() == 1


def test_the_row_of_a_known_queue_costs_no_further_statement() -> None:
    job = noop.using(queue="mail")
    job.enqueue(1)
    with CaptureQueriesContext(connection) as captured:
        job.enqueue(2)
    assert [query["sql"] for query in captured if Queue._meta.db_table in query["sql"].split("VALUES")[0]] == []
    assert any(Job._meta.db_table in query["sql"] for query in captured)
