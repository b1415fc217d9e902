"""The fan-in: whichever way the last child ends, and whoever looks when, the parent is woken (X60 for children)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from django_durable_jobs import acall, agather, asleep, cancel, faults, gather
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.queues import queue_names
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.wake import wake_forgotten
from django_durable_jobs.outcomes import Cancelled, Completed, Failed, Failure, Parked, Stored
from tests.durable.family import FAILING, RAN, anested, children_of, double, halve, nested, run_all, triple
from tests.durable.running import COMMITS, Runner, row
from tests.factories import claim_of, make_job, make_worker, present
from tests.reliability.outages import drain, options, working
from tests.waiting import eventually, together

pytestmark = COMMITS

ROUNDS = 50
CALL = "children 0/1"


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    FAILING.clear()


def parent_of(*, call: str = CALL, waiting_for: str = CALL) -> Job:
    """A parent that waits."""
    return make_job("waiting", waiting_for=waiting_for)


def claimed_child(parent: Job, call: str = CALL, **columns: Any) -> Any:
    """A running child of it."""
    job = make_job("pending", parent=parent, parent_call=call, depth=1, queue=f"q{Job.objects.count()}", **columns)
    (claimed,) = claim(claim_of(make_worker(), 1, job.queue))
    return claimed


NO = Failure("ValueError: no", "")

ENDINGS: dict[str, Callable[[Any], object]] = {
    "completed": lambda child: finish([Ending(child, Completed("1"))]),
    "completed with a claim": lambda child: finish([Ending(child, Completed("1"))], claim_of(make_worker(), 1)),
    "failed": lambda child: finish([Ending(child, Failed(NO))]),
    "stopped": lambda child: finish([Ending(child, Cancelled("an order"))]),
}


@pytest.mark.parametrize("how", list(ENDINGS))
@pytest.mark.parametrize("several", [False, True])
def test_every_ending_of_the_last_child_wakes_the_parent(how: str, several: bool) -> None:
    parent = parent_of(waiting_for="several" if several else CALL)
    first, last = claimed_child(parent), claimed_child(parent)
    ENDINGS[how](first)
    assert present(parent).status == "waiting"
    ENDINGS[how](last)
    assert present(parent).status == "pending"


def test_a_child_that_stored_its_own_ending_wakes_the_parent() -> None:
    parent = parent_of()
    child = claimed_child(parent)
    Job.objects.filter(id=child.id).update(
        status="completed", finished_at=DatabaseNow(), worker=None, lease_expires_at=None
    )
    stored, _claimed = finish([Ending(child, Stored())])
    assert stored == {child.id}
    assert present(parent).status == "pending"


def test_atomic_children_wake_their_parent_at_once(runner: Runner) -> None:
    def script() -> list[int]:
        return gather(*(triple.s(n) for n in range(5))).values()

    job = runner.enqueue(script)
    with working(options(rescue_interval=timedelta(minutes=10))):
        eventually(lambda: row(job).status == "completed")
    assert row(job).result == "[0,3,6,9,12]"


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_the_first_failure_wakes_a_parent_that_asked_for_it(how: str) -> None:
    call = "children! 0/1"
    parent = parent_of(waiting_for=call)
    claimed_child(parent, call)
    one, other = claimed_child(parent, call), claimed_child(parent, call)
    ENDINGS["completed"](other)
    assert present(parent).status == "waiting"
    ENDINGS[how](one)
    assert present(parent).status == "pending"


def test_a_child_that_is_cancelled_before_it_runs_wakes_the_parent() -> None:
    parent = parent_of()
    child = make_job("scheduled", parent=parent, parent_call=CALL, depth=1)
    cancel(child)
    assert present(parent).status == "pending"


def test_a_child_that_is_given_up_wakes_the_parent(dialect: Dialect) -> None:
    parent = parent_of()
    child = claimed_child(parent, max_attempts=1)
    dialect.clock_offset += timedelta(minutes=2)
    assert [one.id for one in rescue().failed] == [child.id]
    assert present(parent).status == "pending"


def test_the_end_of_another_calls_child_wakes_nobody() -> None:
    parent = parent_of()
    claimed_child(parent)
    ENDINGS["completed"](claimed_child(parent, "children 0/2"))
    assert present(parent).status == "waiting"
    assert wake_forgotten() == 0


def test_a_group_of_which_another_child_was_just_claimed_is_not_looked_at() -> None:
    parent = parent_of()
    child = claimed_child(parent)
    make_job("pending", parent=parent, parent_call=CALL, depth=1)
    with looks() as points:
        finish([Ending(child, Completed("1"))], claim_of(make_worker(), 1))
    assert points == []


@contextmanager
def looks() -> Iterator[list[str]]:
    """Note each look for parents to wake."""
    points: list[str] = []
    faults.install(lambda point: points.append(point) if point == "before-wake" else None)
    try:
        yield points
    finally:
        faults.install(None)


# Together ---------------------------------------------------------------------------------------------------------


def at_once(*functions: Callable[[], Any]) -> None:
    """Run functions so that each has committed before any of them looks."""
    barrier = threading.Barrier(len(functions))

    def meet(point: str) -> None:
        if point == "before-wake":
            barrier.wait(10)

    faults.install(meet)
    try:
        together(*functions)
    finally:
        faults.install(None)


@pytest.mark.parametrize("meeting", [True, False], ids=["looking together", "as it comes"])
def test_x60_the_last_two_children_end_together(meeting: bool) -> None:
    for _ in range(ROUNDS):
        parent = parent_of()
        children = [claimed_child(parent), claimed_child(parent)]
        endings = [partial(finish, [Ending(child, Completed("1"))]) for child in children]
        (at_once if meeting else together)(*endings)
        assert present(parent).status == "pending"


@pytest.mark.parametrize("meeting", [True, False], ids=["looking together", "as it comes"])
@pytest.mark.parametrize("waits", [(CALL,), (CALL, "message go")], ids=["one wait", "several"])
def test_x60_the_parent_parks_while_its_last_child_ends(meeting: bool, waits: tuple[str, ...]) -> None:
    for _ in range(ROUNDS):
        make_job("pending", queue="parents")
        (running,) = claim(claim_of(make_worker(), 1, "parents"))
        child = claimed_child(present(running))
        endings = [Ending(running, Parked(waits, None)), Ending(child, Completed("1"))]
        (at_once if meeting else together)(*(partial(finish, [ending]) for ending in endings))
        assert present(running).status == "pending"
        Job.objects.all().delete()


def test_x60_many_workers_end_a_family_together(runner: Runner) -> None:
    def script() -> int:
        return sum(one.value for one in gather(*(double.s(n) for n in range(60))).values())

    jobs = [runner.enqueue(script) for _ in range(5)]
    with working(*(options() for _ in range(3)), seconds=30):
        eventually(lambda: all(row(job).status == "completed" for job in jobs), seconds=60)
    assert {row(job).result for job in jobs} == {str(sum(2 * n for n in range(60)))}
    assert {row(job).attempt for job in jobs} == {1}
    assert set(RAN.values()) == {5}
    assert Job.objects.count() == 5 * 61


@pytest.mark.parametrize("tree", [nested, anested])
def test_a_tree_of_families_ends(runner: Runner, tree: Any) -> None:
    job = tree.enqueue(3, 3)
    with working(*(options() for _ in range(3)), seconds=30):
        eventually(lambda: row(job).status == "completed", seconds=60)
    assert row(job).result == "27"
    assert Job.objects.count() == 1 + 3 + 9 + 27
    assert set(Job.objects.values_list("depth", flat=True)) == {None, 1, 2, 3}


def test_drain_does_not_end_while_a_parent_waits_for_children(runner: Runner) -> None:
    job = nested.enqueue(2, 4)
    drain()
    assert row(job).status == "completed"


def test_drain_of_all_queues_serves_those_that_appear_with_the_children(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    def names() -> list[str]:
        found = queue_names()
        looked.set()
        return found

    # The regular look must not be the one that finds it.
    monkeypatch.setattr("django_durable_jobs.worker.queues.queue_names", names)

    def script() -> int:
        assert looked.wait(20)
        return len(gather(double.s(1), double.s(2), queue="quite-new"))

    job = runner.enqueue(script)
    drain(options(queues=None))
    assert row(job).status == "completed"


# Branches ---------------------------------------------------------------------------------------------------------


async def branch(first: int) -> list[float]:
    return (await agather(halve.s(first), halve.s(first + 1))).values()


def test_gathers_in_branches_wait_side_by_side(runner: Runner) -> None:
    async def script() -> list[list[float]]:
        return list(await asyncio.gather(acall(branch, 10), acall(branch, 20)))

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Parked)
    assert set(outcome.waits) == {"children! 0/1.1", "children! 0/2.1"}
    assert row(job).waiting_for == "several"
    assert len(children_of(job)) == 4
    assert run_all(runner)[-1] == Completed("[[5.0,5.5],[10.0,10.5]]")
    assert set(RAN.values()) == {1}


def test_a_gather_beside_another_wait_goes_on_when_its_children_have_ended(runner: Runner, dialect: Dialect) -> None:
    async def sleeper() -> str:
        await asleep(3600)
        return "slept"

    async def script() -> list[Any]:
        return list(await asyncio.gather(acall(sleeper), acall(branch, 10)))

    job = runner.enqueue(script)
    outcomes = run_all(runner)
    assert isinstance(outcomes[-1], Parked)
    assert row(job).waiting_for == "time"
    assert Checkpoint.objects.filter(job_id=job.id, key="2").exists()
    dialect.clock_offset += timedelta(hours=1)
    runner.promote()
    assert run_all(runner) == [Completed('["slept",[5.0,5.5]]')]


def test_one_gather_of_two_branches_fails_and_the_other_is_kept(runner: Runner) -> None:
    async def failing() -> list[int]:
        return [one.value for one in (await agather(double.s(1))).values()]

    async def script() -> list[Any]:
        found = await asyncio.gather(acall.using(retries=0)(failing), acall(branch, 10), return_exceptions=True)
        return [type(one).__name__ if isinstance(one, Exception) else one for one in found]

    FAILING.add(1)
    runner.enqueue(script)
    assert run_all(runner)[-1] == Completed('["ChildFailed",[5.0,5.5]]')


def test_calls_gathered_by_asyncio_have_the_same_checkpoints_in_any_order_of_completion(runner: Runner) -> None:
    orders = [(0, 1, 2), (2, 1, 0), (1, 2, 0)]
    seen = []
    for order in orders:
        turns = [asyncio.Event() for _ in order]

        async def step(place: int, turns: list[asyncio.Event] = turns, order: tuple[int, ...] = order) -> int:
            position = order.index(place)
            if position:
                await turns[position - 1].wait()
            turns[position].set()
            return place

        async def script(step: Any = step) -> list[int]:
            return list(await asyncio.gather(*(acall(step, place) for place in range(3))))

        job = runner.enqueue(script)
        assert runner.attempt() == Completed("[0,1,2]")
        rows = Checkpoint.objects.filter(job_id=job.id).order_by("key")
        seen.append(list(rows.values_list("key", "name", "result", "generation")))
    assert seen[0] == seen[1] == seen[2]
