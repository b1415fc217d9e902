"""From a claimed job to an outcome: whatever a job's code or its row does, the worker goes on (X44, X45, X48, X69)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from django_durable_jobs import JobHandle, acall, call, durable_job
from django_durable_jobs.conf import get_settings
from django_durable_jobs.models import Attempt, Job
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Outcome
from django_durable_jobs.rendering import safe_str
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.worker import Worker
from tests.durable.running import COMMITS, SCRIPTS, Runner, async_scripted, row, scripted
from tests.jobs import add, async_add
from tests.waiting import elsewhere

pytestmark = COMMITS


@durable_job
def takes(a: int, b: int = 0, *, c: str = "c") -> str:
    return f"{a} {b} {c}"


# X44: code that ends in unusual ways --------------------------------------------------------------------------------


def _raise(error: BaseException | type[BaseException]) -> Callable[[], None]:
    def script() -> None:
        raise error

    return script


def _recurse() -> None:
    def deeper() -> None:
        deeper()

    deeper()


ENDINGS: dict[str, tuple[Callable[[], None], str]] = {
    "sys.exit": (lambda: sys.exit(3), "SystemExit: 3"),
    "KeyboardInterrupt": (_raise(KeyboardInterrupt), "KeyboardInterrupt: "),
    "GeneratorExit": (_raise(GeneratorExit), "GeneratorExit: "),
    "MemoryError": (_raise(MemoryError("full")), "MemoryError: full"),
    "RecursionError": (_recurse, "RecursionError: maximum recursion depth exceeded"),
    "BaseException": (_raise(BaseException("odd")), "BaseException: odd"),
    "StopIteration": (_raise(StopIteration(1)), "StopIteration: 1"),
    "CancelledError": (_raise(asyncio.CancelledError), "CancelledError: "),
    "exception group": (_raise(ExceptionGroup("both", [ValueError("a"), OSError("b")])), "ExceptionGroup: both (2 sub"),
}


@pytest.mark.parametrize("how", ["in the job", "in a call"])
def test_x44_each_unusual_ending_is_a_failed_attempt(runner: Runner, how: str) -> None:
    for ending, expected in ENDINGS.values():

        def script(ending: Callable[[], None] = ending) -> None:
            if how == "in a call":
                call.using(retries=0)(ending_of, ending)
            ending()

        job = runner.enqueue(script, retries=0)
        assert isinstance(runner.attempt(), Failed)
        assert str(row(job).last_error).startswith(expected.rstrip())


def ending_of(ending: Callable[[], None]) -> None:
    ending()


def test_x44_the_same_on_the_event_loop(runner: Runner) -> None:
    for name, (ending, expected) in ENDINGS.items():
        if name == "StopIteration":
            continue  # Python turns it into a RuntimeError when it leaves a coroutine

        async def script(ending: Callable[[], None] = ending) -> None:
            ending()

        job = runner.enqueue(script, retries=0)
        claimed = runner.claim()
        runner.finish(claimed, runner.run(claimed))
        assert str(row(job).last_error).startswith(expected.rstrip())
        assert row(job).status == "failed"


def test_x44_a_worker_goes_on_after_all_of_them(transactional_db: None) -> None:
    names = [name for name in ENDINGS if name != "StopIteration"]
    bad: list[JobHandle[Any]] = []
    for name in names:
        SCRIPTS[name] = ENDINGS[name][0]
        bad.append(scripted.using(retries=0).enqueue(name))
    SCRIPTS["exit in async"] = _exit_in_async
    SCRIPTS["exit in a task"] = _exit_in_a_task
    bad += [async_scripted.using(retries=0).enqueue(name) for name in ("exit in async", "exit in a task")]
    good: list[JobHandle[int]] = [
        *(add.enqueue(n, 1) for n in range(20)),
        *(async_add.enqueue(n, 1) for n in range(20)),
    ]
    Worker(WorkerOptions(name="goes-on", queues={"default": 3}, drain=True)).run()
    assert {job.status for job in bad} == {"failed"}
    assert [job.result() for job in good] == [*range(1, 21), *range(1, 21)]
    assert {row(job).attempt for job in good} == {1}


async def _exit_in_async() -> None:
    sys.exit(3)


async def _exit_in_a_task() -> None:
    await asyncio.gather(acall.using(retries=0)(_exit_in_async), acall(async_add, 1, 2))


def test_x44_an_exit_in_a_gathered_call_does_not_end_the_event_loop(runner: Runner) -> None:
    runner.enqueue(_exit_in_a_task, retries=0)
    claimed = runner.claim()

    def run() -> Outcome | None:
        try:
            return asyncio.run(runner.executor.run_async(claimed))
        except SystemExit:
            return None

    assert isinstance(elsewhere(run), Failed)


# X45: errors that cannot be shown -----------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Deadly(Exception):
    def __str__(self) -> str:
        raise SystemExit


def _cycle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


HOSTILE: dict[str, tuple[Callable[[], Exception], str]] = {
    "__str__ raises": (Mute, "Mute: <Mute: its text cannot be shown>"),
    "__str__ exits": (Deadly, "Deadly: <Deadly: its text cannot be shown>"),
    "50 MB": (lambda: ValueError("x" * 50_000_000), "ValueError: xxx"),
    "a cycle of causes": (_cycle, "ValueError: first"),
    "NUL and a surrogate": (lambda: ValueError("a\0b\ud800"), "ValueError: a\\x00b\\ud800"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_x45_errors_that_cannot_be_shown_are_stored_cut_or_with_a_placeholder(runner: Runner, kind: str) -> None:
    make, expected = HOSTILE[kind]

    def script() -> None:
        raise make()

    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    stored = Attempt.objects.get()
    assert str(row(job).last_error).startswith(expected)
    assert len(str(row(job).last_error)) < 3000
    assert len(stored.traceback.encode()) <= get_settings().traceback_limit
    runner.enqueue(_nothing)
    assert runner.attempt() == Completed(None)


def _nothing() -> None:
    """Do nothing."""


def test_x45_a_text_that_ends_the_process_when_asked_for_is_replaced() -> None:
    assert safe_str(Deadly(), 100) == "<Deadly: its text cannot be shown>"


# X48: rows that no longer fit the code ------------------------------------------------------------------------------

MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown definition": ({"definition": "tests.worker.gone"}, "UnknownDefinition: No durable job is registered"),
    "argument that is missing": (
        {"payload": "{}"},
        "takes(a, b=…, *, c=…) does not take these arguments; missing: 'a'",
    ),
    "argument that is gone": ({"payload": '{"a":1,"d":2}'}, "unexpected: 'd'"),
    "too many positional": ({"payload": '{"*":[1,2,3]}'}, "3 positional arguments, at most 2 are taken"),
    "given twice": ({"payload": '{"*":[1],"a":1}'}, "'a' is given twice"),
    "keyword only given by position": ({"payload": '{"*":[1,2,"c"]}'}, "at most 2 are taken"),
    "no JSON": ({"payload": '{"a":'}, "is not JSON that can be read"),
    "no object": ({"payload": "[1]"}, "The stored arguments are not an object"),
    "positional that are no list": ({"payload": '{"*":1}'}, "The positional arguments are not a list"),
    "unknown tag": ({"payload": '{"a":{"$what":1}}'}, "this tag is not known"),
    "deep JSON": ({"payload": '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"}, "is not JSON that can be read"),
    "options that are no JSON": ({"options": "{"}, "The stored options of the job cannot be read"),
    "options that are no object": ({"options": "[]"}, "The stored options of the job cannot be read"),
    "option that is gone": ({"options": '{"colour":1}'}, "There is no option 'colour'"),
    "option out of range": ({"options": '{"call_retries":-1}'}, "call_retries"),
    "deep options": ({"options": "[" * 100_000}, "The stored options of the job cannot be read"),
}


def test_x48_a_row_that_does_not_fit_the_code_fails_once_with_a_clear_reason_and_others_run(runner: Runner) -> None:
    for name, (columns, reason) in MISFITS.items():
        job = takes.enqueue(1)
        Job.objects.filter(id=job.id).update(**columns)
        assert isinstance(runner.attempt(), Failed), name
        found = row(job)
        assert (found.status, found.attempt) == ("failed", 1), name
        assert reason in str(found.last_error), name
    good = takes.enqueue(1, c="d")
    assert isinstance(runner.attempt(), Completed)
    assert good.result() == "1 0 d"


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        ('{"a":1}', "1 0 c"),
        ('{"*":[1]}', "1 0 c"),
        ('{"*":[1,2]}', "1 2 c"),
        ('{"*":[1],"c":"x","b":5}', "1 5 x"),
        ('{"c":"x","a":5,"b":6}', "5 6 x"),
    ],
)
def test_x48_arguments_that_fit_another_way_than_at_the_enqueue_are_taken(
    runner: Runner, payload: str, result: str
) -> None:
    job = takes.enqueue(1)
    Job.objects.filter(id=job.id).update(payload=payload)
    assert isinstance(runner.attempt(), Completed)
    assert job.result() == result


# What jobs leave to each other --------------------------------------------------------------------------------------


def test_a_job_that_cannot_even_be_described_does_not_end_its_thread(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is full where nobody expects it: between jobs, while an outcome is made."""
    real = runner.executor._prepare

    def full(*_arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(runner.executor, "_prepare", full)
    for job in (add, async_add):
        handle = job.enqueue(1, 2)
        outcome = runner.attempt()
        assert isinstance(outcome, BackedOff)
        assert outcome.failure.error == "MemoryError: "
        assert row(handle).status == "retrying"
        Job.objects.all().delete()
    monkeypatch.setattr(runner.executor, "_prepare", real)
    good = add.enqueue(1, 2)
    assert runner.attempt() == Completed("3")
    assert good.status == "completed"


def test_x69_the_query_log_stays_empty_between_jobs_and_after_calls(runner: Runner) -> None:
    def query() -> int:
        return Job.objects.count()

    def script() -> None:
        for _ in range(5):
            call(query)

    async def async_script() -> None:
        for _ in range(5):
            await acall(query)
            await Job.objects.acount()

    with override_settings(DEBUG=True):
        jobs = [runner.enqueue(script) for _ in range(5)]
        for _ in jobs:
            claimed = runner.claim()
            outcome = runner.executor.run(claimed)
            assert len(connection.queries_log) == 0
            runner.finish(claimed, outcome)
        runner.enqueue(async_script)
        assert runner.attempt() == Completed(None)
        own = runner.steady._connection._wrapper
        assert own is not None
        assert len(own.queries_log) == 0
