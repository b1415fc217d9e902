"""What sequences cost on every database: nothing for jobs without a key, and little for one of a long sequence."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_durable_jobs import blocked_by, durable_job
from django_durable_jobs.ids import lowest_id_at
from django_durable_jobs.models import Job, Sequence
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.sequences import advance
from django_durable_jobs.outcomes import Completed
from tests.conformance.test_hot_queries import ids
from tests.conformance.work import analyze, counted_work, insert_jobs
from tests.factories import claim_of, make_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

FEW: Final = 300


@durable_job
def plain() -> None:
    """A job of no sequence."""


def fill(count: int) -> None:
    """Make a sequence of which as many have ended as are lined up, the front among the first."""
    ended = {"status": "completed", "attempt": 1, "token": 1, "finished_at": timezone.now()}
    insert_jobs(ids(count, days_ago=3), sequence_key="one", **ended)
    insert_jobs(ids(count, days_ago=2), sequence_key="one", status="waiting", waiting_for="sequence")
    Sequence.objects.create(key="one", job_id=Job.objects.filter(status="completed").order_by("id")[0].id)


def test_a_long_sequence_goes_on_without_being_read() -> None:
    # Not with the statistics of an empty table, as claims are tested: there PostgreSQL takes the index of all that wait
    # for as cheap as the primary key, until it analyses the table (after a thousand new rows).
    fill(20_000)
    analyze()
    for number in range(3):
        with counted_work() as work:
            assert advance(["one"]) == 1
        assert work.rows < FEW, number
        front = Job.objects.pending().get()
        oldest = lowest_id_at(timezone.now() - timedelta(days=2))
        assert front.id.int - oldest.int < (number + 10) << 80, "the oldest one"
        behind = Job.objects.filter(status="waiting").values_list("id", flat=True)[0]
        with counted_work() as work:
            assert blocked_by(behind) == front
        assert work.rows < FEW
        worker = make_worker()
        (claimed,) = claim(claim_of(worker, 1))
        Job.objects.filter(id=claimed.id)._raw_delete("default")


def test_jobs_without_a_key_make_no_query_about_sequences() -> None:
    plain.enqueue()  # the queue has its row
    worker = make_worker()
    with CaptureQueriesContext(connection) as queries:
        plain.enqueue()
        endings = [Ending(job, Completed(None)) for job in claim(claim_of(worker, 5))]
        finish(endings, claim_of(worker, 5))
    assert not [query["sql"] for query in queries if Sequence._meta.db_table in query["sql"]]
    assert Job.objects.filter(status="completed").count() == 2
