"""Checkpoints, on every database: stored once, never changed, and only under the present lease."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.db import IntegrityError, transaction

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.dialects.rows import NewCheckpoint
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations import checkpoints
from django_durable_jobs.operations.checkpoints import load
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.outcomes import Completed, Released
from tests.factories import checkpoint_of, claim_of, claim_one, make_worker
from tests.transactions import rolled_back

pytestmark = pytest.mark.django_db(transaction=True)


def save(rows: list[NewCheckpoint]) -> set[tuple[UUID, str]]:
    """Store rows and return those that are stored."""
    return checkpoints.save(rows).stored


def stored() -> list[tuple[str, str | None, str | None]]:
    return list(Checkpoint.objects.order_by("key").values_list("key", "result", "error"))


def test_a_checkpoint_is_stored_and_found_again_by_its_key() -> None:
    job = claim_one()
    text = '{"v":"ü\\"\u2028😀"}'
    assert save([checkpoint_of(job, "1", result=text)]) == {(job.id, "1")}
    (found,) = load(job.id, job.generation).items()
    assert found == ("1", ("tests.jobs.add", "call", text, None))


def test_checkpoints_of_another_generation_are_not_loaded() -> None:
    job = claim_one(generation=1)
    save([checkpoint_of(job)])
    assert load(job.id, 0) == {}
    assert list(load(job.id, 1)) == ["1"]


def test_an_error_is_stored_in_place_of_a_result() -> None:
    job = claim_one()
    assert save([checkpoint_of(job, result=None, error='{"type":"ValueError"}')])
    assert stored() == [("1", None, '{"type":"ValueError"}')]


def test_i8_i13_a_checkpoint_under_an_old_token_is_refused() -> None:
    old = claim_one()
    finish([Ending(old, Released())])
    (new,) = claim(claim_of(make_worker()))
    assert save([checkpoint_of(old)]) == set()
    assert stored() == []
    assert save([checkpoint_of(new)]) == {(new.id, "1")}


def test_i8_a_checkpoint_of_a_job_that_was_taken_back_is_refused() -> None:
    job = claim_one(make_worker(lease=timedelta(seconds=-9)), lease=timedelta(seconds=-5))
    rescue()
    assert save([checkpoint_of(job)]) == set()
    assert stored() == []


def test_i4_a_checkpoint_of_a_finished_job_is_refused() -> None:
    job = claim_one()
    finish([Ending(job, Completed("1"))])
    assert save([checkpoint_of(job)]) == set()
    assert stored() == []


def test_i13_the_same_checkpoint_stored_again_is_recognised() -> None:
    # An answer was lost: the commit happened, its writer does not know and repeats it.
    job = claim_one()
    for _n in range(2):
        assert save([checkpoint_of(job, "1"), checkpoint_of(job, "2")]) == {(job.id, "1"), (job.id, "2")}
    assert stored() == [("1", "1", None), ("2", "1", None)]


def test_i13_a_stored_checkpoint_is_never_changed() -> None:
    job = claim_one()
    save([checkpoint_of(job, result="1")])
    with pytest.raises(IntegrityError):
        save([checkpoint_of(job, result="2")])
    assert stored() == [("1", "1", None)]


def test_i13_the_database_itself_refuses_a_second_row_for_one_call() -> None:
    job = claim_one()
    save([checkpoint_of(job)])
    with pytest.raises(IntegrityError), transaction.atomic():
        Checkpoint.objects.create(job_id=job.id, generation=0, key="1", name="other", result="2")


def test_a_checkpoint_is_either_a_result_or_an_error() -> None:
    job = claim_one()
    for values in ({"result": None, "error": None}, {"result": "1", "error": "2"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Checkpoint.objects.create(job_id=job.id, key="1", name="x", **values)


def test_checkpoints_of_several_jobs_share_one_commit() -> None:
    jobs = [claim_one() for _n in range(5)]
    rows = [checkpoint_of(job, str(n)) for n in range(1, 4) for job in jobs]
    assert save(rows) == {(row.job_id, row.key) for row in rows}
    assert Checkpoint.objects.count() == 15


def test_one_lost_lease_in_a_group_costs_the_others_nothing() -> None:
    first, second = claim_one(), claim_one()
    assert save([checkpoint_of(first), checkpoint_of(second, token=0)]) == {(first.id, "1")}
    assert [row.job_id for row in Checkpoint.objects.all()] == [first.id]


@pytest.mark.parametrize("old_first", [True, False])
def test_i8_of_two_attempts_of_one_job_in_a_group_only_the_present_one_stores(old_first: bool) -> None:
    # A worker that lost a job and claimed it again may have the old code still running beside the new.
    old = claim_one()
    finish([Ending(old, Released())])
    (new,) = claim(claim_of(make_worker()))
    rows = [checkpoint_of(old, "1", result='"old"'), checkpoint_of(new, "2", result='"new"')]
    assert save(rows if old_first else rows[::-1]) == {(new.id, "2")}
    assert stored() == [("2", '"new"', None)]


def test_inside_a_transaction_checkpoints_are_rolled_back_with_it() -> None:
    job = claim_one()
    with rolled_back():
        assert save([checkpoint_of(job)]) == {(job.id, "1")}
    assert stored() == []


def test_a_checkpoint_learns_that_its_job_is_to_be_cancelled() -> None:
    job, other = claim_one(), claim_one()
    rows = [checkpoint_of(job), checkpoint_of(other)]
    Job.objects.filter(id=other.id).update(cancel_requested_at=DatabaseNow())
    assert checkpoints.save(rows[:1]) == ({(job.id, "1")}, set(), set())
    assert checkpoints.save(rows[1:]) == ({(other.id, "1")}, {other.id}, set())
    together = [checkpoint_of(job, "2"), checkpoint_of(other, "2")]
    assert checkpoints.save(together) == ({(job.id, "2"), (other.id, "2")}, {other.id}, set())


def test_a_checkpoint_learns_that_its_job_is_to_be_paused() -> None:
    job, other, ending = claim_one(), claim_one(), claim_one()
    Job.objects.filter(id__in=[other.id, ending.id]).update(pause_requested_at=DatabaseNow())
    Job.objects.filter(id=ending.id).update(cancel_requested_at=DatabaseNow())
    assert checkpoints.save([checkpoint_of(job)]) == ({(job.id, "1")}, set(), set())
    assert checkpoints.save([checkpoint_of(other)]) == ({(other.id, "1")}, set(), {other.id})
    assert checkpoints.save([checkpoint_of(ending)]) == ({(ending.id, "1")}, {ending.id}, set())
    together = [checkpoint_of(one, "2") for one in (job, other, ending)]
    keys = {(one.id, "2") for one in (job, other, ending)}
    assert checkpoints.save(together) == (keys, {ending.id}, {other.id})
