"""Chunks: many jobs in one call of a function, each with an outcome, a lease and an attempt of its own (F15)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import (
    Backoff,
    ChunkItem,
    JobHandle,
    NoRetry,
    OptionError,
    RetryAfter,
    Snooze,
    acall,
    call,
    cancel,
    current_job,
    durable_job,
)
from django_durable_jobs.definitions import define
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.rows import Claimed, Held
from django_durable_jobs.durable.recorder import Recorder
from django_durable_jobs.errors import ArgumentError, DefinitionError, Interrupted, SerializationError
from django_durable_jobs.models import Attempt, Job
from django_durable_jobs.operations.checkpoints import SteadySave
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Lost, Outcome, Released, Snoozed
from django_durable_jobs.worker import sessions
from django_durable_jobs.worker.chunks import ChunkExecutor
from django_durable_jobs.worker.leases import Leases
from tests.factories import LEASE, claim_of, make_worker
from tests.waiting import elsewhere

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

Items = list[ChunkItem[int, Any]]
WORK: list[Callable[[Items], Any]] = []
CALLS: list[list[int]] = []
MINUTE = timedelta(minutes=1)


@dataclass
class Point:
    x: int
    y: int


@durable_job(chunk=10, retries=1, backoff=Backoff.none())
def together(items: list[ChunkItem[int, Any]]) -> None:
    """Do what the test says."""
    CALLS.append([item.argument for item in items])
    return WORK[0](items)  # type: ignore[no-any-return]


@durable_job(chunk=10, retries=1, backoff=Backoff.none())
async def async_together(items: list[ChunkItem[int, Any]]) -> None:
    """Do what the test says on the event loop."""
    CALLS.append([item.argument for item in items])
    value = WORK[0](items)
    if asyncio.iscoroutine(value):
        value = await value
    return value  # type: ignore[no-any-return]


@durable_job(chunk=2)
def typed(items: list[ChunkItem[Point, Point]]) -> None:
    """Mirror points."""
    for item in items:
        item.result = Point(item.argument.y, item.argument.x)


class ChunkRunner:
    """Claims the jobs of a chunk and runs them as a worker does."""

    def __init__(self) -> None:
        sessions.install()
        self.worker = make_worker()
        self.leases = Leases()
        steady = SteadySave(LEASE)
        self.executor = ChunkExecutor(self.leases, Recorder(steady), self.worker.name, steady=steady)

    def claim(self) -> list[Claimed]:
        jobs = claim(claim_of(self.worker, 10))
        self.leases.add(jobs)
        return jobs

    def run(self, jobs: list[Claimed]) -> list[Outcome]:
        """Run them and store the endings; return the outcomes in the order of the jobs."""

        def work() -> list[tuple[Claimed, Outcome]]:
            definition = self.executor.definition_of(jobs[0])
            if definition is not None and definition.is_async:
                return asyncio.run(self.executor.run_chunk_async(jobs))
            return self.executor.run_chunk(jobs)

        ended = elsewhere(work)
        self.leases.end(jobs)
        finish([Ending(job, outcome) for job, outcome in ended if not isinstance(outcome, Lost)])
        by_id = {job.id: outcome for job, outcome in ended}
        return [by_id[job.id] for job in jobs]


@pytest.fixture
def runner() -> Iterator[ChunkRunner]:
    CALLS.clear()
    WORK.clear()
    runner = ChunkRunner()
    yield runner
    runner.executor.close()


@pytest.fixture(params=[together, async_together], ids=["sync", "async"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.param


def enqueued(job: Any, count: int) -> list[JobHandle[Any]]:
    handles: list[JobHandle[Any]] = job.enqueue_many([(number,) for number in range(count)])
    return handles


def error_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed | BackedOff)
    return outcome.failure.error


def test_each_job_has_its_own_result_and_its_own_error(runner: ChunkRunner, job: Any) -> None:
    def work(items: Items) -> None:
        for item in items:
            if item.argument % 2:
                item.fail(ValueError(f"odd: {item.argument}"))
            else:
                item.result = item.argument * 10

    WORK.append(work)
    handles = enqueued(job, 4)
    outcomes = runner.run(runner.claim())
    assert CALLS == [[0, 1, 2, 3]]
    assert outcomes[::2] == [Completed("0"), Completed("20")]
    assert [error_of(outcome) for outcome in outcomes[1::2]] == ["ValueError: odd: 1", "ValueError: odd: 3"]
    assert [str(handle.status) for handle in handles] == ["completed", "retrying", "completed", "retrying"]
    assert handles[2].result() == 20
    assert Attempt.objects.count() == 2
    assert {one.attempt for one in Job.objects.all()} == {1}


def test_nothing_said_is_completed_without_a_result(runner: ChunkRunner, job: Any) -> None:
    WORK.append(lambda _items: None)
    enqueued(job, 2)
    assert runner.run(runner.claim()) == [Completed(None)] * 2


def test_an_error_of_the_function_fails_those_of_which_nothing_was_said(runner: ChunkRunner, job: Any) -> None:
    def work(items: Items) -> None:
        items[0].result = "done"
        items[1].fail(KeyError("mine"))
        raise OSError("search is down")

    WORK.append(work)
    enqueued(job, 4)
    first, second, *rest = runner.run(runner.claim())
    assert first == Completed('"done"')
    assert error_of(second) == "KeyError: 'mine'"
    assert [error_of(outcome) for outcome in rest] == ["OSError: search is down"] * 2
    assert all(isinstance(outcome, BackedOff) for outcome in rest)


def test_what_is_said_last_counts_and_orders_mean_what_they_mean_elsewhere(runner: ChunkRunner) -> None:
    def work(items: Items) -> None:
        items[0].fail(ValueError("no"))
        items[0].result = 1
        items[1].result = 1
        items[1].fail(NoRetry("for good"))
        items[2].fail(RetryAfter(60, "later"))
        items[3].fail(Snooze(60))
        assert items[1].result is None
        assert isinstance(items[1].error, NoRetry)
        assert items[0].error is None

    WORK.append(work)
    enqueued(together, 4)
    first, second, third, fourth = runner.run(runner.claim())
    assert first == Completed("1")
    assert isinstance(second, Failed)
    assert isinstance(third, BackedOff)
    assert third.delay == MINUTE
    assert fourth == Snoozed(MINUTE)


def test_a_result_that_cannot_be_stored_ends_its_own_job_only(runner: ChunkRunner, job: Any) -> None:
    def work(items: Items) -> None:
        for item in items:
            item.result = object() if item.argument == 1 else "fine"

    WORK.append(work)
    enqueued(job, 3)
    first, second, third = runner.run(runner.claim())
    assert first == third == Completed('"fine"')
    assert isinstance(second, Failed)
    assert SerializationError.__name__ in error_of(second)


def test_a_function_that_returns_something_is_told_how_results_are_given(runner: ChunkRunner, job: Any) -> None:
    def work(items: Items) -> list[int]:
        items[0].result = 0
        return [1, 2]

    WORK.append(work)
    enqueued(job, 2)
    first, second = runner.run(runner.claim())
    assert first == Completed("0")
    assert isinstance(second, Failed), "another attempt would return the same"
    assert "sets item.result" in error_of(second)


def test_arguments_that_cannot_be_read_any_more_fail_their_own_job_only(runner: ChunkRunner) -> None:
    WORK.append(lambda _items: None)
    handles = enqueued(together, 3)
    Job.objects.filter(id=handles[1].id).update(payload='{"other":1}')
    outcomes = runner.run(runner.claim())
    assert CALLS == [[0, 2]]
    assert [type(outcome) for outcome in outcomes] == [Completed, Failed, Completed]


def test_each_job_has_its_own_attempt_token_and_id(runner: ChunkRunner) -> None:
    seen: list[tuple[Any, int, int]] = []

    def work(items: Items) -> None:
        seen.extend((item.id, item.attempt, item.fencing_token) for item in items)
        if len(seen) == 2:
            items[0].fail(ValueError("again"))

    WORK.append(work)
    first, second = enqueued(together, 2)
    runner.run(runner.claim())
    Job.objects.filter(id=first.id).update(status="pending", run_at=None)
    third = together.enqueue(7)
    runner.run(runner.claim())
    assert seen == [(first.id, 1, 1), (second.id, 1, 1), (first.id, 2, 2), (third.id, 1, 1)]


def test_a_lost_lease_drops_its_own_outcome_only(runner: ChunkRunner, job: Any) -> None:
    claimed: list[Claimed] = []

    def work(items: Items) -> None:
        runner.leases.mark_lost({Held(claimed[1].id, claimed[1].token)}, "another worker has it")
        assert [item.interrupted for item in items] == [False, True, False]
        for item in items[:2]:
            item.result = "mine"
        raise ValueError("no")

    WORK.append(work)
    handles = enqueued(job, 3)
    claimed += runner.claim()
    Job.objects.filter(id=claimed[1].id).update(token=5)
    outcomes = runner.run(claimed)
    assert outcomes[0] == Completed('"mine"')
    assert [str(handle.status) for handle in handles] == ["completed", "running", "retrying"]
    assert Job.objects.get(id=claimed[1].id).result is None


def test_a_job_that_was_cancelled_before_is_not_among_the_items(runner: ChunkRunner, job: Any) -> None:
    WORK.append(lambda _items: None)
    handles = enqueued(job, 3)
    claimed = runner.claim()
    cancel(handles[1].id)
    again = [row._replace(cancel_requested_at=handles[1].job().cancel_requested_at) for row in claimed[1:2]]
    runner.run([claimed[0], again[0], claimed[2]])
    assert CALLS == [[0, 2]]
    assert [str(handle.status) for handle in handles] == ["completed", "cancelled", "completed"]


def test_a_chunk_that_is_interrupted_goes_back_with_its_attempts(runner: ChunkRunner) -> None:
    async def work(items: Items) -> None:
        items[0].result = "done"
        runner.leases.interrupt(set(runner.leases.held()), Interrupted("The worker stops."))
        raise asyncio.CancelledError

    WORK.append(work)
    handles = enqueued(async_together, 3)
    assert runner.run(runner.claim()) == [Completed('"done"'), Released(), Released()]
    assert [(row.status, row.attempt) for row in (handle.job() for handle in handles)] == [
        ("completed", 1),
        ("pending", 0),
        ("pending", 0),
    ]


def test_jobs_of_a_chunk_that_dies_are_company_and_run_alone(runner: ChunkRunner, dialect: Dialect) -> None:
    """I11: nobody saw which of them was guilty."""
    enqueued(together, 3)
    runner.claim()
    dialect.clock_offset += 2 * LEASE
    assert len(rescue().returned) == 3
    assert set(Job.objects.values_list("status", "attempt", "rescues")) == {("pending", 0, 1)}
    assert claim(claim_of(runner.worker, 10)) == []


@pytest.mark.parametrize("what", [current_job, lambda: call(len, "a")], ids=["current_job", "call"])
def test_there_is_no_single_job_in_a_chunk(runner: ChunkRunner, what: Callable[[], Any]) -> None:
    def work(_items: Items) -> None:
        what()

    WORK.append(work)
    enqueued(together, 2)
    outcomes = runner.run(runner.claim())
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert "needs a single job, and tests.worker.test_chunks.together runs many" in error_of(outcomes[0])


def test_there_is_no_single_job_in_an_async_chunk(runner: ChunkRunner) -> None:
    async def work(_items: Items) -> None:
        await acall(len, "a")

    WORK.append(work)
    enqueued(async_together, 2)
    assert "needs a single job" in error_of(runner.run(runner.claim())[1])


def test_x35_a_chunk_that_leaves_a_transaction_open_fails_since_its_writes_are_gone(runner: ChunkRunner) -> None:
    def work(_items: Items) -> None:
        transaction.atomic().__enter__()
        Job.objects.update(tags=["left"])

    WORK.append(work)
    enqueued(together, 2)
    outcomes = runner.run(runner.claim())
    assert all(isinstance(outcome, Failed) and "OpenTransaction" in error_of(outcome) for outcome in outcomes)
    assert set(Job.objects.values_list("tags", flat=True)) == {None}


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt(), MemoryError("full")])
def test_x44_unusual_endings_fail_the_jobs_and_not_the_worker(runner: ChunkRunner, job: Any, ending: Any) -> None:
    def work(_items: Items) -> None:
        raise ending

    WORK.append(work)
    enqueued(job, 2)
    assert all(error_of(outcome).startswith(type(ending).__name__) for outcome in runner.run(runner.claim()))


def test_argument_and_result_have_the_types_of_the_annotation(runner: ChunkRunner) -> None:
    handle = typed.enqueue(Point(1, 2))
    runner.run(runner.claim())
    assert handle.result() == Point(2, 1)
    with pytest.raises(ArgumentError, match="parameter 'argument' expects"):
        typed.enqueue("x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="positional arguments"):
        typed.enqueue(Point(1, 2), Point(1, 2))  # type: ignore[call-arg]


def test_the_function_can_be_called_plainly_in_a_test() -> None:
    items = [ChunkItem[Point, Point](Point(1, 2))]
    typed(items)  # type: ignore[arg-type]
    assert items[0].result == Point(2, 1)
    with pytest.raises(OptionError, match="stands for no job"):
        _ = items[0].attempt
    with pytest.raises(OptionError, match="needs an exception"):
        items[0].fail("no")  # type: ignore[arg-type]


def no_items() -> None:
    """Take nothing."""


def two(items: list[ChunkItem[int, None]], more: int) -> None:
    """Take too much."""


def single(item: int) -> None:
    """Take one argument, as other jobs do."""


def keyword(*, items: list[ChunkItem[int, None]]) -> None:
    """Take it by keyword."""


def unsaid(items) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- what the test is about
    """Say nothing of it."""


@pytest.mark.parametrize("function", [no_items, two, single, keyword])
def test_n10_a_function_that_cannot_take_a_chunk_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(DefinitionError, match=rf"write def {function.__name__}\(items: list\[ChunkItem\["):
        define(function, options={"chunk": 5})


def test_jobs_of_a_chunk_do_not_end_in_one_transaction() -> None:
    with pytest.raises(OptionError, match="chunk and atomic exclude each other"):
        define(unsaid, options={"chunk": 5}, atomic=True)


def test_a_function_that_says_nothing_of_its_items_takes_any() -> None:
    codec = define(unsaid, options={"chunk": 5}).arguments
    assert codec.load(codec.dump(({"a": 1},), {}, 1000)) == (({"a": 1},), {})


@pytest.mark.parametrize("size", [0, -1, 1001, 1.5, True, "10", float("nan")])
def test_n10_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(OptionError, match="chunk must be a whole number from 1 to 1000"):
        define(unsaid, options={"chunk": size})


@pytest.mark.parametrize("timeout", [-1, float("nan"), 301, timedelta(hours=1), "soon", True])
def test_n10_a_time_to_grow_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(OptionError, match="chunk_timeout"):
        define(unsaid, options={"chunk": 5, "chunk_timeout": timeout})


def test_call_cannot_run_a_function_of_chunks(runner: ChunkRunner) -> None:
    from tests.durable.running import SCRIPTS, scripted  # noqa: PLC0415 -- one job of another kind

    def script() -> None:
        with pytest.raises(DefinitionError, match="takes chunks of jobs"):
            call(together, 1)

    SCRIPTS["calls a chunk"] = script
    scripted.enqueue("calls a chunk")
    (job,) = runner.claim()
    assert elsewhere(lambda: runner.executor.run(job)) == Completed(None)
