"""Lost answers (X4, I8, I11, I14, I30): the database did it, then the connection broke, so nobody knows.

Nothing may be lost, nothing may run twice, and no attempt may be used up, whichever answer it is.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError

from django_durable_jobs.backoff import Backoff
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Held
from django_durable_jobs.errors import LeaseLost, WorkerNameTaken
from django_durable_jobs.models import Attempt, Checkpoint, Job, Worker
from django_durable_jobs.operations import workers
from django_durable_jobs.operations.checkpoints import SteadySave
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.leases import release_unknown
from django_durable_jobs.outcomes import Released
from tests.factories import checkpoint_of, claim_of, claim_one, make_job, make_worker, present
from tests.reliability.database_jobs import RAN, catch_calls, count, count_calls, refuse
from tests.reliability.outages import DOORS, drain, lose_answers, lose_reads, options, working
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    RAN.clear()


def ends() -> dict[str, int]:
    """How many jobs have which status."""
    return dict(Counter(Job.objects.values_list("status", flat=True)))


@pytest.mark.parametrize("door", ["claim", "complete_and_claim", "save_checkpoints"])
def test_one_lost_answer_loses_no_job_and_runs_none_twice(
    door: str, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4."""
    count.enqueue_many([(f"job {number}",) for number in range(40)])
    for number in range(4):
        count_calls.enqueue(f"steps {number}", 3)
    losses = lose_answers(monkeypatch, dialect, (door,))
    drain(seconds=10)
    assert ends() == {"completed": 44}
    assert len(RAN) == 40 + 4 * 4
    assert set(RAN.values()) == {1}
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
    assert Checkpoint.objects.count() == 12
    assert losses.lost[door] == 1


@pytest.mark.parametrize("door", ["claim", "complete_and_claim", "renew"])
def test_a_conflict_of_the_workers_own_statements_is_invisible_to_the_jobs(
    door: str, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """X26, X27: and no alarm for who reads the log."""
    count.enqueue_many([(f"job {number}",) for number in range(20)])
    count_calls.enqueue("steps", 3)
    losses = lose_answers(monkeypatch, dialect, (door,), lambda _door, nth: "conflict" if nth <= 3 else None)
    with working(options(heartbeat=timedelta(seconds=0.01))):
        eventually(lambda: ends() == {"completed": 21})
        eventually(lambda: losses.used[door] > 3 or door == "renew")
    assert set(RAN.values()) == {1}
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
    assert not Attempt.objects.exists()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(3))
def test_answers_and_requests_lost_at_random_lose_no_job_and_run_none_twice(
    seed: int, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4, I14, I30: as long as the lease holds, what comes out is that of a quiet day."""
    count.enqueue_many([(f"job {number}",) for number in range(30)])
    for number in range(5):
        count_calls.enqueue(f"steps {number}", 4)
        catch_calls.enqueue(f"catch {number}")
        refuse.using(backoff=Backoff.none()).enqueue(f"refuse {number}")
    chance = random.Random(seed)

    def fate(_door: str, _nth: int) -> str | None:
        # Bounded, since a worker that fails again and again waits longer each time.
        return chance.choice(["answer", "request", *[None] * 8]) if sum(losses.lost.values()) < 12 else None

    losses = lose_answers(monkeypatch, dialect, DOORS, fate)
    with working(options(heartbeat=timedelta(seconds=0.1))):
        eventually(lambda: Job.objects.exclude(status__in=["completed", "failed"]).count() == 0, seconds=40)
    assert ends() == {"completed": 40, "failed": 5}
    repeated = {name: times for name, times in RAN.items() if times != 1}
    assert repeated == {f"refuse {number}": 2 for number in range(5)}
    assert Attempt.objects.count() == 10
    assert Checkpoint.objects.count() == 5 * 4 + 5 * 2
    assert sum(losses.lost.values()) > 3


def test_failures_whose_storing_was_not_answered_are_recorded_once(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        refuse.using(retries=0).enqueue(f"refuse {number}")

    def first_two_with_history(_door: str, _nth: int) -> str | None:
        return "answer" if Attempt.objects.exists() and sum(losses.lost.values()) < 2 else None

    losses = lose_answers(monkeypatch, dialect, ("in_own_transaction",), first_two_with_history)
    with working():
        eventually(lambda: Job.objects.filter(status="failed").count() == 6)
    assert Attempt.objects.count() == 6
    assert set(RAN.values()) == {1}


def test_a_release_that_was_not_answered_gives_the_attempt_back_once(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I11, I12."""
    job = claim_one()
    lose_answers(monkeypatch, dialect, ("in_own_transaction",))
    with pytest.raises(DatabaseError):
        finish([Ending(job, Released())])
    assert finish([Ending(job, Released())])[0] == set()
    assert (present(job).status, present(job).attempt) == ("pending", 0)


def test_jobs_of_a_claim_that_was_not_answered_go_back_with_their_attempt() -> None:
    """I11."""
    worker = make_worker()
    make_job()
    known, unknown = claim(claim_of(worker, 1)), []
    make_job()
    unknown += claim(claim_of(worker, 1))
    held = [Held(job.id, job.token) for job in known]
    assert [release_unknown(worker.id, held) for _twice in range(2)] == [1, 0]
    assert [(present(job).status, present(job).attempt) for job in [*known, *unknown]] == [
        ("running", 1),
        ("pending", 0),
    ]


def test_a_checkpoint_is_recognised_by_the_try_after_the_unanswered_one(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I13, I14."""
    job = claim_one()
    lose_answers(monkeypatch, dialect, ("save_checkpoints",))
    rows = [checkpoint_of(job, "1", result="1"), checkpoint_of(job, "2", result="2")]
    assert SteadySave(timedelta(seconds=5))(rows).stored == {(job.id, "1"), (job.id, "2")}
    assert Checkpoint.objects.filter(job_id=job.id).count() == 2


def test_a_checkpoint_whose_lease_ends_with_the_outage_stops_the_job(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I10, I30."""
    job = claim_one()
    lose_answers(monkeypatch, dialect, ("save_checkpoints",), lambda _door, _nth: "request")
    with pytest.raises(LeaseLost, match="stayed away"):
        SteadySave(timedelta(seconds=0.3))([checkpoint_of(job)])


def test_another_transaction_in_the_way_of_a_checkpoint_is_not_the_jobs_concern(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X26, X27: a conflict is repeated, not raised into the job's code."""
    count_calls.enqueue("steps", 3)
    losses = lose_answers(
        monkeypatch, dialect, ("save_checkpoints",), lambda _door, nth: "conflict" if nth < 3 else None
    )
    drain()
    assert ends() == {"completed": 1}
    assert losses.lost["save_checkpoints"] == 2
    assert set(RAN.values()) == {1}


def test_an_outage_while_a_replay_reads_its_checkpoints_is_not_the_jobs_concern(dialect: Dialect) -> None:
    """X12, X16: `count_calls` has no retries, so an error raised into it would end it."""
    job = claim_one(definition=count_calls.definition.name, payload='{"*":["steps",2]}')
    finish([Ending(job, Released())])
    with lose_reads(dialect, Checkpoint._meta.db_table, 2) as reads:
        drain()
    assert len(reads) == 2
    assert (present(job).status, present(job).last_error) == ("completed", None)


def test_a_worker_whose_registration_was_not_answered_starts(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """I30: it must not take its own row for another live worker of its name."""
    count.enqueue("job")
    losses = lose_answers(monkeypatch, dialect, ("add_queues",))
    one = options()
    drain(one)
    assert losses.lost["add_queues"] == 1
    assert ends() == {"completed": 1}
    assert Worker.objects.filter(name=one.name).count() == 1
    assert "trying again" in caplog.text


def test_a_live_worker_of_the_same_name_still_refuses_another_that_had_to_try_twice() -> None:
    row: dict[str, Any] = {"host": "here", "queues": {"default": 1}, "lease": timedelta(seconds=30)}
    workers.register("mail", pid=1, **row)
    for pid, host in ((2, "here"), (1, "there")):
        with pytest.raises(WorkerNameTaken):
            workers.register("mail", pid=pid, **{**row, "host": host}, tried_for=timedelta(seconds=60))
