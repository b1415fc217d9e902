"""Deadlocks and lock waits that run out while endings and checkpoints are stored (X27): repeated, never told a job."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Attempt, Checkpoint, Job
from django_durable_jobs.operations import checkpoints
from django_durable_jobs.operations.checkpoints import Steady
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Failed, Failure, Released
from tests.factories import LEASE, checkpoint_of, claim_one, make_job, present
from tests.reliability.outages import has_sessions
from tests.waiting import eventually, together

pytestmark = pytest.mark.django_db(transaction=True)

PATIENT = {"postgresql": "SET deadlock_timeout = '20s'"}
"""Leaves it to the other session to find the deadlock: on PostgreSQL who looks first is the one that is ended."""

SHORT_LOCK_WAIT = {"postgresql": "SET lock_timeout = 100", "mysql": "SET innodb_lock_wait_timeout = 1"}

Store = Callable[[list[Claimed]], object]


@pytest.fixture(autouse=True)
def _rows_can_be_locked() -> None:
    if not has_sessions():
        pytest.skip("the whole database is one lock, and its waits have no order")


@pytest.fixture
def conflicts(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set when the package has recognised a conflict."""
    seen, real = threading.Event(), dialect.is_conflict

    def watch(error: Exception) -> bool:
        answer = real(error)
        if answer:
            seen.set()
        return answer

    monkeypatch.setattr(dialect, "is_conflict", watch)
    return seen


def fail(held: list[Claimed]) -> object:
    return finish([Ending(job, Failed(Failure("ValueError: no", ""))) for job in held])


def release(held: list[Claimed]) -> object:
    return finish([Ending(job, Released()) for job in held])


def save(held: list[Claimed]) -> object:
    rows = [checkpoint_of(job) for job in held]
    return Steady(LEASE).repeat(lambda: checkpoints.save(rows))


def lock(job: Claimed) -> None:
    """Lock a job's row, until the end of the transaction."""
    assert Job.objects.select_for_update().get(id=job.id).id == job.id


def is_locked(job: Claimed) -> bool:
    """Whether another transaction has the row."""
    with transaction.atomic():
        return not Job.objects.select_for_update(skip_locked=True).filter(id=job.id).exists()


@pytest.mark.parametrize("store", [fail, release, save])
def test_x27_a_deadlock_is_resolved_without_a_word_to_the_job(store: Store, conflicts: threading.Event) -> None:
    first, second = sorted((claim_one() for _two in range(2)), key=lambda job: job.id)
    ballast = [make_job("failed") for _ in range(20)]
    has_second, may_go_on = threading.Event(), threading.Event()

    def ours() -> object:
        has_second.wait(10)
        return store([first, second])

    def theirs() -> None:
        if connection.vendor in PATIENT:
            with connection.cursor() as cursor:
                cursor.execute(PATIENT[connection.vendor])
        with transaction.atomic():
            # MariaDB ends the transaction that has changed less: ours.
            Job.objects.filter(id__in=[job.id for job in ballast]).update(last_error="changed")
            lock(second)
            has_second.set()
            may_go_on.wait(10)
            lock(first)

    def referee() -> None:
        has_second.wait(10)
        eventually(lambda: is_locked(first))
        may_go_on.set()

    together(ours, theirs, referee)
    assert conflicts.is_set()
    everything_is_stored_once(store, [first, second])


@pytest.mark.parametrize("store", [fail, release, save])
def test_x27_a_wait_for_a_lock_that_ran_out_begins_again(store: Store, conflicts: threading.Event) -> None:
    job = claim_one()
    locked = threading.Event()

    def ours() -> object:
        locked.wait(10)
        with connection.cursor() as cursor:
            cursor.execute(SHORT_LOCK_WAIT[connection.vendor])
        return store([job])

    def theirs() -> None:
        with transaction.atomic():
            lock(job)
            locked.set()
            assert conflicts.wait(10)

    together(ours, theirs)
    everything_is_stored_once(store, [job])


def everything_is_stored_once(store: Store, held: list[Claimed]) -> None:
    """Check what ``store`` should have done with each job."""
    rows = [present(job) for job in held]
    expected = {"fail": ("failed", 1), "release": ("pending", 0), "save": ("running", 1)}[store.__name__]
    assert [(row.status, row.attempt) for row in rows] == [expected] * len(held)
    assert Attempt.objects.count() == (len(held) if store is fail else 0)
    assert Checkpoint.objects.count() == (len(held) if store is save else 0)
