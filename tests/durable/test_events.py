"""Events: one fact for any number of jobs, each of which gets it once, however the two sides meet (A13)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

from django_durable_jobs import (
    JobHandle,
    OptionError,
    SerializationError,
    TimedOut,
    acall,
    aemit,
    await_for_event,
    await_for_message,
    call,
    emit,
    send_message,
    sleep,
    wait_for_event,
)
from django_durable_jobs.dialects import Dialect, dialect_of
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.errors import NotInJob
from django_durable_jobs.models import Checkpoint, EventWait, Message
from django_durable_jobs.operations.events import announce, announce_forgotten, channel_of
from django_durable_jobs.operations.prune import prune_events
from django_durable_jobs.operations.wake import wake_forgotten
from django_durable_jobs.outcomes import Completed, Parked
from django_durable_jobs.worker.pruner import BETWEEN_ROUNDS, BETWEEN_WINDOWS, Pruner
from django_durable_jobs.worker.waker import Waker
from tests.durable.running import COMMITS, Killed, Runner, killed_at, row, stored
from tests.reliability.outages import options
from tests.transactions import rolled_back
from tests.waiting import elsewhere

pytestmark = COMMITS

HOUR = timedelta(hours=1)
GOT: list[Any] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    GOT.clear()


def note(what: Any) -> Any:
    GOT.append(what)
    return what


def listener() -> Any:
    return wait_for_event("paid", "7")


async def async_listener() -> Any:
    return await await_for_event("paid", "7")


def emit_async(name: str, payload: Any = None, key: str | None = None) -> None:
    async_to_sync(aemit)(name, payload, key=key)


def emit_sync(name: str, payload: Any = None, key: str | None = None) -> None:
    emit(name, payload, key=key)


def unannounced() -> int:
    return Message.objects.filter(job=None, consumed_at=None).count()


@pytest.mark.parametrize("send", [emit_sync, emit_async])
@pytest.mark.parametrize("script", [listener, async_listener])
def test_every_job_that_waits_gets_the_event(runner: Runner, script: Any, send: Any) -> None:
    jobs = [runner.enqueue(script) for _ in range(3)]
    for job in jobs:
        assert isinstance(runner.attempt(), Parked)
        now = row(job)
        assert (now.status, now.waiting_for, now.attempt, now.run_at) == ("waiting", "event 1 paid 7", 0, None)
    send("paid", {"sum": 3}, key="7")
    assert {row(job).status for job in jobs} == {"pending"}
    assert [runner.attempt() for _ in jobs] == [Completed('{"sum":3}')] * 3
    assert not EventWait.objects.exists()
    assert unannounced() == 0


@pytest.mark.parametrize("script", [listener, async_listener])
def test_an_event_between_the_jobs_creation_and_its_wait_is_not_lost(runner: Runner, script: Any) -> None:
    emit("paid", "before the job was there", key="7")
    runner.enqueue(script)
    emit("paid", "early", key="7")
    assert runner.attempt() == Completed('"early"')


@pytest.mark.parametrize(("name", "key"), [("paid", None), ("paid", "8"), ("Paid", "7"), ("paid.7", None)])
def test_events_of_another_name_or_key_are_another_matter(runner: Runner, name: str, key: str | None) -> None:
    job = runner.enqueue(listener)
    runner.attempt()
    emit(name, key=key)
    assert row(job).status == "waiting"
    emit("paid", key="7")
    assert runner.attempt() == Completed(None)


def test_keys_that_differ_in_case_are_two_keys(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_event("paid", "Ada")

    runner.enqueue(script)
    emit("paid", "other", key="ada")
    assert isinstance(runner.attempt(), Parked)
    emit("paid", "right", key="Ada")
    assert runner.attempt() == Completed('"right"')


def test_a_job_gets_each_event_once_in_order_and_the_same_in_a_replay(runner: Runner) -> None:
    def script() -> Any:
        note([wait_for_event("tick"), wait_for_event("tick"), wait_for_event("tick", "x")])
        sleep(HOUR)
        return wait_for_event("tick")

    job = runner.enqueue(script)
    for payload in (1, 2):
        emit("tick", payload)
    emit("tick", (3,), key="x")
    assert isinstance(runner.attempt(), Parked)
    assert [key for key, _name in stored(job)] == ["1", "1.0", "2", "2.0", "3", "3.0", "4"]
    emit("tick", 4)
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert GOT == [[1, 2, (3,)]] * 2


def test_an_event_that_is_committed_after_a_later_one_is_got_next(runner: Runner, dialect: Dialect) -> None:
    """Numbers are given when a row is inserted, not when it is committed: a high-water mark would lose this one."""
    if not dialect.has_parallel_writers:
        pytest.skip("two open transactions that emit: has_parallel_writers")

    def script() -> list[Any]:
        return [wait_for_event("tick"), wait_for_event("tick")]

    job = runner.enqueue(script)
    with transaction.atomic():
        emit("tick", "began first")
        elsewhere(lambda: emit("tick", "committed first"))
        assert isinstance(elsewhere(runner.attempt), Parked)
        assert row(job).waiting_for == "event 2 tick"
    assert runner.attempt() == Completed('["committed first","began first"]')


def test_an_event_is_part_of_the_transaction_that_emits_it(runner: Runner) -> None:
    job = runner.enqueue(listener)
    runner.attempt()
    with rolled_back():
        emit("paid", "never", key="7")
    assert (row(job).status, Message.objects.count()) == ("waiting", 0)
    with transaction.atomic():
        emit("paid", "yes", key="7")
        assert row(job).status == "waiting"
    assert runner.attempt() == Completed('"yes"')


def test_old_events_and_old_calls_do_not_wake_a_job_for_ever(runner: Runner) -> None:
    def script() -> Any:
        return [wait_for_event("tick"), wait_for_event("tick")]

    job = runner.enqueue(script)
    runner.attempt()
    emit("tick", 1)
    assert isinstance(elsewhere(runner.attempt), Parked)
    assert row(job).status == "waiting"
    assert (wake_forgotten(), announce_forgotten()) == (0, 0)
    runner.wake(job)
    assert isinstance(elsewhere(runner.attempt), Parked)
    assert row(job).status == "waiting"


def test_a_call_without_an_event_wakes_the_job_once(runner: Runner) -> None:
    """Such as that of an event which the job's other branch got."""
    job = runner.enqueue(listener)
    runner.attempt()
    announce(channel_of("paid", "7"))
    assert row(job).status == "pending"
    assert isinstance(runner.attempt(), Parked)
    assert row(job).status == "waiting"


# Emitter and waiter at the same moment ----------------------------------------------------------------------


def test_an_event_emitted_after_the_look_and_before_the_job_parks_is_not_lost(runner: Runner) -> None:
    job = runner.enqueue(listener)
    claimed = runner.claim()
    outcome = runner.run(claimed)
    assert isinstance(outcome, Parked)
    emit("paid", "in between", key="7")
    assert EventWait.objects.filter(job_id=job.id, called=True).count() == 1
    runner.finish(claimed, outcome)
    assert row(job).status == "pending"
    assert runner.attempt() == Completed('"in between"')


def test_an_event_committed_after_the_job_parked_is_called_out(runner: Runner) -> None:
    job = runner.enqueue(listener)
    if dialect_of("default").has_parallel_writers:
        with transaction.atomic():
            emit("paid", "late", key="7")
            assert isinstance(elsewhere(runner.attempt), Parked)
            assert row(job).status == "waiting"
    else:
        runner.attempt()
        emit("paid", "late", key="7")
    assert runner.attempt() == Completed('"late"')


def test_an_emitter_that_dies_before_it_calls_is_stood_in_for(runner: Runner, dialect: Dialect) -> None:
    job = runner.enqueue(listener)
    runner.attempt()
    with killed_at("before-announce") as reached, pytest.raises(Killed):
        emit("paid", "orphan", key="7")
    assert reached
    assert (row(job).status, unannounced(), announce_forgotten()) == ("waiting", 1, 0)
    dialect.clock_offset += timedelta(seconds=6)
    looked: list[str] = []
    assert Waker(options(), lambda: looked.append("look now")).run_once() == 0
    assert looked == ["look now"]
    assert unannounced() == 0
    assert runner.attempt() == Completed('"orphan"')


def test_an_emitter_whose_calls_fail_does_not_hear_of_it(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(_channel: Any, _told: Any) -> None:
        raise RuntimeError("no calls")

    monkeypatch.setattr("django_durable_jobs.operations.events.announce", break_down)
    emit("paid", key="7")
    assert unannounced() == 1


def test_a_job_that_waits_for_an_event_and_a_message_is_woken_by_either(runner: Runner) -> None:
    async def hear() -> Any:
        return await acall(note, await await_for_event("tick"))

    async def read() -> Any:
        return await acall(note, await await_for_message("go"))

    async def script() -> list[Any]:
        return list(await asyncio.gather(acall(hear), acall(read)))

    job = runner.enqueue(script)
    runner.attempt()
    assert row(job).waiting_for == "several"
    emit("tick", "event")
    assert isinstance(runner.attempt(), Parked)
    assert (GOT, row(job).waiting_for) == (["event"], "message go")
    send_message(job, "go", "message")
    assert runner.attempt() == Completed('["event","message"]')


def test_two_branches_never_get_the_same_event(runner: Runner) -> None:
    async def script() -> list[Any]:
        return list(await asyncio.gather(await_for_event("tick"), await_for_event("tick")))

    runner.enqueue(script)
    runner.attempt()
    emit("tick", 1)
    assert isinstance(runner.attempt(), Parked)
    emit("tick", 2)
    outcome = runner.attempt()
    assert isinstance(outcome, Completed)
    assert outcome.result in {"[1,2]", "[2,1]"}


# Timeouts ---------------------------------------------------------------------------------------------------


def hurried() -> Any:
    try:
        return wait_for_event("tick", timeout=HOUR)
    except TimedOut:
        return call(note, "too late")


async def async_hurried() -> Any:
    try:
        return await await_for_event("tick", timeout=HOUR)
    except TimedOut:
        return await acall(note, "too late")


@pytest.mark.parametrize("script", [hurried, async_hurried])
def test_a_wait_whose_time_is_over_leaves_nothing_behind(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = runner.enqueue(script)
    runner.attempt()
    first = row(job).run_at
    dialect.clock_offset += HOUR / 2
    runner.wake(job)
    runner.attempt()
    assert row(job).run_at == first
    dialect.clock_offset += HOUR / 2
    runner.promote()
    assert runner.attempt() == Completed('"too late"')
    assert not EventWait.objects.exists()
    assert stored(job) == [("1", "tick!"), ("1.0", "tick"), ("1.0.1", "tick"), ("2", "note")]


@pytest.mark.parametrize("script", [hurried, async_hurried])
def test_an_event_within_the_time_is_got(runner: Runner, dialect: Dialect, script: Any) -> None:
    runner.enqueue(script)
    runner.attempt()
    dialect.clock_offset += HOUR / 2
    emit("tick", "in time")
    assert runner.attempt() == Completed('"in time"')


# Retention --------------------------------------------------------------------------------------------------


def test_events_past_their_retention_are_deleted_and_messages_are_not(dialect: Dialect, runner: Runner) -> None:
    job = runner.enqueue(listener)
    dialect.clock_offset -= timedelta(days=8)
    emit("paid", "old")
    send_message(job, "go", "old")
    dialect.clock_offset += timedelta(days=2)
    emit("paid", "newer")
    dialect.clock_offset += timedelta(days=6)
    assert prune_events(None) is None
    assert sorted(Message.objects.values_list("payload", flat=True)) == ['"newer"', '"old"']
    with override_settings(DURABLE_JOBS={"RETENTION_EVENTS": timedelta(days=5)}):
        prune_events(None)
    assert [message.job_id for message in Message.objects.all()] == [job.id]


def test_many_old_events_go_in_batches(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_jobs.operations.prune.WINDOW", 3)
    old = DatabaseNow() - timedelta(days=8)
    Message.objects.bulk_create([Message(name="old", payload="1", created_at=old) for _ in range(7)])
    pruner = Pruner()
    assert [pruner.run_once() for _ in range(3)] == [BETWEEN_WINDOWS, BETWEEN_WINDOWS, BETWEEN_ROUNDS]
    assert not Message.objects.exists()


# Misuse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "two words", "n" * 151, None, 7])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    for use in (emit, wait_for_event):
        with pytest.raises(OptionError, match="is not a usable name of an event"):
            use(name)
    assert not Message.objects.exists()


@pytest.mark.parametrize("key", ["", "k" * 201, 7, "line\nbreak", "nul\0", b"key"])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(OptionError, match="key of event 'paid' must be a text"):
        emit("paid", key=key)
    with pytest.raises(OptionError, match="key of event 'paid' must be a text"):
        wait_for_event("paid", key)
    assert not Message.objects.exists()


def test_a_payload_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(SerializationError, match="payload of event 'paid'"):
        emit("paid", object())
    assert not Message.objects.exists()


@pytest.mark.parametrize("timeout", [-1, float("nan"), 0])
def test_a_timeout_that_is_none_is_refused_and_nothing_stored(runner: Runner, timeout: Any) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="timeout"):
            wait_for_event("paid", timeout=timeout)

    runner.enqueue(script)
    assert runner.attempt() == Completed(None)
    assert not Checkpoint.objects.exists()
    assert not EventWait.objects.exists()


def test_waiting_outside_of_a_job_says_so() -> None:
    with pytest.raises(NotInJob, match=r"wait_for_event\(\) works inside"):
        wait_for_event("paid")


def test_the_longest_names_and_keys_work_and_stay_apart(runner: Runner) -> None:
    name, first, second = "n" * 150, "k" * 200, "k" * 199 + "j"
    assert channel_of(name, first).label != channel_of(name, second).label

    def script() -> Any:
        return wait_for_event(name, first)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    emit(name, "second", key=second)
    assert row(job).status == "waiting"
    emit(name, "first", key=first)
    assert runner.attempt() == Completed('"first"')


def waiting_jobs(runner: Runner, count: int) -> list[JobHandle[Any]]:
    jobs = [runner.enqueue(listener) for _ in range(count)]
    for _ in jobs:
        assert isinstance(runner.attempt(), Parked)
    return jobs


def test_jobs_are_called_in_batches(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_jobs.operations.events.BATCH", 2)
    jobs = waiting_jobs(runner, 5)
    emit("paid", key="7")
    assert {row(job).status for job in jobs} == {"pending"}
