"""Batches: what they count, and callbacks that are enqueued once (D6, I27, X60, N32)."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils.translation import gettext as not_durable

from django_durable_jobs import (
    ArgumentError,
    Batch,
    BatchClosed,
    BatchNotFound,
    OptionError,
    SerializationError,
    cancel,
    durable_job,
    new_job_id,
    retry,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Job, JobBatch
from django_durable_jobs.operations import batches, finish
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.expire import expire
from django_durable_jobs.operations.finish import Ending
from django_durable_jobs.operations.prune import prune
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Failure, Outcome
from tests.durable.running import Runner
from tests.factories import claim_of, make_worker
from tests.jobs import anything, noop
from tests.transactions import rolled_back
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

COMPLETED = Completed(None)
FAILED = Failed(Failure("ValueError: no", "no"))
CALLBACKS = ("on_complete", "on_success", "on_discard")


@durable_job
def adds(batch_id: str, more: int) -> None:
    """Add a job to the batch that it belongs to."""
    if more:
        Batch.get(batch_id).enqueue(adds, batch_id, more - 1)


def opened(description: str = "") -> Batch:
    """Open a batch with all three callbacks."""
    return Batch.open(description, **{name: anything.using(queue="callbacks").s(name) for name in CALLBACKS})


def called() -> Counter[str]:
    """How often each callback was enqueued."""
    payloads = Job.objects.filter(batch_id=None, definition=anything.name).values_list("payload", flat=True)
    return Counter(name for name in CALLBACKS for payload in payloads if f'"{name}"' in payload)


def take(number: int = 100) -> list[Claimed]:
    """Claim members; callbacks are left in a queue of their own."""
    return claim(claim_of(make_worker(), number))


def end(*jobs: Claimed, outcome: Outcome = COMPLETED) -> None:
    finish.finish([Ending(job, outcome) for job in jobs])


def test_callbacks_are_enqueued_when_the_last_member_has_ended() -> None:
    with opened("three") as batch:
        batch.enqueue(noop, 1)
        batch.enqueue_many([noop.s(2), noop.s(3)])
    assert (batch.counts, batch.progress, batch.status) == ({"pending": 3}, (0, 3), "closed")
    first, *others = take()
    end(first)
    assert (batch.counts, batch.progress, called()) == ({"running": 2, "completed": 1}, (1, 3), Counter())
    end(*others)
    assert (batch.counts, batch.progress, batch.status) == ({"completed": 3}, (3, 3), "ended")
    assert called() == {"on_complete": 1, "on_success": 1}
    row = JobBatch.objects.get()
    assert set(row.enqueued) == {"on_complete", "on_success"}
    assert str(row) == "three"


def test_nothing_happens_while_it_is_open_and_closing_twice_is_harmless() -> None:
    batch = opened()
    batch.enqueue(noop, 1)
    end(*take())
    assert (called(), batch.status) == (Counter(), "open")
    batch.enqueue(noop, 2)
    batch.close()
    assert (called(), batch.status) == (Counter(), "closed")
    batch.close()
    end(*take())
    batch.close()
    assert called() == {"on_complete": 1, "on_success": 1}


def test_n32_an_empty_batch_ends_when_it_is_closed() -> None:
    with opened() as batch:
        assert batch.status == "open"
    assert (called(), batch.status, batch.counts) == ({"on_complete": 1, "on_success": 1}, "ended", {})


def test_all_of_it_is_part_of_the_callers_transaction() -> None:
    with rolled_back():
        with opened() as batch:
            batch.enqueue(noop, 1)
        assert batch.counts == {"pending": 1}
    assert (JobBatch.objects.count(), Job.objects.count()) == (0, 0)
    with transaction.atomic():
        with opened() as batch:
            pass
        assert called() == Counter()
    assert called() == {"on_complete": 1, "on_success": 1}
    with pytest.raises(RuntimeError), opened() as batch:
        raise RuntimeError
    assert batch.status == "open", "a block that ends with an error does not close it"


def test_i27_the_last_two_members_end_at_one_moment(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as batch:
        batch.enqueue_many([noop.s(1), noop.s(2)])
    one, two = take()
    together(lambda: end(one), lambda: end(two))
    assert (called(), batch.counts) == ({"on_complete": 1, "on_success": 1}, {"completed": 2})
    # And both have looked before either has ended the batch.
    with opened() as batch:
        batch.enqueue_many([noop.s(1), noop.s(2)])
    with monkeypatch.context() as patched:
        patched.setattr(finish, "look_after_commit", lambda _ids: None)
        end(*take())
    both = [lambda: dialect.in_own_transaction(lambda: batches._end(batch.id))] * 2
    assert sorted(together(*both)) == [0, 1]
    assert called() == {"on_complete": 2, "on_success": 2}, "once for each of the two batches"


def test_i27_a_look_that_came_late_ends_nothing_that_has_open_members(dialect: Dialect) -> None:
    with opened() as batch:
        batch.enqueue_many([noop.s(1), noop.s(2)])
    one, two = take()
    end(one)
    assert dialect.in_own_transaction(lambda: batches._end(batch.id)) == 0
    assert called() == Counter()
    end(two)
    assert called() == {"on_complete": 1, "on_success": 1}


def test_what_a_crash_between_commit_and_look_leaves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened():
        pass
    monkeypatch.setattr(finish, "look_after_commit", lambda _ids: None)
    with opened() as batch:
        batch.enqueue_many([noop.s(1), noop.s(2)])
    one, two = take()
    assert batches.look_forgotten() == 0
    end(one, outcome=FAILED)
    assert (called()["on_discard"], batches.look_forgotten(), called()["on_discard"]) == (0, 1, 1)
    end(two)
    assert (batch.status, batches.look_forgotten(), batch.status) == ("closed", 1, "ended")
    assert batches.look_forgotten() == 0
    assert called() == {"on_complete": 2, "on_success": 1, "on_discard": 1}


def test_on_discard_tells_of_the_first_member_that_fails_for_good() -> None:
    with opened() as batch:
        batch.enqueue_many([noop.s(number) for number in range(3)])
    one, two, three = take()
    end(one, outcome=BackedOff(Failure("no", "no"), timedelta(hours=1)))
    assert called() == Counter()
    end(two, outcome=FAILED)
    assert called() == {"on_discard": 1}
    end(three, outcome=FAILED)
    assert called() == {"on_discard": 1}
    cancel(one.id)
    assert called() == {"on_discard": 1, "on_complete": 1}
    assert batch.counts == {"failed": 2, "cancelled": 1}


def test_one_that_failed_before_the_batch_was_closed_is_told_of_then() -> None:
    batch = opened()
    batch.enqueue(noop, 1)
    end(*take(), outcome=FAILED)
    batch.enqueue(noop, 2)
    assert called() == Counter()
    batch.close()
    assert called() == {"on_discard": 1}


def test_i27_a_retried_member_opens_nothing_again() -> None:
    with opened() as batch:
        failed = batch.enqueue(noop, 1)
        batch.enqueue(noop, 2)
    one, two = take()
    end(one, outcome=FAILED)
    retry(failed)
    end(two)
    assert called() == {"on_discard": 1}, "it is open again, so the batch has not ended"
    (again,) = take()
    end(again, outcome=FAILED)
    assert called() == {"on_discard": 1, "on_complete": 1}
    retry(failed)
    assert (batch.status, batch.counts) == ("ended", {"pending": 1, "completed": 1})
    end(*take())
    assert called() == {"on_discard": 1, "on_complete": 1}
    assert batch.counts == {"completed": 2}


def test_i27_a_deleted_member_is_none_any_more() -> None:
    with opened() as batch:
        gone = batch.enqueue(noop, 1)
        batch.enqueue(noop, 2)
    delete(gone)
    assert batch.counts == {"pending": 1}
    delete(Job.objects.get(batch_id=batch.id).id)
    assert (called(), batch.status, batch.counts) == ({"on_complete": 1, "on_success": 1}, "ended", {})


def test_members_that_expire_or_are_lost_end_it(dialect: Dialect) -> None:
    with opened() as first:
        first.enqueue(noop.using(expire_after=timedelta(minutes=1)), 1)
    dialect.clock_offset += timedelta(minutes=2)
    expire()
    assert (called(), first.counts) == ({"on_complete": 1}, {"expired": 1})
    with opened() as second:
        second.enqueue(noop.using(retries=0), 1)
    take()
    dialect.clock_offset += timedelta(minutes=2)
    rescue()
    assert (called(), second.counts) == ({"on_complete": 2, "on_discard": 1}, {"failed": 1})


def test_cancelling_a_batch_closes_it() -> None:
    batch = opened()
    batch.enqueue_many([noop.s(1), noop.s(2)])
    (running,) = take(1)
    done = batch.cancel(reason="not needed")
    assert (len(done.cancelled), done.requested, batch.status) == (1, [running.id], "closed")
    assert Job.objects.get(status="cancelled").last_error == "not needed"
    with pytest.raises(BatchClosed, match=f"Batch {batch.id} is closed: only jobs that belong to it may add to it"):
        batch.enqueue(noop, 3)
    end(running)
    assert (called(), batch.counts) == ({"on_complete": 1}, {"cancelled": 1, "completed": 1})


def test_x60_a_member_adds_another_one_late() -> None:
    runner = Runner()
    with opened() as batch:
        batch.enqueue(adds, str(batch.id), 2)
    for _member in range(3):
        assert called() == Counter()
        runner.attempt()
    runner.close()
    assert batch.counts == {"completed": 3}
    assert called() == {"on_complete": 1, "on_success": 1}


def test_only_open_batches_take_jobs() -> None:
    batch = opened()
    batch.enqueue(noop, 1)
    batch.close()
    with pytest.raises(BatchClosed, match="is closed"):
        batch.enqueue(noop, 2)
    end(*take())
    for refused in (
        lambda: batch.enqueue(noop, 2),
        lambda: batches.add(batch.id, [noop.s(2).request()], as_member=True),
    ):
        with pytest.raises(BatchClosed, match="has ended: open another one"):
            refused()
    unknown = new_job_id()
    for look in (lambda: Batch.get(unknown), Batch(unknown).close, lambda: Batch(unknown).enqueue(noop, 1)):
        with pytest.raises(BatchNotFound, match=f"There is no batch {unknown}"):
            look()
    with pytest.raises(BatchNotFound, match="There is no batch 'x'"):
        Batch.get("x")
    assert Batch.get(str(batch.id)) == batch
    assert Job.objects.filter(definition=noop.name).count() == 1


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (not_durable, ArgumentError, "on_success is function: give a durable job with its arguments"),
        (noop, ArgumentError, "on_success is DurableJob"),
        (anything.s(object()), SerializationError, "object"),
        (noop.using(id=new_job_id()).s(1), OptionError, "so it has no id"),
        (noop.using(expire_after=timedelta(1)).s(1), OptionError, "so it has no expire_after"),
        (noop.using(unique_key="a").s(1), OptionError, "unique_key"),
    ],
    ids=["function", "job", "argument", "id", "expiry", "unique"],
)
def test_a_callback_that_cannot_be_one_is_refused(callback: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Batch.open(on_success=callback)
    assert not JobBatch.objects.exists()


def test_other_bad_input_stores_nothing() -> None:
    with pytest.raises(OptionError, match="description must be a text of up to 200"):
        Batch.open("x" * 201)
    with pytest.raises(OptionError, match="must be one that new_job_id"):
        Batch.open(id="x")  # type: ignore[arg-type]  # on purpose
    batch = Batch.open()
    with pytest.raises(ArgumentError, match="A batch takes durable jobs, not function"):
        batch.enqueue(not_durable, 1)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ArgumentError, match=r"Item 1 of enqueue_many\(\) is int"):
        batch.enqueue_many([noop.s(1), 2])  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ArgumentError, match="Job 1 of 2"):
        batch.enqueue_many([noop.s(1), noop.s()])  # type: ignore[call-arg]  # on purpose
    with pytest.raises(OptionError, match="has no id of yours"):
        batch.enqueue(noop.using(id=new_job_id()), 1)
    with pytest.raises(OptionError, match="a member or a callback of a batch"):
        batch.enqueue(noop.using(unique_key="a"), 1)
    assert not Job.objects.exists()


def test_a_callback_keeps_its_options() -> None:
    late = anything.using(queue="late", priority=7, delay=60, retries=9, tenant="a")
    batch = Batch.open(on_complete=late.s("on_complete"))
    batch.close()
    job = Job.objects.get()
    assert (job.queue, job.priority, job.max_attempts, job.tenant, job.status) == ("late", 7, 10, "a", "scheduled")
    assert JobBatch.objects.get().enqueued == {"on_complete": str(job.id)}


def test_retention_leaves_members_of_a_batch_that_has_not_ended(dialect: Dialect) -> None:
    batch = opened()
    batch.enqueue(noop, 1)
    end(*take())
    dialect.clock_offset += timedelta(days=400)
    prune(None)
    assert batch.progress == (1, 1)
    batch.close()
    assert batches.prune_batches() == 0
    dialect.clock_offset += timedelta(days=400)
    assert batches.prune_batches() == 0, "it has a member"
    prune(None)
    assert batch.progress == (0, 0)
    assert (batches.prune_batches(), JobBatch.objects.count()) == (1, 0)


def test_many_members_cost_one_look_for_each_commit() -> None:
    with opened() as batch:
        batch.enqueue_many([noop.s(number) for number in range(60)])
    jobs = take(60)
    first, middle = CaptureQueriesContext(connection), CaptureQueriesContext(connection)
    with first:
        end(*jobs[:20])
    with middle:
        end(*jobs[20:40])
    assert len(first) == len(middle)
    assert sum("jobbatch" in query["sql"] for query in middle) == 1
    end(*jobs[40:])
    assert (batch.progress, called()) == ((60, 60), {"on_complete": 1, "on_success": 1})


def test_a_job_without_a_batch_costs_no_question_about_one() -> None:
    noop.enqueue(1)
    (job,) = claim(claim_of(make_worker(), 1))
    with CaptureQueriesContext(connection) as queries:
        end(job)
    assert not [query["sql"] for query in queries if "batch" in query["sql"]]


def test_who_closes_waits_for_those_who_add(dialect: Dialect) -> None:
    if not dialect.has_parallel_writers:
        pytest.skip("one writer at a time")
    noop.enqueue(0)  # the queue's row is there: who stores the first job of a queue is waited for
    batch = opened()
    added, closed = [threading.Event(), threading.Event()], threading.Event()

    def add(mine: threading.Event) -> None:
        with transaction.atomic():
            batch.enqueue(noop, 1)
            mine.set()
            assert all(event.wait(10) for event in added), "they do not wait for each other"
            assert not closed.wait(0.2), "it was closed beneath those who add"

    def close() -> None:
        assert all(event.wait(10) for event in added)
        batch.close()
        closed.set()

    together(lambda: add(added[0]), lambda: add(added[1]), close)
    assert (batch.progress, batch.status, called()) == ((0, 2), "closed", Counter())


async def test_from_async_code() -> None:
    batch = await Batch.aopen(on_complete=anything.using(queue="callbacks").s("on_complete"))
    await batch.aenqueue(noop, 1)
    await batch.aenqueue_many([noop.s(2)])
    await batch.aclose()
    assert await sync_to_async(lambda: (batch.progress, batch.status))() == ((0, 2), "closed")
    assert len((await batch.acancel()).cancelled) == 2
    assert await sync_to_async(lambda: (called(), batch.status))() == ({"on_complete": 1}, "ended")


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_look_that_fails_leaves_what_was_committed_and_is_made_up_for(
    inside: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever ends a member gets no error for its batch: the worker would take it for its own."""

    def fail(point: str) -> None:
        if point == "before-batch":
            raise ValueError("the look failed")

    with opened() as batch:
        batch.enqueue(noop, 1)
    jobs = take()
    with monkeypatch.context() as patched:
        patched.setattr(batches, "fault", fail)
        raised: list[Exception] = []
        try:
            with transaction.atomic() if inside else nullcontext():
                end(*jobs)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it must not come out here
            raised.append(error)
    assert raised == []
    assert "the look failed" in caplog.text
    assert (batch.counts, called()) == ({"completed": 1}, Counter())
    assert batches.look_forgotten() == 1
    assert called() == {"on_complete": 1, "on_success": 1}


def test_i27_a_member_that_is_taken_from_its_worker_by_force_ends_the_batch() -> None:
    with opened() as batch:
        handle = batch.enqueue(noop, 1)
    take()
    cancel(handle, force=True)
    assert (batch.counts, called()) == ({"cancelled": 1}, {"on_complete": 1})
