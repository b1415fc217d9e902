"""``get_version`` and ``patched``: jobs that have begun go on as the old code did (A14)."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import acall, aget_version, apatched, asleep, call, get_version, patched, retry, sleep
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import NonDeterminism, NotInJob, OpenTransaction, OptionError
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Parked
from tests.durable.running import COMMITS, SCRIPTS, Runner, stored
from tests.waiting import elsewhere

pytestmark = COMMITS

HOUR = timedelta(hours=1)
LEDGER: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


def note(what: str) -> str:
    LEDGER.append(what)
    return what


def old() -> str:
    call(note, "a")
    sleep(HOUR)
    return call(note, "b")


def new() -> str:
    version = get_version("check first", 1, 2)
    if version == 2:
        call(note, "check")
    call(note, "a")
    sleep(HOUR)
    if patched("louder"):
        return call(note, "B")
    return call(note, "b")


async def async_old() -> str:
    await acall(note, "a")
    await asleep(HOUR)
    return await acall(note, "b")


async def async_new() -> str:
    version = await aget_version("check first", 1, 2)
    if version == 2:
        await acall(note, "check")
    await acall(note, "a")
    await asleep(HOUR)
    if await apatched("louder"):
        return await acall(note, "B")
    return await acall(note, "b")


PAIRS = pytest.mark.parametrize(("before", "after"), [(old, new), (async_old, async_new)], ids=["sync", "async"])


def become(before: Any, after: Any) -> None:
    """Give the jobs of a script other code."""
    SCRIPTS[before.__name__] = after


def later(runner: Runner, dialect: Dialect) -> None:
    dialect.clock_offset += HOUR
    runner.promote()


@PAIRS
def test_a_job_that_has_begun_goes_on_as_the_old_code_did(
    runner: Runner, dialect: Dialect, before: Any, after: Any
) -> None:
    job = runner.enqueue(before)
    assert isinstance(runner.attempt(), Parked)
    become(before, after)
    later(runner, dialect)
    # At the sleep the job has not been past, so what comes after it is new to it.
    assert runner.attempt() == Completed('"B"')
    assert LEDGER == ["a", "B"]
    assert stored(job) == [
        ("1", "note"),
        ("2", "sleep"),
        ("3", "note"),
        ("v:check first", "check first"),
        ("v:louder", "louder"),
    ]


@PAIRS
def test_a_new_job_takes_the_new_way_in_every_attempt(
    runner: Runner, dialect: Dialect, before: Any, after: Any
) -> None:
    del before
    job = runner.enqueue(after)
    assert isinstance(runner.attempt(), Parked)
    assert LEDGER == ["check", "a"]
    found = Checkpoint.objects.get(job_id=job.id, key="v:check first")
    assert (found.name, found.kind, found.result, found.generation) == ("check first", "version", "2", 0)
    later(runner, dialect)
    assert runner.attempt() == Completed('"B"')
    assert LEDGER == ["check", "a", "B"]


def test_the_first_answer_holds_for_the_whole_job(runner: Runner) -> None:
    """In a loop, part of which the old code has run, all turns take the old way."""

    def before() -> None:
        for turn in range(2):
            call(note, f"turn {turn}")
        raise ValueError("not all yet")

    def after() -> list[int]:
        found = []
        for turn in range(4):
            found.append(get_version("loop", 0, 1))
            call(note, f"turn {turn}")
        return found

    runner.enqueue(before)
    assert isinstance(runner.attempt(), BackedOff)
    become(before, after)
    assert runner.attempt() == Completed("[0,0,0,0]")


def test_a_wait_that_has_begun_counts_as_passed(runner: Runner) -> None:
    """So does a call in which the job's worker died: only what it called is recorded."""

    def inner() -> str:
        call(note, "inner")
        raise ValueError("no")

    def before() -> None:
        call.using(retries=0)(inner)

    def after() -> bool:
        return patched("x")

    runner.enqueue(before)
    runner.attempt()
    become(before, after)
    assert runner.attempt() == Completed("false")


def test_below_a_call_the_level_of_that_call_counts(runner: Runner) -> None:
    def inner() -> bool:
        return patched("x")

    def script() -> list[bool]:
        call(note, "a")
        return [call(inner), patched("x")]

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("[true,true]")
    assert ("2", "inner") in stored(job)
    assert ("v:x", "x") in stored(job)


def test_a_later_branch_that_is_recorded_counts_as_passed(runner: Runner) -> None:
    async def slow() -> None:
        raise ValueError("no")

    async def before() -> None:
        quick = await asyncio.gather(acall.using(retries=0)(slow), acall(note, "quick"), return_exceptions=True)
        raise next(one for one in quick if isinstance(one, Exception))

    async def after() -> bool:
        return await apatched("x")

    job = runner.enqueue(before)
    runner.attempt()
    Checkpoint.objects.filter(job_id=job.id, key="1").delete()
    assert [key for key, _name in stored(job)] == ["2"]
    become(before, after)
    assert runner.attempt() == Completed("false")


def test_each_generation_decides_anew(runner: Runner) -> None:
    def script() -> int:
        return get_version("x", 0, HIGHEST[0])

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("1")
    Job.objects.filter(id=job.id).update(status="failed", generation=1)
    HIGHEST[0] = 2
    retry(job.id)
    assert runner.attempt() == Completed("2")
    HIGHEST[0] = 1


HIGHEST = [1]


@pytest.mark.parametrize(("low", "high"), [(2, 3), (0, 0)])
def test_i19_a_version_that_the_code_no_longer_supports_stops_the_job(runner: Runner, low: int, high: int) -> None:
    def before() -> None:
        get_version("x", 0, 1)
        raise ValueError("again")

    def after() -> None:
        try:
            get_version("x", low, high)
        except NonDeterminism:
            note("swallowed")
        call(note, "went on")

    job = runner.enqueue(before)
    runner.attempt()
    become(before, after)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert f"Job {job.id}" in outcome.failure.error
    assert "follows version 1 of the change 'x'" in outcome.failure.error
    assert re.search(rf"{low}.* only \({re.escape(__file__)}:\d+\): let", outcome.failure.error)
    assert LEDGER == ["swallowed"]


def test_the_line_of_such_a_look_is_named_in_async_code_too(runner: Runner) -> None:
    async def before() -> None:
        await aget_version("x", 0, 1)
        raise ValueError("again")

    async def after() -> None:
        await aget_version("x", 2, 3)

    runner.enqueue(before)
    runner.attempt()
    become(before, after)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert f" only ({__file__}:{after.__code__.co_firstlineno + 1}): let" in outcome.failure.error


def test_two_names_with_a_dot_are_apart(runner: Runner) -> None:
    def script() -> list[int]:
        return [get_version(name, 0, high) for name, high in (("a.b", 3), ("a", 4), ("a.b", 5), ("a", 5))]

    runner.enqueue(script)
    assert runner.attempt() == Completed("[3,4,3,4]")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("", 0, 1), "The name of a change"),
        (("x" * 191, 0, 1), "The name of a change"),
        (("a\n", 0, 1), "The name of a change"),
        ((3, 0, 1), "The name of a change"),
        (("x", -1, 1), "whole numbers from 0"),
        (("x", 0, 1.5), "whole numbers from 0"),
        (("x", False, 1), "whole numbers from 0"),
        (("x", 0, 10**9), "whole numbers from 0"),
        (("x", 2, 1), r"\(2\) is above the highest \(1\)"),
    ],
)
def test_names_and_numbers_that_cannot_be_are_refused(runner: Runner, given: Any, says: str) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match=says):
            get_version(*given)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert stored(job) == []


def test_inside_a_transaction_it_is_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic(), pytest.raises(OpenTransaction, match=r"patched\(\) was used inside"):
            patched("x")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert stored(job) == []


def test_outside_of_a_job_and_in_another_thread_it_is_said_so(runner: Runner) -> None:
    with pytest.raises(NotInJob, match=r"patched\(\) works inside a running durable job only"):
        patched("x")
    with pytest.raises(NotInJob, match=r"get_version\(\) works inside a running durable job only"):
        get_version("x", 0, 1)

    def script() -> None:
        with pytest.raises(NotInJob, match="works inside a running durable job only"):
            elsewhere(lambda: patched("x"))

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)


async def test_on_the_event_loop_it_says_what_to_write(runner: Runner) -> None:
    with pytest.raises(NotInJob, match="apatched"):
        patched("x")
    with pytest.raises(NotInJob, match="aget_version"):
        get_version("x", 0, 1)
