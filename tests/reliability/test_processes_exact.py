"""Atomic steps and jobs when a worker dies, or its server's answer does not come (X3, X4, I16): effects counted."""

from __future__ import annotations

from typing import Any

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Attempt
from tests.databases import URL_VARIABLE
from tests.durable.committing import effects
from tests.factories import present
from tests.reliability.harness import Workers
from tests.reliability.orders import Action, Order
from tests.reliability.process_jobs import async_effects_in_turn, effect_and_end, effects_in_turn
from tests.reliability.proxy import Proxy

NAMES = ["a", "b", "c"]

JOBS = pytest.mark.parametrize(
    "job", [effects_in_turn, async_effects_in_turn, effect_and_end], ids=lambda job: job.__name__
)


@JOBS
@pytest.mark.parametrize("action", ["kill", "exit"])
def test_x3_a_worker_that_dies_before_the_commit_leaves_each_effect_once(
    workers: Workers, job: Any, action: Action
) -> None:
    nth = 1 if job is effect_and_end else 2
    order = Order("before-commit", action, str(workers.folder / "order"), nth, job.definition.name)
    handle = job.enqueue(workers.ledger, NAMES)
    doomed = workers.start("--queue", "default=4", orders=[order], ready=False)
    assert doomed.ended(20) == (-9 if action == "kill" else 9), doomed.output
    assert effects() == NAMES[: nth - 1]
    workers.start("--queue", "default=4")
    assert handle.result(30) == NAMES
    assert effects() == NAMES
    assert present(handle.id).attempt == 2
    if nth == 2:
        assert workers.lines() == ["attempt 1", "ran a", "ran b", "attempt 2", "ran b", "ran c"]


@JOBS
def test_a_worker_that_dies_after_the_commit_runs_no_step_again(workers: Workers, job: Any) -> None:
    order = Order("after-commit", "kill", str(workers.folder / "order"), 1, job.definition.name)
    handle = job.enqueue(workers.ledger, NAMES)
    doomed = workers.start("--queue", "default=4", orders=[order], ready=False)
    assert doomed.ended(20) == -9, doomed.output
    workers.start("--queue", "default=4")
    assert handle.result(30) == NAMES
    assert effects() == NAMES
    assert workers.lines("ran") == [f"ran {name}" for name in NAMES]


@JOBS
def test_x4_a_commit_whose_answer_never_came_is_not_made_again(workers: Workers, dialect: Dialect, job: Any) -> None:
    if not dialect.has_parallel_writers:
        pytest.skip("a database in a file has no connection that could break")
    with Proxy() as proxy:
        proxy.open()
        proxy.keep_answer_to_commit(b"'b'")
        worker = workers.start("--queue", "default=4", environment={URL_VARIABLE: proxy.url})
        handle = job.enqueue(workers.ledger, NAMES)
        assert handle.result(30) == NAMES
        assert proxy.kept_an_answer.is_set()
        assert effects() == NAMES
        assert workers.lines() == ["attempt 1", *(f"ran {name}" for name in NAMES)]
        assert not Attempt.objects.exists()
        worker.says("is committed, although that ended with an error")
