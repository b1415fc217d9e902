"""A job that had to begin by some time, and has not, is over; one that has begun is not touched (D4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_durable_jobs import (
    Backoff,
    JobHandle,
    OptionError,
    RetryAfter,
    Snooze,
    cancel,
    durable_job,
    enqueue_many,
    gather,
    pause,
    resume,
    retry,
    sleep,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.expire import expire
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Completed, Released
from tests.durable.running import COMMITS, Runner
from tests.factories import claim_of, make_worker
from tests.waiting import together

pytestmark = COMMITS

MINUTE = timedelta(minutes=1)


@durable_job(expire_after=MINUTE, backoff=Backoff.none())
def remind(number: int) -> int:
    """Say something that is of interest for a minute."""
    return number


@durable_job(sequence_key="line", expire_after=MINUTE)
def in_line(number: int) -> None:
    """Come after another."""


def take() -> list[Any]:
    return claim(claim_of(make_worker(), 10))


def statuses(*handles: JobHandle[Any]) -> list[str]:
    return [str(handle.status) for handle in handles]


def test_no_claim_takes_a_job_that_is_over_and_a_chore_ends_it(dialect: Dialect) -> None:
    handle, other = remind.enqueue(1), remind.using(expire_after=10 * MINUTE).enqueue(2)
    assert expire().number == 0
    dialect.clock_offset += MINUTE
    assert [job.id for job in take()] == [other.id]
    assert statuses(handle) == ["pending"]
    assert expire() == (1, None)
    job = handle.job()
    assert (job.status, job.expires_at, job.attempt) == ("expired", None, 0)
    assert job.finished_at is not None
    assert "no worker has begun it in its time" in str(job.last_error)


def test_the_look_says_when_the_next_one_is_over() -> None:
    assert expire().next_in is None
    remind.enqueue(1)
    next_in = expire().next_in
    assert next_in is not None
    assert MINUTE / 2 < next_in <= MINUTE


@pytest.mark.parametrize("many", [1, 3, 60])
def test_each_of_many_has_its_time(dialect: Dialect, many: int) -> None:
    """One, some and very many are stored in different ways."""
    at = dialect.now() + 2 * MINUTE
    handles = enqueue_many([remind.s(0), *[remind.using(expires_at=at).s(n) for n in range(many)]])
    found = dict(Job.objects.values_list("id", "expires_at"))
    first = found.pop(handles[0].id)
    assert first is not None
    assert first < at
    assert set(found.values()) == {at}


def test_what_is_scheduled_paused_or_in_line_expires_too(dialect: Dialect) -> None:
    scheduled = remind.using(delay=MINUTE / 2).enqueue(1)
    paused = remind.enqueue(2)
    pause(paused)
    front, behind = in_line.using(expire_after=None).enqueue(3), in_line.enqueue(4)
    assert statuses(scheduled, paused, front, behind) == ["scheduled", "paused", "pending", "waiting"]
    dialect.clock_offset += MINUTE
    assert expire().number == 3
    assert statuses(scheduled, paused, front, behind) == ["expired", "expired", "pending", "expired"]


def test_the_next_of_a_line_goes_on(dialect: Dialect) -> None:
    front, behind = in_line.enqueue(1), in_line.using(expire_after=None).enqueue(2)
    dialect.clock_offset += MINUTE
    expire()
    assert statuses(front, behind) == ["expired", "pending"]


def test_a_parent_goes_on_without_a_child_that_has_expired(runner: Runner, dialect: Dialect) -> None:
    def parent() -> list[str]:
        return [child.status.value for child in gather(remind.s(1), strategy="collect_all")]

    handle = runner.enqueue(parent)
    runner.attempt()
    assert statuses(handle) == ["waiting"]
    dialect.clock_offset += MINUTE
    assert expire().number == 1
    runner.attempt()
    assert handle.result() == ["expired"]


@pytest.mark.parametrize("ending", ["fails", "asks to come back", "snoozes", "sleeps"])
def test_a_job_that_has_begun_does_not_expire(runner: Runner, dialect: Dialect, ending: str) -> None:
    tries: list[int] = []

    def script() -> str:
        tries.append(1)
        if ending == "sleeps":
            sleep(1)
        elif len(tries) == 1:
            raise {"fails": ValueError("once"), "snoozes": Snooze(1), "asks to come back": RetryAfter(1)}[ending]
        return "done"

    handle = runner.enqueue(script, expire_after=MINUTE)
    runner.attempt()
    dialect.clock_offset += 2 * MINUTE
    assert expire() == (0, None)
    runner.promote()
    runner.attempt()
    assert handle.result() == "done"


@pytest.mark.parametrize(("begun", "status"), [(True, "pending"), (False, "expired")])
def test_a_job_that_was_only_prefetched_still_expires(dialect: Dialect, begun: bool, status: str) -> None:
    handle = remind.enqueue(1)
    (job,) = take()
    finish([Ending(job, Released(begun=begun))])
    dialect.clock_offset += MINUTE
    expire()
    assert statuses(handle) == [status]


def test_a_job_that_was_lost_with_its_worker_does_not_expire(runner: Runner) -> None:
    handle = remind.enqueue(1)
    runner.lose(runner.claim())
    assert expire() == (0, None)
    assert statuses(handle) == ["pending"]


def test_a_retry_runs_it_all_the_same(dialect: Dialect) -> None:
    handle = remind.enqueue(1)
    dialect.clock_offset += MINUTE
    expire()
    retry(handle)
    assert expire() == (0, None)
    assert [job.id for job in take()] == [handle.id]


def test_a_paused_job_that_is_resumed_too_late_is_not_begun(dialect: Dialect) -> None:
    handle = remind.enqueue(1)
    pause(handle)
    dialect.clock_offset += MINUTE
    resume(handle)
    assert take() == []
    expire()
    assert statuses(handle) == ["expired"]


@pytest.mark.parametrize("round_", range(3))
def test_each_of_those_that_look_at_once_ends_others(dialect: Dialect, round_: int) -> None:
    remind.enqueue_many([(number,) for number in range(5)])
    dialect.clock_offset += MINUTE
    looks = together(*[expire] * 3)
    expire()
    assert sum(look.number for look in looks) <= 5
    assert set(Job.objects.values_list("status", flat=True)) == {"expired"}


def test_what_has_ended_holds_no_time(dialect: Dialect) -> None:
    for end in (cancel, complete):
        end(remind.enqueue(1))
    assert not Job.objects.exclude(expires_at=None).exists()
    dialect.clock_offset += MINUTE
    assert expire() == (0, None)


def complete(_handle: JobHandle[Any]) -> None:
    finish([Ending(job, Completed(None)) for job in take()])


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"expire_after": 0}, "must be longer than 0 seconds"),
        ({"expire_after": -1}, "must lie between"),
        ({"expire_after": float("nan")}, "must lie between"),
        ({"expire_after": "soon"}, "must be a timedelta or a number"),
        ({"expires_at": datetime(2030, 1, 1)}, "must have a time zone"),  # noqa: DTZ001 -- on purpose
        ({"expires_at": 5}, "must be a datetime"),
        ({"expire_after": 5, "expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, "Give expire_after or expires_at"),
        ({"expire_after": 5, "delay": 5}, "must be later than delay"),
        (
            {"expires_at": datetime(2030, 1, 1, tzinfo=UTC), "run_at": datetime(2030, 1, 2, tzinfo=UTC)},
            "must be later than run_at",
        ),
        ({"debounce": 1}, "exclude each other"),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        remind.using(**given)
