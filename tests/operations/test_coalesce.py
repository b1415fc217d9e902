"""Debounce and throttle: one job answers for many enqueues, and for exactly one of them under any race (F15)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import JobHandle, OptionError, durable_job, enqueue_many, pause, resume
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import ArgumentError, DefinitionError
from django_durable_jobs.models import Coalescing, Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.coalesce import prune_coalescing
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.options import Options
from django_durable_jobs.outcomes import Completed, Released
from tests.factories import claim_of, make_worker
from tests.transactions import rolled_back
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

MINUTE = timedelta(minutes=1)


def of_document(document: int, **_others: Any) -> str:
    return f"document {document}"


@durable_job(debounce=MINUTE, debounce_key=of_document, debounce_max=3 * MINUTE)
def index(document: int, *, text: str = "") -> None:
    """Index the last text of a document."""


@durable_job(throttle=MINUTE)
def refresh(number: int) -> None:
    """Refresh at most once a minute."""


@durable_job(name=f"tests.{'n' * 150}", throttle=MINUTE)
def long_named(number: int) -> None:
    """Do nothing, under a long name."""


def payloads() -> list[str]:
    return list(Job.objects.order_by("id").values_list("payload", flat=True))


def due_in(handle: JobHandle[Any], dialect: Dialect) -> float:
    run_at = handle.job().run_at
    assert run_at is not None
    return round((run_at - dialect.now()) / MINUTE, 1)


def test_debounce_puts_the_job_off_and_takes_the_last_arguments(dialect: Dialect) -> None:
    first = index.enqueue(1, text="a")
    assert (str(first.status), first.existing) == ("scheduled", False)
    dialect.clock_offset += MINUTE / 2
    second = index.enqueue(1, text="b")
    assert (second, second.existing) == (first, True)
    assert due_in(first, dialect) == 1
    assert payloads() == ['{"*":[1],"text":"b"}']
    other = index.enqueue(2, text="c")
    assert (other.existing, Job.objects.count()) == (False, 2)
    dialect.clock_offset += MINUTE
    assert promote().moved == 2


def test_debounce_puts_off_only_so_far(dialect: Dialect) -> None:
    first = index.enqueue(1)
    for _ in range(3):
        dialect.clock_offset += 0.9 * MINUTE
        assert index.enqueue(1).existing
    assert due_in(first, dialect) == 0.3
    unlimited = index.using(debounce_max=None, debounce_key="other").enqueue(1)
    for _ in range(5):
        dialect.clock_offset += 0.9 * MINUTE
        assert index.using(debounce_max=None, debounce_key="other").enqueue(1).existing
    assert due_in(unlimited, dialect) == 1


def test_a_job_that_is_due_and_has_not_begun_takes_the_arguments_along(dialect: Dialect) -> None:
    first = index.enqueue(1, text="a")
    dialect.clock_offset += MINUTE
    assert promote().moved == 1
    assert index.enqueue(1, text="b") == first
    assert str(first.status) == "pending"
    assert payloads() == ['{"*":[1],"text":"b"}']


@pytest.mark.parametrize("due", [False, True])
def test_a_job_that_is_paused_before_it_begins_answers(dialect: Dialect, due: bool) -> None:
    first = index.enqueue(1, text="a")
    if due:
        dialect.clock_offset += MINUTE
        promote()
    pause(first)
    assert index.enqueue(1, text="b") == first
    resume(first)
    assert (str(first.status), due_in(first, dialect)) == (("pending", 0) if due else ("scheduled", 1))
    assert payloads() == ['{"*":[1],"text":"b"}']


def test_a_job_that_has_begun_is_not_touched(dialect: Dialect) -> None:
    first = index.enqueue(1, text="a")
    dialect.clock_offset += MINUTE
    promote()
    (job,) = claim(claim_of(make_worker(), 1))
    second = index.enqueue(1, text="b")
    assert (second == first, second.existing) == (False, False)
    finish([Ending(job, Released())])
    third = index.enqueue(1, text="c")
    assert (third, third.existing) == (second, True)
    assert payloads() == ['{"*":[1],"text":"a"}', '{"*":[1],"text":"c"}']


def test_a_job_that_has_been_in_a_workers_hands_is_not_touched_begun_or_not(dialect: Dialect) -> None:
    first = index.enqueue(1, text="a")
    dialect.clock_offset += MINUTE
    promote()
    (job,) = claim(claim_of(make_worker(), 1))
    finish([Ending(job, Released())])
    assert str(first.status) == "pending"
    second = index.enqueue(1, text="b")
    assert (second == first, second.existing) == (False, False)


def test_throttle_answers_with_the_first_job_until_the_period_is_over(dialect: Dialect) -> None:
    first = refresh.enqueue(1)
    assert (str(first.status), first.existing) == ("pending", False)
    (job,) = claim(claim_of(make_worker(), 1))
    finish([Ending(job, Completed(None))])
    dialect.clock_offset += 0.9 * MINUTE
    again = refresh.enqueue(2)
    assert (again, again.existing) == (first, True)
    assert payloads() == ['{"*":[1]}']
    assert not refresh.using(throttle_key="other").enqueue(2).existing
    dialect.clock_offset += 0.2 * MINUTE
    assert not refresh.enqueue(3).existing
    assert Job.objects.count() == 3


@pytest.mark.parametrize("job", [index, refresh])
@pytest.mark.parametrize("round_", range(3))
def test_of_five_enqueues_at_once_one_stores_a_job(job: Any, round_: int) -> None:
    handles = together(*[partial(job.enqueue, 1)] * 5)
    assert sorted(handle.existing for handle in handles) == [False, True, True, True, True]
    assert len({handle.id for handle in handles}) == Job.objects.count() == 1


@pytest.mark.parametrize("round_", range(3))
def test_keys_that_are_new_at_the_same_moment_do_not_get_in_each_others_way(round_: int) -> None:
    handles = together(*(partial(index.enqueue, number) for number in range(5)))
    assert [handle.existing for handle in handles] == [False] * 5


@pytest.mark.parametrize("job", [index, refresh])
def test_what_rolls_back_was_never_there(job: Any) -> None:
    with rolled_back():
        job.enqueue(1)
    assert not Job.objects.exists()
    assert not Coalescing.objects.exists()
    with transaction.atomic():
        first = job.enqueue(1)
        assert job.enqueue(1) == first
    with rolled_back():
        assert job.enqueue(1).existing
    assert job.enqueue(1) == first


@pytest.mark.parametrize("job", [index, refresh])
def test_a_claim_beside_the_enqueues_gets_the_arguments_of_one_of_them(job: Any, dialect: Dialect) -> None:
    first = job.enqueue(1)
    dialect.clock_offset += MINUTE / 2 if job is refresh else MINUTE
    promote()
    worker = make_worker()
    claimed, *handles = together(
        lambda: claim(claim_of(worker, 5)), partial(job.enqueue, 1), partial(job.enqueue, 1), partial(job.enqueue, 1)
    )
    assert [one.id for one in claimed] == [first.id] or claimed == []
    assert Job.objects.count() == len({first.id, *(handle.id for handle in handles)}) <= 2


def test_rows_that_answer_for_nothing_are_pruned(dialect: Dialect) -> None:
    index.enqueue(1)
    refresh.enqueue(1)
    claim(claim_of(make_worker(), 5))
    assert prune_coalescing() == 0
    dialect.clock_offset += 2 * MINUTE
    assert prune_coalescing() == 1, "the job of the debounce has not begun"
    promote()
    claim(claim_of(make_worker(), 5))
    dialect.clock_offset += 60 * MINUTE  # it is not looked at all the time
    assert prune_coalescing() == 1
    assert not Coalescing.objects.exists()


# What is refused ---------------------------------------------------------------------------------------------------


def test_many_at_once_are_refused_and_nothing_is_stored() -> None:
    with pytest.raises(OptionError, match=r"Job 1 of 2: .*one job at a time"):
        enqueue_many([refresh.using(throttle=None, throttle_key=None).s(1), refresh.s(2)])
    with pytest.raises(OptionError, match="one job at a time"):
        index.enqueue_many([(1,)])
    assert not Job.objects.exists()


def test_arguments_and_keys_are_checked_before_anything_is_stored() -> None:
    with pytest.raises(ArgumentError):
        index.enqueue("x", nothing=1)  # type: ignore[arg-type, call-arg]
    with pytest.raises(OptionError, match=r"debounce_key of .*index: the function .*raised KeyError"):
        index.using(debounce_key=lambda document, **_: {}[document]).enqueue(1)
    with pytest.raises(OptionError, match=r"throttle_key of .*refresh: the function .*must return a str, not NoneType"):
        refresh.using(throttle_key=lambda _number: None).enqueue(1)  # type: ignore[arg-type, return-value]
    assert not Job.objects.exists()
    assert not Coalescing.objects.exists()


@pytest.mark.parametrize("name", ["debounce", "throttle"])
@pytest.mark.parametrize("length", [0, -1, float("nan"), float("inf"), 10**12, "soon", True, timedelta(0)])
def test_n10_a_length_that_is_none_is_refused(name: str, length: Any) -> None:
    with pytest.raises(OptionError, match=name):
        Options().changed({name: length})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"debounce": 1, "throttle": 1}, "debounce and throttle exclude each other"),
        ({"debounce": 1, "delay": 1}, "debounce and delay exclude each other"),
        ({"debounce": 1, "sequence_key": "a"}, "debounce and sequence_key exclude each other"),
        ({"debounce_key": "a"}, "debounce_key means something together with debounce only"),
        ({"debounce_max": 1}, "together with debounce only"),
        ({"throttle_key": "a"}, "together with throttle only"),
        ({"debounce": 2, "debounce_max": 1}, "must not be shorter"),
        ({"chunk_timeout": 1}, "together with chunk only"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Options().changed(given)


def test_options_of_the_function_are_not_taken_by_one_enqueue() -> None:
    with pytest.raises(DefinitionError, match="belongs to the function"):
        refresh.using(chunk=10)  # type: ignore[call-arg]


def test_keys_that_differ_only_at_their_end_are_told_apart_however_long() -> None:
    first, second = (long_named.using(throttle_key="k" * 199 + end) for end in "ab")
    assert first.enqueue(1).id != second.enqueue(1).id
    assert first.enqueue(1).existing
    assert max(map(len, Coalescing.objects.values_list("key", flat=True))) <= 250
