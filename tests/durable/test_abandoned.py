"""What async code leaves behind in a task that it never asks about."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from contextlib import suppress

import pytest

from django_durable_jobs import agather
from django_durable_jobs.outcomes import Completed
from tests.durable.family import double
from tests.durable.running import COMMITS, Runner

pytestmark = COMMITS


def test_a_wait_that_the_code_gave_up_is_not_logged_as_an_error(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def gives_up() -> str:
        await asyncio.wait([asyncio.ensure_future(agather(double.s(1)))])
        return "done"

    runner.enqueue(gives_up)
    assert runner.attempt() == Completed('"done"')
    gc.collect()
    assert [line for line in caplog.messages if "never retrieved" in line] == []


def test_an_error_after_a_wait_that_nobody_asks_about_is_logged_with_the_job(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(wait: Awaitable[object]) -> None:
        with suppress(BaseException):
            await wait
        raise ValueError("odd")

    async def does_not_look() -> str:
        await asyncio.wait([asyncio.ensure_future(fails(agather(double.s(1))))])
        return "done"

    job = runner.enqueue(does_not_look)
    assert runner.attempt() == Completed('"done"')
    (line,) = [one for one in caplog.records if "nobody looked" in one.getMessage()]
    assert "ValueError: odd" in caplog.text
    assert str(job.id) in line.getMessage()
    assert str(vars(line)["job"]) == str(job.id)
