"""Unique jobs: of one key at most one is live, at every moment and isolation level (D3, I24, X28, X29)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from django_durable_jobs import JobHandle, OptionError, cancel, durable_job, enqueue_many, new_job_id, pause, retry
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import JobExists
from django_durable_jobs.models import Coalescing, Job
from django_durable_jobs.operations import unique
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.coalesce import prune_coalescing
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Completed, Failed, Failure, Outcome, Released
from django_durable_jobs.states import FINAL
from tests.factories import claim_of, make_worker
from tests.races.test_isolation import LEVELS, isolation
from tests.transactions import rolled_back
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

MINUTE = timedelta(minutes=1)
COMPLETED = Completed(None)
FAILED = Failed(Failure("no", "no"))


def of_customer(customer: int, **_others: Any) -> str:
    return f"customer {customer}"


@durable_job(unique_key=of_customer)
def sync(customer: int, *, text: str = "") -> None:
    """Fetch what is new of a customer."""


@durable_job(unique_key="the one")
def another(customer: int) -> None:
    """Do something else."""


def end(outcome: Outcome = COMPLETED) -> None:
    """Have a worker run what is there, to this end."""
    jobs = claim(claim_of(make_worker(), 10))
    assert jobs
    finish([Ending(job, outcome) for job in jobs])


def due(handle: JobHandle[None]) -> datetime:
    run_at = handle.job().run_at
    assert run_at is not None
    return run_at


def live() -> int:
    return Job.objects.exclude(status__in=FINAL).count()


def test_a_duplicate_is_answered_with_the_job_that_is_there() -> None:
    first = sync.enqueue(1, text="a")
    again = sync.enqueue(1, text="b")
    assert (first.existing, again.existing, again) == (False, True, first)
    assert not sync.enqueue(2).existing
    assert not another.using(unique_key="customer 1").enqueue(1).existing, "a key belongs to one definition"
    assert Job.objects.count() == 3
    assert first.job().payload == '{"*":[1],"text":"a"}'
    assert first.job().unique_key == "customer 1"


@pytest.mark.parametrize("outcome", [COMPLETED, FAILED], ids=["completed", "failed"])
def test_the_key_is_free_when_the_job_has_ended(outcome: Outcome) -> None:
    first = sync.enqueue(1)
    claimed = claim(claim_of(make_worker(), 1))
    assert sync.enqueue(1) == first, "it runs"
    finish([Ending(claimed[0], Released())])
    assert sync.enqueue(1) == first, "it went back"
    pause(first)
    assert sync.enqueue(1) == first, "it is paused"
    retried = sync.using(unique_key="other").enqueue(1)
    end(outcome)
    assert not sync.using(unique_key="other").enqueue(1).existing
    assert str(retried.status) in FINAL


def test_the_key_is_free_when_the_job_is_cancelled_or_deleted() -> None:
    first = sync.enqueue(1)
    cancel(first)
    second = sync.enqueue(1)
    assert not second.existing
    delete(second)
    assert not sync.enqueue(1).existing


def test_for_a_period_also_a_completed_job_answers(dialect: Dialect) -> None:
    hourly = sync.using(unique_for=60 * MINUTE)
    first = hourly.enqueue(1)
    end()
    dialect.clock_offset += 59 * MINUTE
    assert hourly.enqueue(1) == first
    dialect.clock_offset += 2 * MINUTE
    second = hourly.enqueue(1)
    assert not second.existing
    end(FAILED)
    assert not hourly.enqueue(1).existing, "what came to nothing keeps nobody off"


def test_a_period_never_frees_the_key_of_a_live_job(dialect: Dialect) -> None:
    shortly = sync.using(unique_for=MINUTE)
    first = shortly.enqueue(1)
    dialect.clock_offset += 5 * MINUTE
    assert shortly.enqueue(1) == first


def test_until_it_is_started_only() -> None:
    early = sync.using(unique_until="started")
    first = early.enqueue(1)
    assert early.enqueue(1) == first
    (job,) = claim(claim_of(make_worker(), 1))
    second = early.enqueue(1)
    assert not second.existing
    finish([Ending(job, Released())])
    assert early.enqueue(1) == second
    assert sync.enqueue(1) == second


def test_a_conflict_may_be_an_error() -> None:
    first = sync.enqueue(1)
    with pytest.raises(JobExists, match=rf"the unique key 'customer 1' of .*\.sync is held by {first.id}") as refused:
        sync.using(on_conflict="raise").enqueue(1)
    assert refused.value.job_id == first.id
    assert Job.objects.count() == 1


def test_a_job_that_has_not_begun_is_replaced(dialect: Dialect) -> None:
    latest = sync.using(on_conflict="replace")
    first = latest.enqueue(1, text="a")
    again = latest.using(priority=7, retries=9).enqueue(1, text="b")
    assert (again, again.existing) == (first, True)
    row = first.job()
    assert (row.payload, row.priority, row.max_attempts) == ('{"*":[1],"text":"b"}', 7, 10)
    claim(claim_of(make_worker(), 1))
    with pytest.raises(JobExists, match="It has begun, so it is not replaced"):
        latest.enqueue(1, text="c")
    later = sync.using(delay=MINUTE).enqueue(2)
    assert sync.using(on_conflict="replace", delay=3 * MINUTE).enqueue(2) == later
    assert due(later) >= dialect.now() + 2 * MINUTE
    sync.using(on_conflict="replace").enqueue(2)
    assert due(later) <= dialect.now()


def test_many_at_once_have_one_answer_for_each_key() -> None:
    first = sync.enqueue(1)
    handles = enqueue_many([sync.s(1), sync.s(2), sync.s(2), another.s(3), another.s(4)])
    assert [handle.existing for handle in handles] == [True, False, True, False, True]
    assert handles[0] == first
    assert handles[1] == handles[2]
    assert Job.objects.count() == 3
    latest = sync.using(on_conflict="replace")
    handles = enqueue_many([latest.s(5, text="a"), latest.s(5, text="b")])
    assert handles[0].job().payload == '{"*":[5],"text":"b"}'
    with pytest.raises(JobExists, match=r"Job 1 of the call: .* It is stored by the same call"):
        enqueue_many([sync.s(6), sync.using(on_conflict="raise").s(6)])
    assert not Job.objects.filter(unique_key="customer 6").exists()


def test_more_keys_than_one_statement_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique, "BATCH", 3)
    assert not any(handle.existing for handle in sync.enqueue_many([(number,) for number in range(8)]))
    assert all(handle.existing for handle in sync.enqueue_many([(number,) for number in range(8)]))
    assert Job.objects.count() == Coalescing.objects.count() == 8


def test_a_repeated_enqueue_with_an_id_finds_its_job() -> None:
    mine = sync.using(id=new_job_id())
    first = mine.enqueue(1)
    end()
    again = mine.enqueue(1)
    assert (again, again.existing) == (first, True)
    assert Job.objects.count() == 1


def test_a_retried_job_takes_its_key_again() -> None:
    first = sync.enqueue(1)
    end(FAILED)
    second = sync.enqueue(1)
    with pytest.raises(JobExists, match=f"while job {second.id} holds its unique key 'customer 1'"):
        retry(first)
    assert str(first.status) == "failed"
    cancel(second)
    retry(first)
    assert sync.enqueue(1) == first
    assert live() == 1


# At one moment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(3))
def test_x28_of_five_enqueues_at_once_one_stores_a_job_and_all_get_it(round_: int) -> None:
    handles = together(*[partial(sync.enqueue, 1)] * 5)
    assert sorted(handle.existing for handle in handles) == [False, True, True, True, True]
    assert {handle.id for handle in handles} == {Job.objects.get().id}


def test_x28_when_the_first_one_rolls_back_another_one_stores_it() -> None:
    held = threading.Event()

    def first() -> JobHandle[None] | None:
        with rolled_back():
            sync.enqueue(1)
            held.set()
        return None

    def other() -> JobHandle[None]:
        assert held.wait(10)
        return sync.enqueue(1)

    found: list[JobHandle[None] | None] = together(first, other, other)
    assert {handle.id for handle in found if handle is not None} == {Job.objects.get().id}


@pytest.mark.parametrize("round_", range(5))
def test_x29_a_key_that_becomes_free_at_this_moment_has_one_holder(round_: int) -> None:
    """Either the old job answers, which was live then, or a new one is there."""
    first = sync.enqueue(1)
    (job,) = claim(claim_of(make_worker(), 1))
    works: list[Callable[[], Any]] = [lambda: finish([Ending(job, COMPLETED)]), *[partial(sync.enqueue, 1)] * 3]
    _, *handles = together(*works)
    assert live() == len({handle.id for handle in handles} - {first.id}) <= 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_i24_an_old_snapshot_never_makes_a_second_live_job(level: str) -> None:
    """A transaction that has looked around before others enqueued: it finds their job, or is told of the conflict."""
    if connection.vendor not in LEVELS:
        pytest.skip("one writer at a time: every transaction is serial")
    if (connection.vendor, level) == ("mysql", "serializable"):
        pytest.skip("what a transaction has read, nobody else changes: no snapshot is old")
    with isolation(level):
        assert _beside_an_old_snapshot(lambda: sync.enqueue(1)) in {1, "conflict"}
        assert live() == 1
        ended = Job.objects.get()
        end(FAILED)
        assert _beside_an_old_snapshot(lambda: retry(ended)) in {1, "conflict"}
        assert live() == 1


def _beside_an_old_snapshot(work: Callable[[], Any]) -> int | str:
    """Enqueue in a transaction that began before ``work``; return how many jobs of the key are live then."""
    try:
        with transaction.atomic():
            assert Job.objects.count() >= 0
            together(work)
            sync.enqueue(1)
    except DatabaseError:
        return "conflict"
    return live()


def test_a_waiting_enqueue_sees_what_the_first_one_stored(dialect: Dialect) -> None:
    if not dialect.has_parallel_writers:
        pytest.skip("one writer at a time, whoever it is")
    began = threading.Event()
    waits = threading.Event()

    def first() -> JobHandle[None]:
        with transaction.atomic():
            handle = sync.enqueue(1)
            began.set()
            assert not waits.wait(0.2), "the second one waits for the key"
        return handle

    def second() -> JobHandle[None]:
        assert began.wait(10)
        handle = sync.enqueue(1)
        waits.set()
        return handle

    one, two = together(first, second)
    assert one == two


# Housekeeping ------------------------------------------------------------------------------------------------------


def test_rows_of_live_jobs_are_kept_and_do_not_keep_others_from_their_turn(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_durable_jobs.operations.coalesce.BATCH", 2)
    kept = sync.enqueue_many([(1,), (2,)])
    running = claim(claim_of(make_worker(), 2))
    dialect.clock_offset += MINUTE
    sync.enqueue(3)
    cancel(sync.enqueue(3))
    dialect.clock_offset += MINUTE
    assert prune_coalescing() == 0, "the oldest two are looked at, and live"
    assert prune_coalescing() == 1
    assert sync.enqueue(1) == kept[0]
    finish([Ending(job, COMPLETED) for job in running])
    dialect.clock_offset += 120 * MINUTE
    assert prune_coalescing() == 2
    assert not Coalescing.objects.exists()


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"unique_key": ""}, "not a usable key"),
        ({"unique_key": "a\0b"}, "not a usable key"),
        ({"unique_key": "\ud800"}, "not a usable key"),
        ({"unique_key": "x" * 201}, "not a usable key"),
        ({"unique_key": 7}, "must be a str, or a function"),
        ({"unique_for": 0}, "must be longer than 0 seconds"),
        ({"unique_for": -1}, "must lie between"),
        ({"unique_for": float("nan")}, "must lie between"),
        ({"unique_for": 1e12}, "must lie between"),
        ({"unique_until": "completed"}, "unique_until must be one of 'finished', 'started', not 'completed'"),
        ({"on_conflict": "ignore"}, "on_conflict must be one of 'return', 'raise', 'replace', not 'ignore'"),
        ({"on_conflict": True}, "on_conflict must be one of"),
        ({"unique_key": None}, "unique_until means something together with unique_key only"),
        ({"debounce": MINUTE}, "exclude each other"),
        ({"throttle": MINUTE}, "exclude each other"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        sync.using(unique_until="finished").using(**given)


def test_a_key_that_its_function_does_not_give_is_named_and_nothing_is_stored() -> None:
    with pytest.raises(OptionError, match=r"of_nobody.* must return a str"):
        sync.using(unique_key=of_nobody).enqueue(1)
    assert not Job.objects.exists()
    assert not Coalescing.objects.exists()


def of_nobody(*_args: Any, **_kwargs: Any) -> str:
    return None  # type: ignore[return-value]  # on purpose
