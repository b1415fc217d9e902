"""From enqueue to result on whatever Python and Django runs this: the shortest way through every floor."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.urls import reverse

from django_durable_jobs import JobFailed, Status, enqueue, retry
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.worker import Worker
from tests import jobs

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db(transaction=True)


def drain() -> None:
    """Run a real worker in this process until no job is left."""
    Worker(WorkerOptions(name=f"smoke-{uuid4()}", queues={"default": 4}, drain=True)).run()


def test_sync_async_and_workflow_jobs_give_their_results() -> None:
    """Threads, the event loop and durable calls, in one worker."""
    plain, on_loop, by_name = jobs.add.enqueue(1, 2), jobs.async_add.enqueue(a=3, b=4), enqueue("tests.jobs.sums", 5)
    drain()
    assert (plain.result(), on_loop.result(), by_name.result()) == (3, 7, 10)
    assert by_name.job().checkpoints.count() == 5


def test_many_jobs_are_each_done_once() -> None:
    """A batch larger than any prefetch."""
    handles = jobs.noop.enqueue_many([(n,) for n in range(1000)])
    drain()
    rows = type(handles[0].job()).objects.filter(id__in=[handle.id for handle in handles])
    assert {(row.status, row.attempt) for row in rows} == {("completed", 1)}


def test_a_failed_job_tells_why_and_can_be_retried() -> None:
    """The dead letter and the way out of it."""
    handle = jobs.explode.enqueue("boom")
    drain()
    assert handle.status is Status.FAILED
    with pytest.raises(JobFailed, match="ValueError: boom"):
        handle.result()
    retry(handle.id)
    drain()
    assert handle.job().attempts.count() == 2


def test_the_admin_lists_jobs(client: Client, admin_user: User) -> None:
    """The page that an operator opens first."""
    handle = jobs.add.enqueue(1, 2)
    client.force_login(admin_user)
    page = client.get(reverse("admin:django_durable_jobs_job_changelist"))
    assert page.status_code == 200
    assert str(handle.id) in page.content.decode()


def test_the_command_drains_a_queue() -> None:
    """``manage.py runjobs`` in this process."""
    handle = jobs.add.enqueue(20, 3)
    call_command("runjobs", "--queue", "default=2", "--drain", "-v", "0")
    assert handle.result() == 23
