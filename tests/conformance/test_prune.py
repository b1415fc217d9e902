"""Retention, on every database: what is deleted, what never is, and how the pruner walks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.ids import lowest_id_at
from django_durable_jobs.models import Job, Message, Worker
from django_durable_jobs.operations import prune as pruning
from django_durable_jobs.operations.prune import prune, prune_workers
from django_durable_jobs.states import FINAL, Status
from tests.factories import make_belongings, make_job, make_worker

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def old_job(dialect: Dialect, status: Status | str, *, days: float, number: int = 0, **columns: Any) -> Job:
    """Store a job that was created, and if it is final ended, this many days ago."""
    id_ = UUID(int=lowest_id_at(dialect.now() - days * DAY).int + number)
    ended = {"finished_at": DatabaseNow() - days * DAY} if Status(status) in FINAL else {}
    return make_job(status, id=id_, **{"created_at": DatabaseNow() - days * DAY, **ended, **columns})


def prune_all() -> int:
    """Walk through all windows and return how many jobs were deleted."""
    deleted, place = prune(None)
    while place is not None:
        more, place = prune(place)
        deleted += more
    return deleted


@pytest.mark.parametrize("status", sorted(set(Status) - FINAL))
def test_a_job_that_has_not_ended_is_never_deleted_however_old(dialect: Dialect, status: Status) -> None:
    old_job(dialect, status, days=5000)
    assert prune_all() == 0
    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    ("status", "kept", "dropped"), [("completed", 6, 8), ("cancelled", 6, 8), ("expired", 6, 8), ("failed", 29, 31)]
)
def test_ended_jobs_are_kept_as_long_as_their_retention_says(
    dialect: Dialect, status: str, kept: float, dropped: float
) -> None:
    young = old_job(dialect, status, days=kept)
    old_job(dialect, status, days=dropped)
    assert prune_all() == 1
    assert list(Job.objects.values_list("id", flat=True)) == [young.id]


def test_retention_counts_from_the_end_of_the_job_not_from_its_creation(dialect: Dialect) -> None:
    old_job(dialect, "completed", days=100, finished_at=DatabaseNow() - DAY)
    assert prune_all() == 0


def test_i9_retention_counts_by_the_databases_clock(dialect: Dialect) -> None:
    make_job("completed")
    dialect.clock_offset = 6 * DAY
    assert prune_all() == 0
    dialect.clock_offset = 8 * DAY
    assert prune_all() == 1


@override_settings(
    DURABLE_JOBS={
        "RETENTION_COMPLETED": 10 * DAY,
        "RETENTION_FAILED": 20 * DAY,
        "RETENTION": {"mail": {"completed": 2 * DAY, "failed": 40 * DAY}, "*": {"cancelled": 5 * DAY}, "none": {}},
    }
)
@pytest.mark.parametrize(
    ("queue", "status", "days"),
    [
        *(("mail", "completed", 2), ("mail", "failed", 40), ("mail", "cancelled", 5), ("mail", "expired", 10)),
        *(("default", "completed", 10), ("default", "failed", 20), ("default", "cancelled", 5)),
        *(("none", "completed", 10), ("default", "expired", 10)),
    ],
)
def test_d16_a_queue_and_a_status_may_have_a_retention_of_their_own(
    dialect: Dialect, queue: str, status: str, days: int
) -> None:
    young = old_job(dialect, status, days=days - 0.5, queue=queue)
    old_job(dialect, status, days=days + 0.5, queue=queue)
    assert prune_all() == 1
    assert list(Job.objects.values_list("id", flat=True)) == [young.id]


@override_settings(DURABLE_JOBS={"RETENTION": {"default": {"completed": 0}}})
def test_x72_no_retention_takes_a_child_from_its_parent(dialect: Dialect) -> None:
    parent = old_job(dialect, "running", days=1, number=1)
    child = old_job(dialect, "completed", days=1, number=2, parent=parent, parent_call="children 0/1")
    alone = old_job(dialect, "completed", days=1, number=3)
    assert prune_all() == 1
    assert set(Job.objects.values_list("id", flat=True)) == {parent.id, child.id}
    assert alone.id not in {parent.id, child.id}


@override_settings(DURABLE_JOBS={"RETENTION_COMPLETED": 3600, "RETENTION_FAILED": 7200})
def test_retention_follows_the_settings(dialect: Dialect) -> None:
    old_job(dialect, "completed", days=2 / 24)
    old_job(dialect, "failed", days=1.5 / 24)
    assert prune_all() == 1
    assert Job.objects.get().status == "failed"


def test_all_that_belongs_to_a_job_goes_with_it_and_nothing_else(dialect: Dialect) -> None:
    gone, stays = old_job(dialect, "failed", days=31), old_job(dialect, "failed", days=1)
    made = [row for job in (gone, stays) for row in make_belongings(job)]
    event = Message.objects.create(name="go", payload="1")
    assert prune_all() == 1
    for table in {type(row) for row in made} - {Message}:
        assert [row.job_id for row in table._default_manager.all()] == [stays.id], table
    assert set(Message.objects.values_list("job_id", "id")) == {(stays.id, stays.messages.get().id), (None, event.id)}


def test_the_pruner_walks_in_windows_and_says_when_it_is_through(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "WINDOW", 2)
    jobs = [old_job(dialect, "completed", days=40 - n, number=n) for n in range(5)]
    old_job(dialect, "pending", days=60)
    places = []
    deleted, place = prune(None)
    while place is not None:
        places.append(place)
        more, place = prune(place)
        deleted += more
    assert deleted == 5
    assert places == [jobs[0].id, jobs[2].id, jobs[4].id]
    assert Job.objects.get().status == "pending"


def test_rows_of_workers_that_are_gone_for_a_day_are_deleted() -> None:
    stopped = make_worker(stopped_at=DatabaseNow() - 2 * DAY)
    lost = make_worker(lease=-2 * DAY)
    kept = {make_worker().pk, make_worker(lease=timedelta(hours=-1)).pk, make_worker(stopped_at=DatabaseNow()).pk}
    assert prune_workers() == 2
    assert set(Worker.objects.values_list("id", flat=True)) == kept
    assert not Worker.objects.filter(id__in=[stopped.pk, lost.pk]).exists()


def test_the_row_of_a_worker_that_still_holds_a_job_stays() -> None:
    worker = make_worker(lease=-2 * DAY)
    make_job("running", worker=worker)
    assert prune_workers() == 0
