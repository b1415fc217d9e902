"""What the admin's lists and pages cost."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_durable_jobs.admin import base
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.states import Status
from tests.factories import make_attempt, make_checkpoint, make_job, make_worker
from tests.surfaces.admin_pages import ADMIN, JOBS, html, listed, page_of
from tests.surfaces.people import staff, superuser

pytestmark = pytest.mark.django_db


def queries_of(client: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        html(client, address)
    return len(queries)


def test_lists_and_pages_take_as_many_queries_for_many_rows_as_for_few() -> None:
    """P13's shape: a fixed number of queries, ten at most."""
    job = make_job(Status.FAILED)
    worker = make_worker()
    client = staff("view_job", "view_arguments", "view_queue", "view_worker")
    addresses = [JOBS, f"{JOBS}?status=running", page_of(job), f"{ADMIN}queue/", f"{ADMIN}worker/"]

    def add_rows(number: int) -> None:
        for index in range(number):
            make_attempt(job, 1)
            make_checkpoint(job, str(job.checkpoints.count() + 1))
            Queue.objects.get_or_create(name=f"queue-{number}-{index}")
            make_job(Status.RUNNING, worker=worker if index % 2 else make_worker())

    add_rows(10)
    for address in addresses:
        html(client, address)  # Django remembers content types from the first page on
    few = {address: queries_of(client, address) for address in addresses}
    row = Job.objects.filter(status="running").values().first()
    assert row is not None
    Job.objects.bulk_create([Job(**{**row, "id": UUID(int=row["id"].int + 1 + n)}) for n in range(1000)])
    add_rows(60)
    many = {address: queries_of(client, address) for address in addresses}
    assert many == few
    assert max(many.values()) <= 11


def test_a_list_counts_and_pages_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "COUNTED", 250)
    row = Job.objects.filter(id=make_job().id).values().get()
    Job.objects.bulk_create([Job(**{**row, "id": UUID(int=row["id"].int + 1 + n)}) for n in range(249)])
    client = superuser()
    assert "There are more" not in html(client, JOBS)
    make_job()
    text = html(client, JOBS)
    assert "250 jobs" in text
    assert "There are more" in text
    assert len(listed(client, p=3)) == 50
    with CaptureQueriesContext(connection) as queries:
        html(client, JOBS)
    counts = [query["sql"] for query in queries if "COUNT" in query["sql"].upper()]
    assert counts
    assert all("LIMIT 251" in sql for sql in counts)


def test_the_list_does_not_read_what_may_be_large() -> None:
    make_job(payload=json.dumps("x" * 100_000), result=json.dumps("y" * 100_000))
    client = superuser()
    with CaptureQueriesContext(connection) as queries:
        html(client, JOBS)
    assert not any("payload" in query["sql"] or "result" in query["sql"].lower() for query in queries)


def test_attempts_and_calls_have_pages() -> None:
    job = make_job()
    for number in range(1, 151):
        make_checkpoint(job, str(number), name=f"call-{number}-")
    for number in range(1, 26):
        make_attempt(job, number, error=f"error-{number}-")
    client = superuser()
    first = html(client, page_of(job))
    second = html(client, page_of(job), calls="2", attempts="2")
    assert ("call-100-" in first, "call-101-" in first) == (True, False)
    assert ("call-100-" in second, "call-150-" in second) == (False, True)
    assert ("error-25-" in first, "error-5-" in first) == (True, False), "the newest attempts stand first"
    assert ("error-25-" in second, "error-5-" in second) == (False, True)
    for odd in ("0", "-1", "x", "9" * 30, "²"):
        assert "call-1-" in html(client, page_of(job), calls=odd)


@pytest.mark.parametrize(
    ("status", "index"),
    [
        (Status.PENDING, "ddj_job_claim"),
        (Status.RUNNING, "ddj_job_lease"),
        (Status.SCHEDULED, "ddj_job_due"),
        (Status.RETRYING, "ddj_job_due"),
    ],
)
def test_the_filter_by_a_live_status_does_not_read_history(status: Status, index: str) -> None:
    """SQLite needs to be led to its partial indexes; both queries of the page take them."""
    if connection.vendor != "sqlite":
        pytest.skip("other databases choose by statistics, which a table of a test has not: runs in the SQLite lane")
    job = make_job(status)
    client = superuser()
    with CaptureQueriesContext(connection) as queries:
        assert listed(client, status=status.value) == {job.id}
    asked = [query["sql"] for query in queries if 'FROM "django_durable_jobs_job"' in query["sql"]]
    assert len(asked) == 2
    for sql in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            plan = " ".join(str(row[-1]) for row in cursor.fetchall())
        assert f"SEARCH django_durable_jobs_job USING INDEX {index}" in plan.replace("COVERING ", ""), plan
