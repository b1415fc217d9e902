"""What async code outside of jobs calls: the same orders as in sync code, without blocking the event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_durable_jobs import (
    TransitionRefused,
    aapprove,
    acancel,
    aenqueue_many,
    afork,
    areject,
    aretry,
    call,
    pending_approvals,
    wait_for_approval,
)
from django_durable_jobs.errors import JobNotFound
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.outcomes import Completed
from tests.durable.running import COMMITS, Runner, row
from tests.jobs import add, noop

pytestmark = COMMITS

ORDERS: dict[str, Any] = {"acancel": acancel, "aretry": aretry, "afork": afork}


def in_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine as an async view's would be, on the test's own connection."""

    async def run() -> Any:
        return await coroutine

    return async_to_sync(run)()


def test_many_are_stored_at_once() -> None:
    jobs = in_loop(aenqueue_many([add.s(1, 2), noop.s(3)]))
    assert [row(job).definition for job in jobs] == [add.definition.name, noop.definition.name]
    assert len(in_loop(add.aenqueue_many([(1, 2), {"a": 3, "b": 4}]))) == 2


def test_a_job_is_cancelled_retried_and_forked(runner: Runner) -> None:
    def script() -> int:
        return call(add, 1, 2)

    job = runner.enqueue(script)
    assert in_loop(acancel(job, reason="not wanted")).cancelled == [job.id]
    in_loop(aretry(job))
    assert row(job).status == "pending"
    assert runner.attempt() == Completed("3")
    other = in_loop(afork(job, from_call=1))
    assert row(other).origin_id == job.id
    with pytest.raises(TransitionRefused):
        in_loop(acancel(job))


@pytest.mark.parametrize(("decide", "approved"), [(aapprove, True), (areject, False)])
def test_what_a_job_asks_is_decided(runner: Runner, decide: Any, approved: bool) -> None:
    def script() -> bool:
        return wait_for_approval("Pay?", timeout=timedelta(hours=1)).approved

    job = runner.enqueue(script)
    runner.attempt()
    in_loop(decide(pending_approvals(job).get(), by="ann", comment="well"))
    assert runner.attempt() == Completed("true" if approved else "false")


@pytest.mark.parametrize("order", ORDERS)
def test_a_job_that_is_not_there_is_said_so(order: str) -> None:
    with pytest.raises(JobNotFound):
        in_loop(ORDERS[order](new_job_id()))
