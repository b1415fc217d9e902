"""What comes at the very moment in which a job parks is never lost, and never given twice (X4, I13, I16).

No `wake_forgotten` helps here: the job must be pending as soon as both sides are through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from django_durable_jobs import (
    JobHandle,
    approve,
    await_for_message,
    emit,
    faults,
    send_message,
    wait_for_approval,
    wait_for_event,
    wait_for_message,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Approval, EventWait, Message
from django_durable_jobs.outcomes import Completed, Outcome, Parked
from tests.durable.running import COMMITS, Runner, row, stored
from tests.reliability.outages import lose_answers
from tests.waiting import together

pytestmark = [COMMITS, pytest.mark.timeout(120)]

HOUR = timedelta(hours=1)
ROUNDS = 12
LONG_ENOUGH = 1.0
"""Seconds in which the other side would be through, were it not for the lock that it must wait for."""


def for_message() -> Any:
    return wait_for_message("go", timeout=HOUR)


def for_event() -> Any:
    return wait_for_event("go", timeout=HOUR)


def for_approval() -> Any:
    return wait_for_approval("go", timeout=HOUR).comment


def send(job: JobHandle[Any]) -> None:
    send_message(job, "go", "now")


def tell(_job: JobHandle[Any]) -> None:
    emit("go", "now")


def decide(job: JobHandle[Any]) -> None:
    approve(Approval.objects.get(job_id=job.id), comment="now")


WAITS = pytest.mark.parametrize(
    ("script", "other_side"),
    [(for_message, send), (for_event, tell), (for_approval, decide)],
    ids=["message", "event", "approval"],
)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@WAITS
def test_what_comes_while_the_job_is_being_parked_is_not_lost(
    runner: Runner, script: Any, other_side: Callable[[JobHandle[Any]], None]
) -> None:
    """The other side begins inside the transaction that parks the job, after it has looked for what has come."""
    job = runner.enqueue(script)
    claimed = runner.claim()
    outcome = runner.run(claimed)
    threads: list[threading.Thread] = []

    def begin(point: str) -> None:
        if point == "parked" and not threads:
            threads.append(in_thread(lambda: other_side(job)))
            threads[0].join(LONG_ENOUGH)

    faults.install(begin)
    try:
        runner.finish(claimed, outcome)
    finally:
        faults.install(None)
    threads[0].join(20)
    assert not threads[0].is_alive()
    assert row(job).status == "pending"
    assert runner.attempt() == Completed('"now"')


@WAITS
def test_whichever_side_is_first_the_job_goes_on(
    runner: Runner, script: Any, other_side: Callable[[JobHandle[Any]], None]
) -> None:
    for _ in range(ROUNDS):
        job = runner.enqueue(script)
        claimed = runner.claim()
        outcome = runner.run(claimed)
        together(lambda: runner.finish(claimed, outcome), lambda: other_side(job))  # noqa: B023 -- run at once
        assert row(job).status == "pending"
        assert runner.attempt() == Completed('"now"')
    assert not EventWait.objects.exists()


def test_a_message_sent_while_the_job_looks_is_not_lost(runner: Runner) -> None:
    for _ in range(ROUNDS):
        job = runner.enqueue(for_message)
        claimed = runner.claim()
        outcome: Outcome | None
        outcome, _none = together(lambda: runner.run_here(claimed), lambda: send(job))  # noqa: B023 -- run at once
        assert outcome is not None
        runner.finish(claimed, outcome)
        if isinstance(outcome, Parked):
            assert row(job).status == "pending"
            outcome = runner.attempt()
        assert outcome == Completed('"now"')


def test_an_event_emitted_while_the_job_looks_is_not_lost(runner: Runner) -> None:
    for _ in range(ROUNDS):
        job = runner.enqueue(for_event)
        claimed = runner.claim()
        outcome: Outcome | None
        outcome, _none = together(lambda: runner.run_here(claimed), lambda: tell(job))  # noqa: B023 -- run at once
        assert outcome is not None
        runner.finish(claimed, outcome)
        if isinstance(outcome, Parked):
            assert row(job).status == "pending"
            outcome = runner.attempt()
        assert outcome == Completed('"now"')


def test_messages_of_many_senders_are_all_got_and_each_once(runner: Runner) -> None:
    def script() -> list[Any]:
        return sorted(wait_for_message("n") for _ in range(12))

    job = runner.enqueue(script)

    def sender(first: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(first, first + 3):
                send_message(job, "n", number)

        return run

    assert isinstance(runner.attempt(), Parked)
    together(*(sender(first) for first in (0, 3, 6, 9)))
    assert runner.attempt() == Completed("[0,1,2,3,4,5,6,7,8,9,10,11]")
    by_call = Message.objects.order_by("id").values_list("consumed_key", flat=True)
    assert list(by_call) == [str(n) for n in range(1, 13)]


# Lost answers -----------------------------------------------------------------------------------------------


async def async_for_message() -> Any:
    return await await_for_message("go", timeout=HOUR)


@pytest.mark.parametrize("loss", [(fate, nth) for fate in ("answer", "request", "conflict") for nth in (1, 2)], ids=str)
@pytest.mark.parametrize("script", [for_message, async_for_message, for_event])
def test_x4_a_lost_answer_while_it_is_taken_takes_nothing_twice(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, script: Any, loss: tuple[str, int]
) -> None:
    """The first transaction fixes the deadline, the second takes what has come."""
    fate, nth = loss
    job = runner.enqueue(script)
    for payload in ("first", "second"):
        send_message(job, "go", payload)
        emit("go", payload)
    claimed = runner.claim()
    with monkeypatch.context() as patch:
        doors = ("in_own_transaction",)
        losses = lose_answers(patch, dialect, doors, lambda _door, number: fate if number == nth else None)
        outcome = runner.run(claimed)
    assert losses.lost["in_own_transaction"] == 1
    assert outcome == Completed('"first"')
    runner.finish(claimed, outcome)
    assert stored(job) == [("1", "go"), ("1.0", "go")]
    assert Message.objects.filter(job_id=job.id, consumed_at=None).count() == (2 if script is for_event else 1)
    assert not EventWait.objects.exists()


@pytest.mark.parametrize("fate", ["answer", "request"])
def test_x4_a_lost_answer_while_it_is_asked_asks_once(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    job = runner.enqueue(for_approval)
    claimed = runner.claim()
    with monkeypatch.context() as patch:
        lose_answers(patch, dialect, ("in_own_transaction",), lambda _door, nth: fate if nth == 1 else None)
        outcome = runner.run(claimed)
    assert isinstance(outcome, Parked)
    runner.finish(claimed, outcome)
    decide(job)
    assert runner.attempt() == Completed('"now"')
