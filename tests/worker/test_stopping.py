"""Code that does not ask whether it should stop: interrupted, and given up where that does not reach it (X43, X59)."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import pytest
from django.db import connection, transaction
from django.test import override_settings

from django_durable_jobs import (
    Backoff,
    ChunkItem,
    HardTimedOut,
    JobHandle,
    LeaseLost,
    OptionError,
    acall,
    call,
    cancel,
    compensate,
    durable_job,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.durable.context import JobContext
from django_durable_jobs.durable.doors import Door
from django_durable_jobs.models import Attempt, NamedValue
from django_durable_jobs.options import Options
from django_durable_jobs.worker.stops import Stop, Stops
from tests.durable.running import COMMITS, SCRIPTS, async_scripted, row, scripted
from tests.reliability.outages import QUICK, options, working
from tests.waiting import eventually

pytestmark = COMMITS

LIMIT: Final = 0.25
LEDGER: list[str] = []
LOCK = threading.Lock()


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    LEDGER.clear()
    yield
    SCRIPTS.clear()


def note(what: str) -> str:
    LEDGER.append(what)
    return what


def enqueue(script: Callable[..., Any], **given: Any) -> JobHandle[Any]:
    SCRIPTS[script.__name__] = script
    job = async_scripted if inspect.iscoroutinefunction(script) else scripted
    return job.using(**{"retries": 0, "hard_timeout": LIMIT, **given}).enqueue(script.__name__)


def good() -> str:
    """Run in the same worker afterwards."""
    return "good"


def fine(**given: Any) -> JobHandle[Any]:
    return enqueue(good, hard_timeout=3600, **given)


def ended(handle: JobHandle[Any], status: str = "failed") -> None:
    eventually(lambda: row(handle).status == status, seconds=20, what=f"{row(handle).status}, {row(handle).last_error}")


@contextmanager
def quickly(recycle_after: float = 0.1, **settings: Any) -> Iterator[None]:
    """Give interrupted code this long."""
    with override_settings(DURABLE_JOBS={"RECYCLE_AFTER": recycle_after, **settings}):
        yield


@pytest.fixture
def time_is_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What code calls that has come as far as the test needs: its limit is reached, be the database ever so slow."""
    noted: list[tuple[Stops, Stop | None]] = []
    really = Stops.limit

    def limit(self: Stops, contexts: Sequence[JobContext], door: Door) -> Stop | None:
        noted.append((self, really(self, contexts, door)))
        return noted[-1][1]

    def reach() -> None:
        stops, stop = noted[-1]
        assert stop is not None
        stop.at = 0.0
        stops.wake()

    monkeypatch.setattr(Stops, "limit", limit)
    return reach


# Code in Python -----------------------------------------------------------------------------------------------------


def endless() -> None:
    while True:
        sum(range(100))


def in_finally() -> None:
    try:
        LEDGER.append("body")
    finally:
        endless()


def with_a_lock() -> None:
    with LOCK:
        endless()


def in_a_call() -> None:
    call(endless)


@pytest.mark.parametrize("script", [endless, in_finally, with_a_lock, in_a_call])
def test_x43_python_code_is_interrupted_and_its_thread_runs_the_next_job(script: Callable[[], None]) -> None:
    with working(options(queues={"default": 1})):
        late = enqueue(script)
        assert fine().result(20) == "good"
    failed = row(late)
    assert (failed.status, failed.attempt) == ("failed", 1)
    assert failed.last_error == "TimedOut: The attempt took longer than its hard limit of 0.25 s."
    assert script.__name__ in Attempt.objects.get(job_id=late.id).traceback, "it says where the code was"
    assert LOCK.acquire(blocking=False), "what the code held is free"
    LOCK.release()


def test_an_attempt_that_was_interrupted_is_followed_by_the_next_one(time_is_up: Callable[[], None]) -> None:
    def once_too_long() -> str:
        note("attempt")
        if len(LEDGER) == 1:
            time_is_up()
        # For ever but for the interruption; without it the attempt ends, some time, as if nothing had been.
        while len(LEDGER) == 1 and not GATE.wait(0.001):
            pass
        return f"attempt {len(LEDGER)}"

    GATE = threading.Event()  # noqa: N806 -- opened below, whatever happens
    with quickly(20), working():
        here = enqueue(once_too_long, retries=1, backoff=Backoff.none(), hard_timeout=3600)
        try:
            assert here.result(5) == "attempt 2"
        finally:
            GATE.set()


def test_code_that_ends_in_its_time_is_left_alone() -> None:
    with working():
        assert fine().result(20) == "good"


def test_what_interrupted_code_had_written_is_not_there_and_the_next_job_can_write(
    time_is_up: Callable[[], None],
) -> None:
    owner = fine(delay=3600)

    def half() -> None:
        with transaction.atomic():
            NamedValue.objects.create(job_id=owner.id, name="half", value="1")
            time_is_up()
            endless()

    def whole() -> int:
        NamedValue.objects.create(job_id=owner.id, name="whole", value="1")
        return NamedValue.objects.count()

    with working(options(queues={"default": 1})):
        ended(enqueue(half, hard_timeout=3600))
        assert enqueue(whole, hard_timeout=3600).result(20) == 1
    assert [value.name for value in NamedValue.objects.filter(job_id=owner.id)] == ["whole"]


def test_the_connections_of_interrupted_code_are_not_used_again(time_is_up: Callable[[], None]) -> None:
    used: list[Any] = []

    def queries() -> None:
        NamedValue.objects.count()
        used.append(connection.connection)
        time_is_up()
        endless()

    def queries_too() -> str:
        NamedValue.objects.count()
        used.append(connection.connection)
        return "good"

    with working(options(queues={"default": 1})):
        ended(enqueue(queries, hard_timeout=3600))
        assert enqueue(queries_too, hard_timeout=3600).result(20) == "good"
    assert used[0] is not used[1]


def test_what_it_has_registered_is_undone_and_has_its_own_time(time_is_up: Callable[[], None]) -> None:
    def books() -> None:
        call(note, "book")
        compensate(undo)
        time_is_up()
        endless()

    with working():
        ended(enqueue(books, hard_timeout=3600))
    assert LEDGER == ["book", "undone"]


@durable_job
def undo() -> None:
    note("undone")


def test_the_projects_limit_holds_where_a_job_has_none() -> None:
    with quickly(HARD_TIMEOUT=LIMIT), working():
        SCRIPTS["endless"] = endless
        ended(scripted.using(retries=0).enqueue("endless"))


# Code that an exception does not reach ------------------------------------------------------------------------------


def test_x43_code_in_c_is_given_up_and_its_late_result_refused(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def blocked() -> str:
        gate.wait(60)  # as a sleep, a query or a loop of a library: no instruction of Python's comes
        return "late"

    with quickly(), working(options(queues={"default": 2})):
        late = enqueue(blocked)
        try:
            eventually(lambda: row(late).status == "failed", seconds=5)
            assert fine().result(20) == "good"
        finally:
            gate.set()
        eventually(lambda: "its code was stopped" in caplog.text)
    assert (row(late).status, row(late).result) == ("failed", None)
    assert "its slot is lost to this process. Start the worker anew; with --processes" in caplog.text


def test_x43_code_that_swallows_what_is_raised_is_given_up() -> None:
    gate = threading.Event()

    def stubborn() -> None:
        while not gate.is_set():
            try:
                while not gate.is_set():
                    sum(range(100))
            except HardTimedOut:
                note("swallowed")

    with quickly(), working():
        late = enqueue(stubborn)
        ended(late)
        gate.set()
    assert LEDGER == ["swallowed"]


def test_a_job_that_is_given_up_with_something_to_undo_is_left_to_its_lease(time_is_up: Callable[[], None]) -> None:
    """What undoes it must not run beside its code: whoever rescues the job sees to it."""
    gate = threading.Event()

    def books() -> None:
        call(note, "book")
        compensate(undo)
        time_is_up()
        gate.wait(60)

    with quickly(), working(options(lease=timedelta(seconds=0.6), heartbeat=timedelta(seconds=0.1))):
        late = enqueue(books, hard_timeout=3600)
        eventually(lambda: row(late).rescues > 0, seconds=20)
        gate.set()
    assert row(late).result is None


# On the event loop --------------------------------------------------------------------------------------------------


def test_x43_an_async_job_is_cancelled_where_it_waits(time_is_up: Callable[[], None]) -> None:
    async def hangs() -> None:
        await acall(good)
        time_is_up()
        try:
            await asyncio.Event().wait()
        finally:
            note("cleaned")

    async def quick() -> str:
        return "good"

    with working():
        late = enqueue(hangs, hard_timeout=3600)
        ended(late)
        assert enqueue(quick, hard_timeout=3600).result(20) == "good"
    assert LEDGER == ["cleaned"]
    assert str(row(late).last_error).startswith("TimedOut: ")


def test_x43_an_async_job_that_blocks_the_loop_is_given_up() -> None:
    gate = threading.Event()

    async def blocks() -> None:
        gate.wait(60)

    with quickly(), working():
        late = enqueue(blocks)
        ended(late)
        gate.set()


# Chunks -------------------------------------------------------------------------------------------------------------


@durable_job(chunk=3, chunk_timeout=5, hard_timeout=LIMIT, retries=0)
def too_slow(items: list[ChunkItem[int, int]]) -> None:
    items[0].result = 1
    endless()


def test_a_chunk_is_interrupted_as_one_and_what_was_done_counts() -> None:
    with working():
        handles = too_slow.enqueue_many([(1,), (2,), (3,)])
        for handle in handles[1:]:
            ended(handle)
        assert handles[0].result(20) == 1


# Orders -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def deaf(dialect: Dialect) -> Any:
    """Options of a worker with one slot that looks for orders by itself only where nothing notifies it."""
    every = timedelta(hours=1) if dialect.has_notifications else QUICK
    return options(queues={"default": 1}, poll_interval=every, idle_poll_interval=every)


def test_x59_a_cancel_by_force_interrupts_the_code_and_frees_its_slot(deaf: Any) -> None:
    begun, gate = threading.Event(), threading.Event()

    def runs() -> None:
        begun.set()
        try:
            while not gate.wait(0.001):
                pass
        except LeaseLost:
            note("interrupted")
            raise

    with working(deaf):
        here = enqueue(runs, hard_timeout=3600)
        assert begun.wait(20)
        try:
            assert cancel(here.id, force=True).cancelled == [here.id]
            assert fine().result(5) == "good"
        finally:
            gate.set()
    assert LEDGER == ["interrupted"]
    assert row(here).status == "cancelled"


def test_a_cancel_without_force_interrupts_nothing(deaf: Any) -> None:
    begun, gate = threading.Event(), threading.Event()

    def runs() -> str:
        begun.set()
        while not gate.is_set():
            sum(range(100))
        return "done"

    with working(deaf):
        here = enqueue(runs, hard_timeout=3600)
        assert begun.wait(20)
        cancel(here.id)
        gate.set()
        assert here.result(20) == "done"


def test_a_job_that_must_not_run_twice_is_not_handed_back_by_a_worker_that_stops() -> None:
    begun, gate = threading.Event(), threading.Event()

    def runs() -> None:
        begun.set()
        gate.wait(60)

    with working(options(grace=timedelta(0))):
        here = enqueue(runs, hard_timeout=3600, on_crash="fail")
        assert begun.wait(20)
    assert (row(here).status, row(here).attempt) == ("running", 1), "left to its lease, after which it has failed"
    gate.set()


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**12, "soon", True, timedelta.max], ids=repr)
def test_n6_a_hard_limit_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="hard_timeout"):
        Options().changed({"hard_timeout": value})


def test_a_hard_limit_below_the_soft_one_is_refused() -> None:
    with pytest.raises(OptionError, match=r"hard_timeout \(0:00:01\) must not be shorter than timeout \(0:00:02\)"):
        Options().changed({"timeout": 2, "hard_timeout": 1})
