"""``progress()``: how far a job has come, for people; cheap, and a place where orders are heard (D5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import connection, transaction

from django_durable_jobs import Progress, aprogress, call, current_job, progress
from django_durable_jobs.clock import SYSTEM
from django_durable_jobs.durable import progress as module
from django_durable_jobs.errors import JobCancelled, NotInJob, OptionError
from django_durable_jobs.models import Job
from django_durable_jobs.operations.cancel import cancel
from django_durable_jobs.operations.values import save_progress
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Lost
from tests.durable.committing import take_away
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import add
from tests.waiting import elsewhere

pytestmark = COMMITS


class Written:
    """The progress that is stored, noted by the job as it goes."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def look(self) -> None:
        job_id = current_job().id

        def read() -> None:
            found = Job.objects.get(id=job_id).progress
            self.seen.append(found and found["current"])

        elsewhere(read)


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moves this process's clock, which stands still otherwise: a busy machine must not write more."""
    began, moved = SYSTEM.monotonic(), [0.0]
    monkeypatch.setattr(type(SYSTEM), "monotonic", lambda _self: began + moved[0])

    def move(seconds: float) -> None:
        moved[0] += seconds

    return move


def test_the_handle_shows_what_was_written_last(runner: Runner) -> None:
    def script() -> None:
        progress(0, 10, "beginning")
        progress(10, 10, "done")

    job = runner.enqueue(script)
    assert job.progress is None
    assert isinstance(runner.attempt(), Completed)
    assert job.progress == Progress(10, 10, "done")
    assert row(job).progress == {"current": 10, "total": 10, "message": "done"}
    assert stored(job) == []


def test_an_async_job_says_it_from_any_of_its_tasks(runner: Runner) -> None:
    async def part(number: int) -> None:
        await aprogress(number, 3)

    async def script() -> None:
        await asyncio.gather(*(part(number) for number in range(1, 4)))

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert job.progress == Progress(3, 3, "")


def test_first_and_full_are_written_at_once_and_others_four_times_a_second(
    runner: Runner, written: Written, later: Any
) -> None:
    def script() -> None:
        for current, pause in [(1, 0), (2, 0.1), (3, 0.2), (4, 0), (5, 0.3), (5, 0), (6, 0), (6, 1)]:
            progress(current, 6)
            written.look()
            later(pause)

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert written.seen == [1, 1, 1, 4, 4, 5, 6, 6]


def test_a_job_that_says_it_for_each_item_writes_little(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Any] = []

    def counted(*given: Any, **named: Any) -> bool:
        writes.append(given)
        return save_progress(*given, **named)

    monkeypatch.setattr(module, "save_progress", counted)
    monkeypatch.setattr(module, "PAUSE", 3600)

    def script() -> None:
        for number in range(10_000):
            progress(number, 9_999)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert job.progress == Progress(9_999, 9_999, "")
    assert len(writes) == 2


def test_it_stays_after_a_failure_and_takes_no_place_among_the_calls(runner: Runner) -> None:
    def script() -> int:
        progress(1, 2)
        found = call(add, 1, 2)
        if current_job().attempt == 1:
            raise ValueError("no")
        return found

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert job.progress == Progress(1, 2, "")
    assert runner.attempt() == Completed("3")
    assert stored(job) == [("1", "add")]


def test_an_order_to_cancel_is_seen_by_the_write(runner: Runner) -> None:
    def script() -> None:
        elsewhere(lambda: cancel(job.id))
        progress(1)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert job.progress is None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_order_that_the_worker_knows_of_is_seen_without_a_write(runner: Runner, kind: str) -> None:
    def script() -> None:
        progress(1)
        current_job().interrupt(JobCancelled("by an order"))
        progress(2)

    async def async_script() -> None:
        await aprogress(1)
        current_job().interrupt(JobCancelled("by an order"))
        await aprogress(2)

    job = runner.enqueue(script if kind == "sync" else async_script)
    assert isinstance(runner.attempt(), Cancelled)
    assert job.progress == Progress(1, None, "")


def test_i10_a_lost_attempt_writes_nothing(runner: Runner) -> None:
    def script() -> None:
        elsewhere(lambda: take_away(job.id))
        progress(1)

    job = runner.enqueue(script)
    assert runner.attempt() == Lost()
    assert job.progress is None


def test_inside_a_transaction_it_is_written_apart_where_two_can_write(runner: Runner, written: Written) -> None:
    def script() -> None:
        with transaction.atomic():
            progress(1, 2)
            written.look()
            transaction.set_rollback(True)
        progress(2, 2)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert written.seen == [1 if connection.features.has_select_for_update else None]
    assert job.progress == Progress(2, 2, "")


def test_a_transaction_that_has_the_jobs_row_locked_does_not_wait_for_itself(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            Job.objects.filter(id=current_job().id).update(tags={"a": 1})
            progress(1, 2)
        progress(2, 2)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert (job.progress, row(job).tags) == (Progress(2, 2, ""), {"a": 1})


@pytest.mark.parametrize(
    "given",
    [
        (-1,),
        (float("nan"),),
        (float("inf"),),
        (1, float("nan")),
        (1, -1),
        (2, 1),
        (True,),
        ("1",),
        (None,),
        (10**16,),
        (10**400,),
        (1, 2, 3),
        (1, 2, None),
    ],
    ids=repr,
)
def test_what_is_no_progress_is_refused(runner: Runner, given: Any) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="progress"):
            progress(*given)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert job.progress is None


def test_a_message_is_cut_and_made_storable(runner: Runner) -> None:
    def script() -> None:
        progress(0, 0, "\x00\ud800" + "x" * 10_000)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert job.progress is not None
    assert len(job.progress.message) <= 500


def test_outside_of_a_job_it_is_said_so() -> None:
    with pytest.raises(NotInJob, match=r"progress\(\) works inside a running durable job only"):
        progress(1)


async def test_on_the_event_loop_it_says_what_to_write(runner: Runner) -> None:
    with pytest.raises(NotInJob, match="aprogress"):
        progress(1)
    with pytest.raises(NotInJob, match=r"aprogress\(\) works inside"):
        await aprogress(1)
