"""An operator's retry, on every database."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from django_durable_jobs import JobHandle, JobNotFound, TransitionRefused, retry
from django_durable_jobs.models import Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.states import TRANSITIONS, Status
from tests.factories import claim_of, make_attempt, make_checkpoint, make_job, make_worker, present

pytestmark = pytest.mark.django_db

MAY = TRANSITIONS["retry"].sources


@pytest.mark.parametrize("status", sorted(MAY))
def test_a_retried_job_is_pending_at_once_with_another_attempt(status: Status) -> None:
    job = make_job(status, attempt=3, token=7, rescues=2)
    make_checkpoint(job)
    make_attempt(job)
    retry(job)
    row = present(job)
    assert (row.status, row.attempt, row.max_attempts, row.rescues) == ("pending", 3, 4, 0)
    assert (row.finished_at, row.run_at, row.token) == (None, None, 7)
    assert (row.attempts.count(), row.checkpoints.count()) == (1, 1)
    (claimed,) = claim(claim_of(make_worker()))
    assert (claimed.attempt, claimed.token) == (4, 8)


def test_attempts_that_are_left_are_kept() -> None:
    job = make_job("failed", attempt=1, max_attempts=5)
    retry(job)
    assert (present(job).attempt, present(job).max_attempts) == (1, 5)


@pytest.mark.parametrize("status", sorted(set(Status) - MAY))
def test_in_other_statuses_a_retry_is_refused_and_says_which_are_allowed(status: Status) -> None:
    job = make_job(status)
    before = Job.objects.values().get(id=job.id)
    with pytest.raises(TransitionRefused) as caught:
        retry(job.id)
    assert str(status) in str(caught.value)
    assert all(str(one) in str(caught.value) for one in MAY)
    assert Job.objects.values().get(id=job.id) == before


@pytest.mark.parametrize("wrong", [uuid4(), "00000000-0000-4000-8000-000000000000", "17", "", "x' OR 1=1 --"])
def test_a_job_that_does_not_exist_is_said_so(wrong: object) -> None:
    with pytest.raises(JobNotFound, match="There is no job"):
        retry(wrong)  # type: ignore[arg-type]


def test_a_job_is_named_by_model_handle_id_or_text() -> None:
    for form in ("job", "handle", "id", "text", "hex"):
        job = make_job("failed")
        handle: JobHandle[Any] = JobHandle(job.id, job.definition)
        forms: dict[str, Any] = {"job": job, "handle": handle, "id": job.id, "text": str(job.id), "hex": job.id.hex}
        retry(forms[form])
        assert present(job).status == "pending"
