"""How attempts end, on every database: what each outcome writes, and that nothing is written without the lease."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Attempt, Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Failure, Lost, Outcome, Released, Snoozed
from tests.factories import claim_of, claim_one, make_job, make_worker, present

pytestmark = pytest.mark.django_db

FAILURE = Failure("ValueError: no", "Traceback …\nValueError: no")
ENDINGS: dict[str, Outcome] = {
    "complete": Completed('{"v":1}'),
    "fail": Failed(FAILURE),
    "back_off": BackedOff(FAILURE, timedelta(minutes=1)),
    "snooze": Snoozed(timedelta(minutes=1)),
    "release": Released(),
}
every_ending = pytest.mark.parametrize("outcome", ENDINGS.values(), ids=ENDINGS.keys())


def end(job: Claimed, outcome: Outcome, *, worker: str = "") -> bool:
    """Store how a job ended; answer whether it took effect."""
    return finish([Ending(job, outcome, worker)])[0] == {job.id}


def everything_of(job: Claimed) -> tuple[dict[str, Any], int]:
    """All columns of a job, and the number of its recorded attempts."""
    return dict(Job.objects.values().get(id=job.id)), Attempt.objects.filter(job_id=job.id).count()


def test_a_completion_stores_result_and_time_and_ends_the_lease(dialect: Dialect) -> None:
    job = claim_one()
    before = dialect.now()
    assert end(job, Completed('{"v":[1,"ü"]}'))
    row = present(job)
    assert (row.status, row.result, row.worker_id, row.lease_expires_at) == ("completed", '{"v":[1,"ü"]}', None, None)
    assert row.finished_at is not None
    assert row.finished_at >= before - timedelta(milliseconds=1)
    assert not row.attempts.exists()


def test_a_plain_none_is_stored_as_no_result() -> None:
    job = claim_one()
    assert end(job, Completed(None))
    assert present(job).result is None


def test_a_failure_ends_the_job_and_is_kept_with_its_traceback() -> None:
    job = claim_one()
    assert end(job, Failed(FAILURE), worker="w1")
    row = present(job)
    assert (row.status, row.last_error, row.worker_id, row.lease_expires_at) == ("failed", FAILURE.error, None, None)
    assert row.finished_at is not None
    (attempt,) = row.attempts.all()
    assert (attempt.number, attempt.end, attempt.error) == (1, "failed", FAILURE.error)
    assert (attempt.traceback, attempt.worker_name) == (FAILURE.traceback, "w1")


@pytest.mark.parametrize("name", ["fail", "back_off"])
def test_a_failed_attempt_lasted_from_its_claim_to_its_end(dialect: Dialect, name: str) -> None:
    job = claim_one()
    claimed_at = present(job).started_at
    dialect.clock_offset = timedelta(seconds=7)
    assert end(job, ENDINGS[name])
    (attempt,) = present(job).attempts.all()
    assert attempt.started_at == claimed_at
    assert attempt.started_at is not None
    assert attempt.finished_at - attempt.started_at >= timedelta(seconds=6)


def test_a_back_off_is_due_after_its_delay_by_the_databases_clock(dialect: Dialect) -> None:
    job = claim_one()
    before = dialect.now()
    assert end(job, BackedOff(FAILURE, timedelta(minutes=5)))
    row = present(job)
    assert (row.status, row.attempt, row.last_error, row.worker_id) == ("retrying", 1, FAILURE.error, None)
    assert row.finished_at is None
    assert row.run_at is not None
    assert row.run_at - before == pytest.approx(timedelta(minutes=5), abs=timedelta(seconds=5))
    assert row.attempts.count() == 1


def test_i12_a_snooze_gives_the_attempt_back_and_is_no_failure() -> None:
    job = claim_one()
    assert end(job, Snoozed(timedelta(minutes=5)))
    row = present(job)
    assert (row.status, row.attempt, row.last_error, row.worker_id) == ("scheduled", 0, None, None)
    assert row.run_at is not None
    assert not row.attempts.exists()


def test_i12_a_release_gives_the_attempt_back_at_once() -> None:
    job = claim_one()
    assert end(job, Released())
    row = present(job)
    assert (row.status, row.attempt, row.worker_id, row.lease_expires_at) == ("pending", 0, None, None)
    assert not row.attempts.exists()


@every_ending
def test_i8_an_ending_under_an_old_token_changes_nothing(outcome: Outcome) -> None:
    old = claim_one()
    assert end(old, Released())
    (new,) = claim(claim_of(make_worker()))
    before = everything_of(new)
    assert not end(old, outcome)
    assert everything_of(new) == before
    assert end(new, outcome), "the present holder must not be disturbed"


@every_ending
def test_i8_an_ending_of_a_job_that_was_taken_back_changes_nothing(outcome: Outcome) -> None:
    # Taking back leaves the token as it is: here the status alone says that the lease is gone.
    job = claim_one(make_worker(lease=timedelta(seconds=-9)), lease=timedelta(seconds=-5))
    assert rescue().returned == [job.id]
    before = everything_of(job)
    assert not end(job, outcome)
    assert everything_of(job) == before


@every_ending
@pytest.mark.parametrize("first", ENDINGS.values(), ids=[f"after-{name}" for name in ENDINGS])
def test_i8_a_job_ends_once_for_each_claim(first: Outcome, outcome: Outcome) -> None:
    job = claim_one()
    assert end(job, first)
    before = everything_of(job)
    assert not end(job, outcome)
    assert everything_of(job) == before


def test_a_lost_attempt_writes_nothing() -> None:
    job = claim_one()
    before = everything_of(job)
    assert not end(job, Lost())
    assert everything_of(job) == before


def test_endings_of_every_kind_are_stored_together() -> None:
    jobs = {name: claim_one() for name in ENDINGS}
    stored, claimed = finish([Ending(jobs[name], outcome) for name, outcome in ENDINGS.items()])
    assert stored == {job.id for job in jobs.values()}
    assert claimed == []
    found = [present(jobs[name]).status for name in ENDINGS]
    assert found == ["completed", "failed", "retrying", "scheduled", "pending"]


def test_one_lost_lease_in_a_group_costs_the_others_nothing() -> None:
    jobs = [claim_one() for _n in range(3)]
    stale = jobs[1]._replace(token=jobs[1].token - 1)
    stored, _claimed = finish([Ending(job, Completed("1")) for job in (jobs[0], stale, jobs[2])])
    assert stored == {jobs[0].id, jobs[2].id}
    assert present(stale).status == "running"


def test_completions_and_the_next_claim_happen_in_one_step() -> None:
    worker = make_worker()
    done = [claim_one(worker) for _n in range(3)]
    waiting = [make_job(rank=rank).id for rank in (1, 0, 2)]
    stored, claimed = finish([Ending(job, Completed("1")) for job in done], claim_of(worker, 2))
    assert stored == {job.id for job in done}
    assert [job.id for job in claimed] == [waiting[1], waiting[0]]
    assert {present(job).status for job in done} == {"completed"}
    assert {present(job).status for job in claimed} == {"running"}


def test_i8_a_lost_lease_among_completions_does_not_stop_the_next_claim() -> None:
    worker = make_worker()
    stale = claim_one(worker)._replace(token=0)
    waiting = make_job()
    stored, claimed = finish([Ending(stale, Completed("1"))], claim_of(worker, 5))
    assert stored == set()
    assert [job.id for job in claimed] == [waiting.id]
    assert present(stale).status == "running"


def test_failures_and_the_next_claim_happen_in_one_call() -> None:
    worker = make_worker()
    failing, waiting = claim_one(worker), make_job()
    stored, claimed = finish([Ending(failing, Failed(FAILURE))], claim_of(worker, 5))
    assert (stored, [job.id for job in claimed]) == ({failing.id}, [waiting.id])


@pytest.mark.parametrize("count", [1, 499, 1201])
def test_a_large_group_of_completions_is_stored_whole(count: int) -> None:
    # Beyond the limits on parameters of every database.
    worker = make_worker()
    Job.objects.bulk_create([Job(definition="tests.jobs.noop", queue="default", max_attempts=3) for _n in range(count)])
    jobs = claim(claim_of(worker, count))
    stored, _claimed = finish([Ending(job, Completed(str(index))) for index, job in enumerate(jobs)])
    assert stored == {job.id for job in jobs}
    assert Job.objects.filter(status="completed").count() == count
    assert present(jobs[-1]).result == str(count - 1)


RESULTS: dict[str, Callable[[], str]] = {
    "quotes": lambda: '{"v":"it\'s \\"so\\" \\\\ 100% $1 %s :x"}',
    "line separators": lambda: '{"v":"\u2028\u2029\x7f\n\t"}',
    "a megabyte": lambda: '{"v":"' + "x" * 1_000_000 + '"}',
    "four-byte characters": lambda: '{"v":"😀𝄞"}',
    "a number that is no JSON of SQLite": lambda: '{"v":123456789012345678901234567890}',
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_comes_back_letter_by_letter(name: str) -> None:
    text = RESULTS[name]()
    job = claim_one()
    assert end(job, Completed(text))
    assert present(job).result == text
