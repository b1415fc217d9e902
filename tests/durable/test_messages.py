"""Messages to a job: kept until asked for, given out once and in order (A13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

from django_durable_jobs import (
    JobEnded,
    JobHandle,
    JobNotFound,
    OptionError,
    SerializationError,
    TimedOut,
    acall,
    asend_message,
    atomic_step,
    await_for_message,
    call,
    cancel,
    emit,
    retry,
    send_message,
    sleep,
    wait_for_message,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import NotInJob, OpenTransaction
from django_durable_jobs.models import Checkpoint, Message
from django_durable_jobs.operations import wake
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Parked
from tests.durable.running import COMMITS, Runner, row, stored
from tests.factories import make_job
from tests.transactions import rolled_back

pytestmark = COMMITS

GOT: list[Any] = []
HOUR = timedelta(hours=1)
RICH = {"when": datetime(2030, 1, 2, 3, 4, 5, 6, UTC), "sum": Decimal("1.50"), "pair": (1, "x"), "$odd": {2, 3}}


@pytest.fixture(autouse=True)
def _empty() -> None:
    GOT.clear()


def note(what: Any) -> Any:
    GOT.append(what)
    return what


def waiter() -> Any:
    return wait_for_message("go")


async def async_waiter() -> Any:
    return await await_for_message("go")


def unread(job: JobHandle[Any]) -> list[str]:
    return list(
        Message.objects.filter(job_id=job.id, consumed_at=None).order_by("id").values_list("payload", flat=True)
    )


def send_sync(job: JobHandle[Any], name: str, payload: Any = None) -> None:
    send_message(job, name, payload)


def send_async(job: JobHandle[Any], name: str, payload: Any = None) -> None:
    async_to_sync(asend_message)(job, name, payload)


@pytest.mark.parametrize("send", [send_sync, send_async])
@pytest.mark.parametrize("script", [waiter, async_waiter])
def test_a_job_waits_for_a_message_without_slot_or_attempt(runner: Runner, script: Any, send: Any) -> None:
    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    now = row(job)
    assert (now.status, now.waiting_for, now.attempt, now.worker, now.run_at) == (
        "waiting",
        "message go",
        0,
        None,
        None,
    )
    send(job, "go", {"n": 1})
    assert row(job).status == "pending"
    assert runner.attempt() == Completed('{"n":1}')
    assert unread(job) == []
    assert row(job).attempt == 1


@pytest.mark.parametrize("script", [waiter, async_waiter])
def test_a_message_that_came_before_is_not_lost(runner: Runner, script: Any) -> None:
    job = runner.enqueue(script)
    send_message(job.job(), "go", "early")
    assert runner.attempt() == Completed('"early"')
    assert stored(job) == [("1", "go")]


def test_messages_of_a_name_come_in_order_and_each_once(runner: Runner) -> None:
    def script() -> list[Any]:
        return [wait_for_message("a"), wait_for_message("a"), wait_for_message("b"), wait_for_message("a")]

    job = runner.enqueue(script)
    for payload in (1, 2, 3):
        send_message(str(job.id), "a", payload)
    send_message(job.id, "b", "other name")
    send_message(job.id, "a", "one too many")
    assert runner.attempt() == Completed('[1,2,"other name",3]')
    assert unread(job) == ['"one too many"']
    read = Message.objects.exclude(consumed_at=None).order_by("consumed_key")
    assert list(read.values_list("consumed_key", "payload")) == [
        ("1", "1"),
        ("2", "2"),
        ("3", '"other name"'),
        ("4", "3"),
    ]


def test_names_that_differ_in_case_are_two_names(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_message("Go")

    job = runner.enqueue(script)
    send_message(job, "go", "other")
    assert isinstance(runner.attempt(), Parked)
    send_message(job, "go", "other")
    assert wake.wake_forgotten() == 0
    assert row(job).status == "waiting"
    send_message(job, "Go", "right")
    assert runner.attempt() == Completed('"right"')


def test_i15_what_is_got_first_is_what_a_replay_gives(runner: Runner) -> None:
    def script() -> None:
        note(wait_for_message("go"))
        note(wait_for_message("go"))
        sleep(HOUR)

    job = runner.enqueue(script)
    send_message(job, "go", RICH)
    send_message(job, "go")
    assert isinstance(runner.attempt(), Parked)
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert GOT == [RICH, None, RICH, None]
    assert [type(value) for got in (GOT[0], GOT[2]) for value in got.values()] == [datetime, Decimal, tuple, set] * 2


def test_a_wait_that_was_woken_for_nothing_waits_again(runner: Runner) -> None:
    job = runner.enqueue(waiter)
    runner.attempt()
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert row(job).waiting_for == "message go"


def test_another_message_does_not_wake_the_job(runner: Runner) -> None:
    job = runner.enqueue(waiter)
    runner.attempt()
    send_message(job, "other")
    assert row(job).status == "waiting"
    send_message(job, "go", 7)
    assert runner.attempt() == Completed("7")


# Timeouts ---------------------------------------------------------------------------------------------------


def hurried() -> Any:
    try:
        return wait_for_message("go", timeout=HOUR)
    except TimedOut:
        return call(note, "too late")


async def async_hurried() -> Any:
    try:
        return await await_for_message("go", timeout=3600)
    except TimedOut:
        return await acall(note, "too late")


@pytest.mark.parametrize("script", [hurried, async_hurried])
def test_the_time_is_fixed_at_the_first_attempt_and_then_over(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = runner.enqueue(script)
    runner.attempt()
    first = row(job).run_at
    assert first is not None
    dialect.clock_offset += HOUR / 2
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert row(job).run_at == first
    dialect.clock_offset += HOUR / 2
    runner.promote()
    assert runner.attempt() == Completed('"too late"')
    assert stored(job) == [("1", "go!"), ("1.0", "go"), ("1.0.1", "go"), ("2", "note")]


@pytest.mark.parametrize("script", [hurried, async_hurried])
def test_a_message_within_the_time_is_got(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = runner.enqueue(script)
    runner.attempt()
    dialect.clock_offset += HOUR / 2
    send_message(job, "go", "in time")
    assert row(job).run_at is None
    assert runner.attempt() == Completed('"in time"')
    assert GOT == []


def test_a_message_that_comes_before_the_job_looks_is_not_too_late(runner: Runner, dialect: Dialect) -> None:
    job = runner.enqueue(hurried)
    runner.attempt()
    dialect.clock_offset += 2 * HOUR
    send_message(job, "go", "late, but here")
    assert runner.attempt() == Completed('"late, but here"')


def test_a_timeout_that_was_caught_stays_although_a_message_comes_later(runner: Runner, dialect: Dialect) -> None:
    def script() -> Any:
        try:
            wait_for_message("go", timeout=1)
        except TimedOut as error:
            note(str(error))
        return wait_for_message("go")

    job = runner.enqueue(script)
    runner.attempt()
    dialect.clock_offset += timedelta(seconds=2)
    runner.promote()
    assert isinstance(runner.attempt(), Parked)
    send_message(job, "go", "for the second")
    assert runner.attempt() == Completed('"for the second"')
    assert len(GOT) == 2
    assert GOT[0] == GOT[1]
    assert "got no message 'go' until" in GOT[0]


def test_i14_a_timeout_that_ended_the_attempt_is_not_kept(runner: Runner, dialect: Dialect) -> None:
    def script() -> Any:
        return wait_for_message("go", timeout=1)

    job = runner.enqueue(script, retries=1)
    runner.attempt()
    dialect.clock_offset += timedelta(seconds=2)
    runner.promote()
    outcome = runner.attempt()
    assert isinstance(outcome, BackedOff)
    assert outcome.failure.error.startswith("TimedOut: ")
    send_message(job, "go", "after all")
    runner.promote()
    assert runner.attempt() == Completed('"after all"')


# Branches of async jobs -------------------------------------------------------------------------------------


def test_branches_wait_each_for_its_own_message(runner: Runner) -> None:
    async def branch(name: str) -> Any:
        return await acall(note, await await_for_message(name))

    async def script() -> list[Any]:
        return list(await asyncio.gather(acall(branch, "a"), acall(branch, "b")))

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    assert set(outcome.waits) == {"message a", "message b"}
    assert row(job).waiting_for == "several"
    send_message(job, "b", "second")
    assert isinstance(runner.attempt(), Parked)
    assert (GOT, row(job).waiting_for) == (["second"], "message a")
    send_message(job, "a", "first")
    assert runner.attempt() == Completed('["first","second"]')
    assert GOT == ["second", "first"]


def test_branches_that_wait_for_one_name_get_a_message_each(runner: Runner) -> None:
    async def script() -> list[Any]:
        return list(await asyncio.gather(await_for_message("go"), await_for_message("go")))

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    assert row(job).waiting_for == "message go"
    send_message(job, "go", 1)
    assert isinstance(runner.attempt(), Parked)
    send_message(job, "go", 2)
    outcome = runner.attempt()
    assert isinstance(outcome, Completed)
    assert outcome.result in {"[1,2]", "[2,1]"}
    assert unread(job) == []


# Sending ----------------------------------------------------------------------------------------------------


def test_a_message_is_part_of_the_senders_transaction(runner: Runner) -> None:
    job = runner.enqueue(waiter)
    runner.attempt()
    with rolled_back():
        send_message(job, "go", "never sent")
    assert (row(job).status, unread(job)) == ("waiting", [])
    with transaction.atomic():
        send_message(job, "go", "sent")
    assert runner.attempt() == Completed('"sent"')


def test_a_job_sends_with_a_call_once_and_to_itself(runner: Runner) -> None:
    receiver = runner.enqueue(waiter)
    runner.attempt()

    def script() -> Any:
        call(send_message, str(receiver.id), "go", "from a job")
        return note("sent")

    sender = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert runner.attempt() == Completed('"from a job"')
    assert runner.attempt(rescued=True) == Completed('"sent"')
    assert Message.objects.count() == 1
    assert stored(sender) == [("1", "send_message")]


def test_i16_a_message_of_an_atomic_step_is_sent_exactly_once(runner: Runner) -> None:
    receiver = runner.enqueue(waiter)
    runner.attempt()

    @atomic_step("tell")
    def tell() -> None:
        send_message(receiver, "go", "once")
        emit("told")

    def script() -> None:
        tell()
        sleep(HOUR)

    sender = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    assert runner.attempt() == Completed('"once"')
    runner.wake(sender)
    assert isinstance(runner.attempt(), Parked)
    assert sorted(Message.objects.values_list("name", flat=True)) == ["go", "told"]
    assert not Message.objects.filter(consumed_at=None).exists(), "a message is read, an event is announced"


@pytest.mark.parametrize("status", ["scheduled", "pending", "running", "waiting", "retrying", "paused"])
def test_a_job_that_has_not_ended_can_be_sent_messages(status: str) -> None:
    job = make_job(status)
    send_message(job, "go")
    assert Message.objects.filter(job=job).count() == 1


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "expired"])
def test_a_job_that_has_ended_is_refused(status: str) -> None:
    job = make_job(status)
    with pytest.raises(JobEnded, match=f"Job {job.id} is {status}: only a job that has not ended"):
        send_message(job, "go")
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    "job", [uuid4(), "00000000-0000-4000-8000-000000000000", "nonsense", "", None, 7, "x" * 10_000]
)
def test_an_unknown_job_is_refused(job: Any) -> None:
    with pytest.raises(JobNotFound, match="There is no job") as caught:
        send_message(job, "go")
    assert len(str(caught.value)) < 200
    assert not Message.objects.exists()


BAD_NAMES = ["", "two words", "n" * 151, "line\nbreak", "ö", None, 7, b"go", "-first"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused(runner: Runner, name: Any) -> None:
    def script() -> None:
        wait_for_message(name)

    job = runner.enqueue(script)
    with pytest.raises(OptionError, match="is not a usable name of a message"):
        send_message(job, name)
    runner.attempt()
    assert str(row(job).last_error).startswith("OptionError: ")
    assert not Message.objects.exists()
    assert not Checkpoint.objects.exists()


@pytest.mark.parametrize("payload", [object(), float("nan"), {1: 2}, "a\0b", "x" * 2000])
def test_a_payload_that_cannot_be_stored_is_refused_before_any_sql(
    payload: Any, django_assert_num_queries: Callable[[int], Any]
) -> None:
    job = make_job()
    with (
        override_settings(DURABLE_JOBS={"RESULT_LIMIT": 1024}),
        django_assert_num_queries(0),
        pytest.raises(SerializationError, match="payload of message 'go'"),
    ):
        send_message(job, "go", payload)
    assert not Message.objects.exists()


def test_a_name_of_the_greatest_length_works(runner: Runner) -> None:
    name = "n" * 150

    def script() -> Any:
        return wait_for_message(name, timeout=HOUR)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    send_message(job, name, "long")
    assert runner.attempt() == Completed('"long"')


# Misuse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [-1, float("nan"), 0, 10**12, "soon", True])
def test_a_timeout_that_is_none_is_refused_and_nothing_stored(runner: Runner, timeout: Any) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="timeout"):
            wait_for_message("go", timeout=timeout)

    runner.enqueue(script)
    assert runner.attempt() == Completed(None)
    assert not Checkpoint.objects.exists()


def test_waiting_outside_of_a_job_says_so() -> None:
    with pytest.raises(NotInJob, match=r"wait_for_message\(\) works inside"):
        wait_for_message("go")


async def test_waiting_in_an_async_job_says_what_to_write() -> None:
    with pytest.raises(NotInJob, match=r"await await_for_message\(\.\.\.\)"):
        wait_for_message("go")
    with pytest.raises(NotInJob, match="running durable job"):
        await await_for_message("go")


def test_x33_a_wait_inside_a_transaction_is_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            wait_for_message("go")

    job = runner.enqueue(script)
    send_message(job, "go", "stays")
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert OpenTransaction.__name__ in outcome.failure.error
    assert (stored(job), unread(job)) == ([], ['"stays"'])


def test_i19_another_name_than_the_recorded_one_stops_the_job(runner: Runner) -> None:
    names = ["a", "b"]

    def script() -> None:
        wait_for_message(names.pop(0))
        sleep(HOUR)

    job = runner.enqueue(script)
    send_message(job, "a", "for a")
    send_message(job, "b", "for b")
    runner.attempt()
    runner.wake(job)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith("NonDeterminism: Call 1 of job")
    assert unread(job) == ['"for b"']


def test_a_waiting_job_can_be_cancelled_and_brought_back_with_its_mail(runner: Runner) -> None:
    job = runner.enqueue(waiter)
    runner.attempt()
    cancel(job.id)
    with pytest.raises(JobEnded):
        send_message(job, "go")
    retry(job.id)
    send_message(job, "go", "again")
    assert runner.attempt() == Completed('"again"')
