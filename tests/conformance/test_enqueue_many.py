"""Many jobs at once, and jobs whose id the caller chose, on every database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid1, uuid4, uuid5

import pytest
from django.db import IntegrityError, transaction

from django_durable_jobs import ArgumentError, OptionError, SerializationError, enqueue_many, new_job_id
from django_durable_jobs.durable.job import Invocation
from django_durable_jobs.models import Job
from django_durable_jobs.operations import enqueue as enqueueing
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Completed
from tests.factories import claim_of, claim_one, make_worker
from tests.jobs import add, explode, noop
from tests.transactions import rolled_back
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("count", [0, 1, 2, 199, 200, 2500])
def test_many_jobs_are_stored_at_once_in_their_order(count: int) -> None:
    # 200 is where PostgreSQL begins to COPY; 2,500 rows are beyond the parameters of one statement everywhere.
    handles = add.enqueue_many([(n, n) for n in range(count)])
    assert list(Job.objects.order_by("id").values_list("id", flat=True)) == [handle.id for handle in handles]
    for index in {0, count // 2, count - 1} if count else ():
        assert add.definition.arguments.load(handles[index].job().payload) == ((index, index), {})


@pytest.mark.parametrize("count", [3, 600])
def test_every_column_is_the_same_whether_jobs_are_stored_singly_or_together(count: int) -> None:
    def columns(job_id: UUID) -> dict[str, Any]:
        row = Job.objects.values().get(id=job_id)
        waits = None if row["run_at"] is None else row["run_at"] - row["created_at"]
        unlike = {"id": None, "created_at": None, "run_at": waits and round(waits.total_seconds())}
        return {**row, **unlike}

    jobs = [
        noop,
        noop.using(delay=60),
        noop.using(queue="mail", priority=-7, retries=0, call_retries=2),
    ]
    singly = [columns(job.enqueue(1).id) for job in jobs]
    together_ = enqueue_many([jobs[n % 3].s(1) for n in range(count)])
    assert [columns(handle.id) for handle in together_[:3]] == singly
    assert [columns(handle.id) for handle in together_[-3:]] == singly


def test_jobs_of_several_definitions_and_ways_to_give_arguments() -> None:
    mixed: list[Invocation[Any]] = [add.s(1, b=2), noop.s(n=1), add.using(queue="mail").s(3, 4)]
    first, second, third = enqueue_many(mixed)
    assert [handle.definition for handle in (first, second, third)] == ["tests.jobs.add", "tests.jobs.noop", add.name]
    assert third.job().queue == "mail"
    (by_name,) = add.enqueue_many([{"a": 1, "b": 2}])
    assert by_name.job().payload == add.enqueue(a=1, b=2).job().payload


def test_a_generator_of_jobs_is_taken_too() -> None:
    assert len(add.enqueue_many((n, n) for n in range(3))) == 3
    assert len(enqueue_many(add.s(n, n) for n in range(3))) == 3


@pytest.mark.parametrize(
    ("bad", "error"),
    [((1,), ArgumentError), ((1, 2, 3), ArgumentError), ((1, "2"), ArgumentError), ((1, float("nan")), ArgumentError)],
)
@pytest.mark.parametrize("index", [0, 2, 4])
def test_n32_one_bad_job_refuses_all_and_is_named_by_its_index(
    bad: tuple[Any, ...], error: type[Exception], index: int
) -> None:
    arguments: list[Any] = [(n, n) for n in range(5)]
    arguments[index] = bad
    with pytest.raises(error, match=rf"\b{index} of 5\b"):
        add.enqueue_many(arguments)
    assert not Job.objects.exists()


@pytest.mark.parametrize("bad", [5, "ab", None, [1, 2], noop])
def test_n32_an_item_that_is_no_set_of_arguments_is_named_by_its_index(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="Item 1 of enqueue_many"):
        add.enqueue_many([(1, 2), bad])
    with pytest.raises(ArgumentError, match="Item 1 of enqueue_many"):
        enqueue_many([add.s(1, 2), bad])
    assert not Job.objects.exists()


def test_an_argument_that_cannot_be_stored_is_named_with_its_index() -> None:
    with pytest.raises(SerializationError, match=r"Job 1 of 2.*NUL"):
        enqueue_many([noop.s(1), explode.s("a\0b")])


def test_many_jobs_are_part_of_the_callers_transaction() -> None:
    with rolled_back():
        add.enqueue_many([(n, n) for n in range(300)])
    assert not Job.objects.exists()


def test_n32_an_error_of_the_database_leaves_none_of_many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    # The last of them has the id of a job that is there: the statements before it have gone through.
    known = noop.enqueue(1)
    made = [new_job_id() for _n in range(1199)]
    ids = iter([*made, known.id])
    monkeypatch.setattr(enqueueing, "new_job_id", lambda: next(ids))
    with pytest.raises(IntegrityError):
        noop.enqueue_many([(n,) for n in range(1200)])
    assert list(Job.objects.values_list("id", flat=True)) == [known.id]


def test_jobs_stored_together_are_claimed_in_their_order() -> None:
    handles = add.enqueue_many([(n, n) for n in range(300)])
    claimed = claim(claim_of(make_worker(), 300))
    assert [job.id for job in claimed] == [handle.id for handle in handles]


# Given ids --------------------------------------------------------------------------------------------------


def test_n29_a_given_id_is_used_and_a_repeat_finds_the_same_job() -> None:
    job_id = new_job_id()
    handles = [add.using(id=job_id).enqueue(1, 2) for _n in range(3)]
    assert {handle.id for handle in handles} == {job_id}
    assert Job.objects.count() == 1


@pytest.mark.parametrize("job", [add.s(1, 3), noop.s(1)])
def test_n29_an_id_that_belongs_to_another_job_is_refused(job: Any) -> None:
    job_id = new_job_id()
    add.using(id=job_id).enqueue(1, 2)
    with pytest.raises(OptionError, match=f"{job_id} belongs to another job"):
        job.job.using(id=job_id).enqueue(*job.args)
    assert Job.objects.count() == 1


@pytest.mark.parametrize("wrong", ["x", 17, "00000000-0000-4000-8000-000000000000", b"0" * 16, 1.5])
def test_n29_an_id_that_is_no_uuid_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match="id must be a uuid"):
        add.using(id=wrong)


@pytest.mark.parametrize("wrong", [uuid1(), uuid4(), uuid5(NAMESPACE_URL, "https://shop.example/9"), UUID(int=0)])
def test_n29_an_id_that_does_not_sort_by_its_creation_is_refused_and_the_way_to_make_one_is_named(wrong: UUID) -> None:
    with pytest.raises(OptionError, match=rf"version 7.*sort.*not {wrong} of version.*new_job_id\(\)"):
        add.using(id=wrong)


def test_n29_an_id_of_a_deleted_job_makes_a_new_job() -> None:
    job_id = new_job_id()
    done = claim_one(id=job_id, definition=add.name, payload=add.definition.arguments.dump((1, 2), {}, 1000))
    finish([Ending(done, Completed("3"))])
    assert add.using(id=job_id).enqueue(1, 2).status == "completed"
    delete(done.id)
    again = add.using(id=job_id).enqueue(1, 2)
    assert (again.id, again.status) == (job_id, "pending")
    assert again.job().token == 0


def test_n29_an_id_of_a_deleted_job_may_be_another_jobs() -> None:
    job_id = new_job_id()
    add.using(id=job_id).enqueue(1, 2)
    delete(job_id)
    assert noop.using(id=job_id).enqueue(1).job().definition == noop.name


def test_n29_one_call_cannot_use_an_id_twice() -> None:
    job = add.using(id=new_job_id())
    with pytest.raises(OptionError, match="same id"):
        enqueue_many([job.s(1, 2), job.s(1, 2)])
    assert not Job.objects.exists()


def test_n29_an_id_of_another_job_refuses_all_jobs_of_the_call() -> None:
    job_id = new_job_id()
    add.using(id=job_id).enqueue(1, 2)
    mixed: list[Invocation[Any]] = [noop.s(1), add.using(id=job_id).s(1, 3), noop.s(2)]
    with pytest.raises(OptionError, match="another job"):
        enqueue_many(mixed)
    assert Job.objects.count() == 1


def test_jobs_with_and_without_ids_are_stored_together() -> None:
    job_id = new_job_id()
    add.using(id=job_id).enqueue(1, 2)
    mixed: list[Invocation[Any]] = [noop.s(1), add.using(id=job_id).s(1, 2), noop.s(2)]
    first, known, last = enqueue_many(mixed)
    assert known.id == job_id
    assert len({first.id, job_id, last.id}) == 3
    assert Job.objects.count() == 3


def test_n29_the_same_id_from_several_threads_makes_one_job() -> None:
    for _round in range(10):
        job_id = new_job_id()
        handles = together(*[lambda job_id=job_id: add.using(id=job_id).enqueue(1, 2) for _n in range(4)])
        assert {handle.id for handle in handles} == {job_id}
        assert Job.objects.filter(id=job_id).count() == 1


def test_a_repeat_with_a_given_id_inside_a_transaction_leaves_it_usable() -> None:
    job_id = new_job_id()
    add.using(id=job_id).enqueue(1, 2)
    with transaction.atomic():
        add.using(id=job_id, delay=timedelta(seconds=1)).enqueue(1, 2)
        other = noop.enqueue(1)
    assert Job.objects.count() == 2
    assert other.status == "pending"
