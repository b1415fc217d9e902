"""Durable calls of ``async def`` jobs: gathered, replayed, failing in tasks, cancelled, with sync code in threads."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction

from django_durable_jobs import Backoff, LeaseLost, acall, call, current_job, durable_job
from django_durable_jobs.errors import Interrupted, OpenTransaction
from django_durable_jobs.models import Checkpoint, Queue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Lost, Outcome, Released
from tests.durable.running import COMMITS, NOW, Runner, row, stored
from tests.jobs import add, async_add
from tests.waiting import elsewhere, eventually

pytestmark = COMMITS

RAN: Counter[str] = Counter()
FAIL: set[str] = set()
SETTING: contextvars.ContextVar[str] = contextvars.ContextVar("setting", default="unset")


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    FAIL.clear()


async def slow(name: str, turns: int) -> str:
    """Give way to others so often, then return."""
    RAN[name] += 1
    for _ in range(turns):
        await asyncio.sleep(0)
    if name in FAIL:
        raise ValueError(name)
    return name


def in_thread(name: str) -> str:
    RAN[name] += 1
    return f"{name} {threading.current_thread().name.rpartition('-')[0]}"


@durable_job(backoff=NOW)
async def inner_job(n: int) -> int:
    return await acall(async_add, await acall(add, n, 1), 1)


def test_a6_an_async_job_calls_async_and_sync_functions_and_jobs(runner: Runner) -> None:
    async def script() -> list[Any]:
        return [
            await acall(slow, "a", 1),
            await acall(in_thread, "b"),
            await acall("tests.jobs.add", 1, 2),
            await acall(inner_job, 5),
        ]

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert runner.attempt(rescued=True) == Completed('["a","b durable-jobs-sync",3,7]')
    assert RAN == {"a": 1, "b": 1}
    names = [("1", "slow"), ("2", "in_thread"), ("3", "add"), ("4", "inner_job"), ("4.1", "add"), ("4.2", "async_add")]
    assert stored(job) == names


def test_i14_gathered_calls_keep_their_keys_in_any_order_of_completion(runner: Runner) -> None:
    async def script() -> list[str]:
        return list(await asyncio.gather(*(acall(slow, name, turns) for name, turns in order)))

    order = [("a", 9), ("b", 0), ("c", 4)]
    job = runner.enqueue(script)
    runner.attempt_until_killed("after-checkpoint", at=2)
    before = len(stored(job))
    assert before >= 2
    order = [("a", 0), ("b", 9), ("c", 4)]
    assert runner.attempt(rescued=True) == Completed('["a","b","c"]')
    assert sum(RAN.values()) == 3 + (3 - before)
    keys = Checkpoint.objects.order_by("key").values_list("key", "result")
    assert list(keys) == [("1", '"a"'), ("2", '"b"'), ("3", '"c"')]


def test_a_sync_function_in_a_thread_may_make_calls_of_its_own(runner: Runner) -> None:
    def nested() -> int:
        return call(add, 1, call(async_add, 2, 3))

    async def script() -> list[int]:
        return list(await asyncio.gather(acall(nested), acall(nested)))

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("[6,6]")
    inner = [(f"{n}.{m}", name) for n in (1, 2) for m, name in ((1, "async_add"), (2, "add"))]
    assert stored(job) == sorted([("1", "nested"), ("2", "nested"), *inner])


def test_a_sync_job_may_call_an_async_function_that_makes_calls(runner: Runner) -> None:
    def script() -> int:
        return call(inner_job, 5)

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert runner.attempt(rescued=True) == Completed("7")
    assert stored(job) == [("1", "inner_job"), ("1.1", "add"), ("1.2", "async_add")]


# Errors in tasks --------------------------------------------------------------------------------------------------


def test_i14_an_error_that_gather_returned_is_final(runner: Runner) -> None:
    async def script() -> list[str]:
        got = await asyncio.gather(acall.using(retries=0)(slow, "a", 2), acall(slow, "b", 1), return_exceptions=True)
        return [repr(got[0]), str(got[1]), await acall(slow, "c", 0)]

    FAIL.add("a")
    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert stored(job) == [("1", "slow!"), ("2", "slow"), ("3", "slow")]
    FAIL.clear()
    assert runner.attempt(rescued=True) == Completed('["ValueError(\'a\')","b","c"]')
    assert RAN == {"a": 1, "b": 1, "c": 1}


def test_i14_an_error_that_nobody_looked_at_before_it_ended_the_attempt_is_dropped(runner: Runner) -> None:
    async def script() -> str:
        task = asyncio.ensure_future(acall.using(retries=0)(slow, "a", 0))
        await acall(slow, "b", 5)  # the other one has failed by now
        await acall(slow, "c", 0)  # going on is no sign that its error was caught
        return await task

    FAIL.add("a")
    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert stored(job) == [("2", "slow"), ("3", "slow")]
    FAIL.clear()
    assert runner.attempt() == Completed('"a"')
    assert RAN == {"a": 2, "b": 1, "c": 1}


def test_calls_that_still_run_when_the_attempt_ends_are_stopped_with_it(runner: Runner) -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def script() -> None:
        await asyncio.gather(acall(endless), acall.using(retries=0)(slow, "a", 3))

    async def run() -> tuple[Outcome, list[str]]:
        return await runner.executor.run_async(claimed), list(ended)  # before the loop is closed

    FAIL.add("a")
    job = runner.enqueue(script)
    claimed = runner.claim()
    outcome, ended_with_it = elsewhere(lambda: asyncio.run(run()))
    assert isinstance(outcome, BackedOff)
    assert ended_with_it == ["endless"]
    assert stored(job) == []


def test_a_call_that_is_never_awaited_runs_nothing_and_python_says_so(runner: Runner) -> None:
    async def script() -> str:
        acall(slow, "a", 0)
        gc.collect()
        return await acall(slow, "b", 0)

    job = runner.enqueue(script)
    with pytest.warns(RuntimeWarning, match="coroutine 'acall' was never awaited"):
        assert runner.attempt() == Completed('"b"')
    assert stored(job) == [("2", "slow")]
    assert RAN == {"b": 1}


# Stopping ---------------------------------------------------------------------------------------------------------


def run_and_interrupt(runner: Runner, begun: threading.Event, why: Interrupted, *, cancel: bool) -> Any:
    """Run the next job on a loop, interrupt it once it has begun, and return the outcome."""
    job = runner.claim()

    async def run() -> Any:
        task = asyncio.ensure_future(runner.executor.run_async(job))
        await asyncio.to_thread(begun.wait, 10)
        context = runner.leases._held[job.id].context
        assert context is not None
        context.interrupt(why)
        if cancel:
            task.cancel()
        return await asyncio.wait_for(task, 10)

    return elsewhere(lambda: asyncio.run(run()))


def test_i12_a_cancelled_job_goes_back_with_its_attempt_and_keeps_its_calls(runner: Runner) -> None:
    begun = threading.Event()

    async def script() -> str:
        first = await acall(slow, "a", 0)
        begun.set()
        if current_job().attempt == 1 and RAN["again"] == 0:
            RAN["again"] = 1
            await asyncio.Event().wait()
        return first + await acall(slow, "b", 0)

    runner.enqueue(script)
    outcome = run_and_interrupt(runner, begun, Interrupted("stop"), cancel=True)
    assert outcome == Released()
    assert RAN["a"] == 1


def test_i10_a_job_that_lost_its_lease_is_woken_from_the_back_off_of_a_call(runner: Runner) -> None:
    begun = threading.Event()

    async def failing() -> None:
        begun.set()
        raise ValueError("again")

    async def script() -> None:
        await acall.using(retries=1, backoff=Backoff.fixed(timedelta(hours=1)))(failing)

    runner.enqueue(script)
    outcome = run_and_interrupt(runner, begun, LeaseLost("lost"), cancel=False)
    assert outcome == Lost()


def test_a_job_that_cancels_itself_fails_as_with_any_error(runner: Runner) -> None:
    async def script() -> None:
        raise asyncio.CancelledError

    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    assert str(row(job).last_error).startswith("CancelledError")


# Threads and connections ------------------------------------------------------------------------------------------


def leave_transaction_open() -> str:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    Queue.objects.create(name="not-committed")
    return threading.current_thread().name


def how_clean() -> list[bool]:
    return [
        connection.in_atomic_block,
        not connection.get_autocommit(),
        Queue.objects.filter(name="not-committed").exists(),
    ]


def test_x35_sync_code_of_an_async_job_leaves_a_clean_thread(runner: Runner) -> None:
    async def script() -> list[bool]:
        with pytest.raises(Exception, match="left a transaction open"):
            await acall(leave_transaction_open)
        return await acall(how_clean)

    runner.enqueue(script)
    assert runner.attempt() == Completed("[false,false,false]")


def test_x35_the_async_orm_gets_one_thread_per_job_and_that_is_cleaned(runner: Runner) -> None:
    def begin() -> None:
        transaction.set_autocommit(False)
        Queue.objects.create(name="not-committed")

    async def script() -> list[Any]:
        with pytest.raises(OpenTransaction, match="left open on database 'default'; it was rolled back"):
            await sync_to_async(begin)()
        threads = {await sync_to_async(leave_thread_name)() for _ in range(2)}
        return [
            sorted(threads),
            await Queue.objects.filter(name="not-committed").aexists(),
            await sync_to_async(how_clean)(),
        ]

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    (thread,), exists, dirty = job.result()
    assert thread.startswith("durable-jobs-lane-")
    assert not exists
    assert dirty == [False, False, False]


def leave_thread_name() -> str:
    return threading.current_thread().name


def test_i31_helper_threads_are_few_and_end_with_the_worker(runner: Runner) -> None:
    async def script() -> int:
        names = await asyncio.gather(*(acall(leave_thread_name) for _ in range(60)))
        return len(set(names))

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert 1 <= job.result() <= 10
    runner.executor.close()
    eventually(lambda: not [one.name for one in threading.enumerate() if one.name.startswith("durable-jobs-")])


def test_context_variables_of_the_job_reach_its_threads_and_nothing_comes_out_of_the_job(runner: Runner) -> None:
    def read() -> str:
        return f"{SETTING.get()} {current_job().definition}"

    async def script() -> str:
        SETTING.set("by the job")
        return await acall(read)

    async def following() -> str:
        return SETTING.get()

    runner.enqueue(script)
    assert runner.attempt() == Completed('"by the job tests.durable.running.async_scripted"')
    runner.enqueue(following)
    assert runner.attempt() == Completed('"unset"')


def test_x18_a_helper_thread_whose_connection_died_gets_another(runner: Runner) -> None:
    def die() -> None:
        connection.ensure_connection()
        connection.connection.close()
        Queue.objects.exists()

    async def script() -> int:
        with pytest.raises(Exception, match=r"."):
            await acall.using(retries=0)(die)
        return await acall(count)

    runner.enqueue(script)
    assert runner.attempt() == Completed("0")
    connections.close_all()


def count() -> int:
    return Queue.objects.filter(name="nothing").count()
