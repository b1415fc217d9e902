"""Why a job is not running (F10): each reason by its code, with what to look at."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import aexplain, explain, limit_fleet, limit_queue, pause, pause_queue, pause_worker
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.errors import JobNotFound
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Job, Queue, Sequence, Worker
from django_durable_jobs.operations.limited_claim import claim_limited
from django_durable_jobs.operations.workers import serves
from django_durable_jobs.states import FINAL
from tests.factories import claim_of, make_job, make_worker

pytestmark = pytest.mark.django_db

SOON = DatabaseNow() + timedelta(hours=1)


def why(job: Job) -> tuple[str, str, str]:
    found = explain(job)
    assert found.text.endswith(".")
    return found.code, found.subject, found.key


@pytest.mark.parametrize("status", sorted(FINAL))
def test_what_has_ended_says_so(status: str) -> None:
    assert why(make_job(status)) == ("ENDED", "", "")


def test_what_runs_names_its_worker_and_what_it_is_asked() -> None:
    worker = make_worker()
    for columns, code in (
        ({}, "RUNNING"),
        ({"pause_requested_at": DatabaseNow()}, "PAUSING"),
        ({"cancel_requested_at": DatabaseNow(), "pause_requested_at": DatabaseNow()}, "CANCELLING"),
    ):
        assert why(make_job("running", worker=worker, **columns)) == (code, "worker", worker.name)


@pytest.mark.parametrize(
    ("waits", "code", "said"),
    [
        ("message paid", "WAITING_MESSAGE", "the message 'paid'"),
        ("event 3 shipped order-7", "WAITING_EVENT", "the event 'shipped order-7'"),
        ("approval 2 Refund order 7", "WAITING_APPROVAL", "the decision 'Refund order 7'"),
        ("children 0/1", "WAITING_CHILDREN", "the children of its call 1"),
        ("children! 0/3.1", "WAITING_CHILDREN", "the children of its call 3.1"),
        ("several", "WAITING_SEVERAL", "several"),
    ],
)
def test_what_waits_says_for_what(waits: str, code: str, said: str) -> None:
    job = make_job("waiting", waiting_for=waits)
    assert why(job) == (code, "job", str(job.id))
    assert said in explain(job).text
    limited = make_job("waiting", waiting_for=waits, run_at=SOON)
    assert why(limited)[0] == code
    assert "until 2" in explain(limited).text


def test_what_sleeps_or_is_not_due_says_until_when() -> None:
    asleep = make_job("waiting", waiting_for="time", run_at=SOON)
    assert why(asleep)[0] == "SLEEPING"
    for status in ("scheduled", "retrying"):
        assert why(make_job(status, run_at=SOON))[0] == "NOT_DUE"
        assert "about to" in explain(make_job(status, run_at=DatabaseNow())).text


def test_what_is_paused_says_so() -> None:
    job = make_job("pending")
    pause(job)
    assert why(job) == ("PAUSED", "job", str(job.id))


def test_a_job_of_a_sequence_names_the_one_in_front() -> None:
    front = make_job("pending", sequence_key="one")
    Sequence.objects.create(key="one", job_id=front.id)
    behind = make_job("waiting", sequence_key="one", waiting_for="sequence")
    assert why(behind) == ("BEHIND", "job", str(front.id))
    Job.objects.filter(id=front.id).delete()
    assert why(behind) == ("BEHIND", "", "")


def test_a_pending_job_says_what_keeps_it_in_its_queue() -> None:
    Queue.objects.create(name="mail")
    first, job = (make_job(queue="mail") for _ in range(2))
    assert why(job) == ("NO_WORKER", "queue", "mail")
    lost = make_worker(queues={"mail": 4}, lease=timedelta(seconds=-5))
    make_worker(queues={"video": 4})
    assert why(job)[0] == "NO_WORKER", lost
    worker = make_worker(queues={"mail": 4})
    assert why(job) == ("NEXT", "queue", "mail")
    assert "behind 1 job." in explain(job).text
    assert "the first" in explain(first).text
    assert "behind 2 jobs" in explain(make_job(queue="mail", rank=5)).text
    assert "of its own" in explain(make_job(queue="mail", rescues=1)).text
    pause_worker(worker)
    assert why(job) == ("WORKERS_PAUSED", "worker", worker.name)
    make_worker(queues={"mail": 4})
    assert why(job)[0] == "NEXT"
    pause_queue("mail", by="ada", reason="the provider is down")
    assert why(job) == ("QUEUE_PAUSED", "queue", "mail")
    assert "by ada: the provider is down" in explain(job).text


@pytest.mark.parametrize("job", ["x", new_job_id])
def test_an_unknown_job_is_refused(job: Any) -> None:
    with pytest.raises(JobNotFound):
        explain(job() if callable(job) else job)


@pytest.mark.django_db(transaction=True)
def test_the_async_twin() -> None:
    job = make_job("completed")
    assert asyncio.run(aexplain(job)) == explain(job)


def test_a_worker_of_all_queues_says_which_it_serves_when_one_appears() -> None:
    worker = make_worker(queues={"mail": 4})
    serves(worker.pk, {"mail": 4, "video": 10})
    assert Worker.objects.get(pk=worker.pk).queues == {"mail": 4, "video": 10}


def test_what_a_limit_holds_back_names_it() -> None:
    worker = make_worker()
    for name in ("mail", "video", "slow"):
        Queue.objects.create(name=name)
    serves(worker.pk, {"mail": 1, "video": 1, "slow": 1})
    jobs = {name: make_job(queue=name) for name in ("mail", "video", "slow")}
    make_job("running", queue="mail", worker=worker)
    limit_queue("mail", concurrency=1)
    limit_queue("video", concurrency=1)
    limit_queue("slow", rate=1, per=60)
    assert why(jobs["mail"]) == ("LIMIT_FULL", "queue", "mail")
    assert why(jobs["video"])[0] == why(jobs["slow"])[0] == "NEXT"
    waiting = make_job(queue="slow")
    claim_limited(claim_of(worker, 1, "slow"))
    assert why(waiting) == ("RATE_USED_UP", "queue", "slow")
    assert "1 jobs in 60 s have begun lately; the next may in" in explain(waiting).text
    limit_fleet(concurrency=1)
    assert why(jobs["video"]) == ("LIMIT_FULL", "", "")


def test_what_waits_for_a_place_of_its_key_names_a_job_that_has_one() -> None:
    front = make_job(sequence_key=" one", concurrency_key="one")
    behind = make_job("waiting", sequence_key=" one", concurrency_key="one", waiting_for="sequence")
    Sequence.objects.create(key=" one", job_id=front.id)
    assert why(behind) == ("KEY_FULL", "job", str(front.id))
    assert "one'" not in explain(behind).text
