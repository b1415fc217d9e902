"""Waking other connections, where the database can (LISTEN/NOTIFY): a hint that never fails an enqueue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import override_settings

from django_durable_jobs import enqueue_many
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Job
from django_durable_jobs.operations import enqueue as enqueueing
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.retry import retry
from tests.factories import make_job
from tests.jobs import noop
from tests.transactions import rolled_back
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

LAST = "the-last-one"


class Heard:
    """A listener on a connection of its own; it reads on until it hears the queue that ends a test."""

    def __init__(self, listening: Any) -> None:
        self._listening = listening
        assert next(listening) is None, "the first answer says that listening has begun"

    def until_last(self) -> list[str]:
        """Return what was said before the job that this method enqueues."""
        noop.using(queue=LAST).enqueue(0)
        heard: list[str | None] = []

        def last_one_came() -> bool:
            heard.append(next(self._listening))
            return heard[-1] == LAST

        eventually(last_one_came)
        return [payload for payload in heard[:-1] if payload is not None]


@pytest.fixture
def listener(dialect: Dialect) -> Iterator[Heard]:
    if not dialect.has_notifications:
        pytest.skip("this database has no notifications (has_notifications)")
    own = connections.create_connection("default")
    try:
        yield Heard(dialect.listen(1, own))
    finally:
        own.close()


def test_a_job_that_may_run_now_names_its_queue(listener: Heard) -> None:
    noop.using(queue="mail").enqueue(1)
    assert listener.until_last() == ["mail"]


def test_a_job_that_is_due_later_names_no_queue(listener: Heard) -> None:
    noop.using(queue="mail", delay=60).enqueue(1)
    assert listener.until_last() == [""]


def test_many_jobs_name_each_queue_once(listener: Heard) -> None:
    jobs = [noop.using(queue=queue) for queue in ("mail", "video")]
    enqueue_many([job.s(n) for n in range(300) for job in jobs])
    assert sorted(listener.until_last()) == ["mail", "video"]


def test_nothing_is_said_before_the_commit_and_nothing_after_a_rollback(listener: Heard) -> None:
    with rolled_back():
        noop.using(queue="never").enqueue(1)
    with transaction.atomic():
        for n in range(3):
            noop.using(queue="mail").enqueue(n)
    assert listener.until_last() == ["mail"]


def test_x66_one_process_names_a_queue_only_so_often(listener: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueueing, "NOTIFY_PAUSE", 3600)
    for n in range(5):
        noop.using(queue="mail").enqueue(n)
    assert listener.until_last() == ["mail"]


@override_settings(DURABLE_JOBS={"NOTIFY": False})
def test_x66_notifications_can_be_switched_off(listener: Heard) -> None:
    noop.using(queue="mail").enqueue(1)
    noop.enqueue_many([(1,), (2,)])
    with override_settings(DURABLE_JOBS={"NOTIFY": True}):
        assert listener.until_last() == []


def test_jobs_that_became_due_name_their_queues(listener: Heard) -> None:
    make_job("scheduled", queue="mail", run_at=DatabaseNow())
    assert promote().moved == 1
    assert listener.until_last() == ["mail"]


def test_a_retried_job_names_its_queue(listener: Heard) -> None:
    retry(make_job("failed", queue="mail"))
    assert listener.until_last() == ["mail"]


def test_x67_the_longest_queue_and_the_largest_arguments_never_fail_an_enqueue() -> None:
    # On PostgreSQL a payload of 8,000 bytes aborts the transaction: only the name of the queue is sent.
    queue = "q" * 100
    handle = noop.using(queue=queue).enqueue(10**4000)
    with transaction.atomic():
        inside = noop.using(queue=queue).enqueue(10**4000)
    assert Job.objects.filter(id__in=[handle.id, inside.id], queue=queue).count() == 2


def test_a_database_without_notifications_is_asked_nothing(dialect: Dialect, django_assert_num_queries: Any) -> None:
    if dialect.has_notifications:
        pytest.skip("this database has notifications (has_notifications)")
    with django_assert_num_queries(0):
        dialect.notify(["mail"])
