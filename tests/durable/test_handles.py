"""What the code that enqueued a job sees of it: `JobHandle`; and what a reloaded module means for it."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from django_durable_jobs import JobFailed, JobHandle, JobNotFound, OptionError, UnknownDefinition, get_job, registry
from django_durable_jobs.outcomes import Completed, Failed
from django_durable_jobs.states import Status
from tests.durable.running import COMMITS, Runner
from tests.durable.test_values import ORDER, Color, Size, echo_order
from tests.jobs import add, noop
from tests.waiting import together

pytestmark = COMMITS


def test_a_result_comes_with_the_types_of_its_annotation(runner: Runner) -> None:
    job = echo_order.enqueue(ORDER, Color.RED, [Size(1, 2)])
    before = job.status
    assert before is Status.PENDING
    runner.attempt()
    assert job.status is Status.COMPLETED
    assert job.result() == (ORDER, Color.RED, [Size(1, 2)])


def test_a_job_without_a_result_gives_none(runner: Runner) -> None:
    job = noop.enqueue(1)
    runner.attempt()
    assert job.result() is None


def test_a_result_that_is_not_there_in_time_is_a_timeout_that_names_the_status(runner: Runner) -> None:
    job = add.enqueue(1, 2)
    with pytest.raises(TimeoutError, match=rf"Job {job.id} is pending: no result within 0.05 seconds"):
        job.result(timeout=0.05)


def test_result_waits_for_a_job_that_ends_meanwhile(runner: Runner) -> None:
    job = add.enqueue(1, 2)
    asked = threading.Event()

    def ask() -> int:
        asked.set()
        return job.result(timeout=None)

    def answer() -> int:
        assert asked.wait(10)
        runner.finish(claimed := runner.claim(), runner.run_here(claimed))
        return 0

    assert together(ask, answer) == [3, 0]


async def _aresult(job: JobHandle[int], timeout: float | None) -> int:  # noqa: ASYNC109 -- what is tested
    try:
        return await job.aresult(timeout)
    finally:
        await sync_to_async(connections.close_all)()  # of the thread that asgiref keeps for such code


def test_aresult_does_the_same_on_a_loop(runner: Runner) -> None:
    job = add.enqueue(1, 2)
    with pytest.raises(TimeoutError):
        asyncio.run(_aresult(job, 0.02))
    runner.attempt()
    assert asyncio.run(_aresult(job, None)) == 3


def test_the_result_of_a_failed_job_is_an_error_that_says_why(runner: Runner) -> None:
    def script() -> None:
        raise ValueError("no")

    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    with pytest.raises(JobFailed, match=r"\(tests.durable.running.scripted\) is failed: ValueError: no"):
        job.result()


def test_a_job_whose_transaction_rolled_back_was_never_there(runner: Runner) -> None:
    handles: list[JobHandle[int]] = []
    with transaction.atomic():
        handles.append(add.enqueue(1, 2))
        transaction.set_rollback(True)
    with pytest.raises(JobNotFound, match="not committed, or deleted"):
        handles[0].result()


def test_a_result_of_a_definition_that_is_gone_is_given_plainly(runner: Runner) -> None:
    job = add.enqueue(1, 2)
    runner.attempt()
    assert JobHandle(job.id, "vanished").result() == 3
    with pytest.raises(JobNotFound):
        JobHandle(UUID(int=0), "vanished").job()


# Reloading ----------------------------------------------------------------------------------------------------------

FIRST = """
from django_durable_jobs import durable_job

@durable_job(name="tests.reloaded")
def work() -> str:
    return "first"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with one durable job, on a path of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "reloaded_jobs.py").write_text(FIRST)
    yield importlib.import_module("reloaded_jobs")
    del sys.modules["reloaded_jobs"]
    del registry._definitions["tests.reloaded"]


def test_a_reloaded_module_replaces_its_jobs_and_waiting_jobs_run_the_new_code(
    runner: Runner, module: ModuleType
) -> None:
    job = module.work.enqueue()
    path = Path(str(module.__file__))
    path.write_text(FIRST.replace('"first"', '"second"'))
    importlib.reload(module)
    assert runner.attempt() == Completed('"second"')
    assert job.result() == "second"
    assert get_job("tests.reloaded")() == "second"


def test_a_name_that_is_not_registered_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownDefinition, match=r"Did you mean 'tests.jobs.add'"):
        get_job("tests.jobs.addd")


@pytest.mark.parametrize("timeout", [float("nan"), -1, "5", True, 10**400], ids=lambda value: repr(value)[:5])
def test_a_timeout_that_is_none_is_refused_at_once(timeout: Any) -> None:
    job = noop.enqueue(1)
    with pytest.raises(OptionError, match="result's timeout must"):
        job.result(timeout)
    with pytest.raises(OptionError, match="result's timeout must"):
        asyncio.run(job.aresult(timeout))
