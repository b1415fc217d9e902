"""How strictly code is held to its recorded calls (A4): what STRICT adds, and how BEST_EFFORT goes on (I13, I19)."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_durable_jobs import (
    Determinism,
    OptionError,
    acall,
    asleep,
    call,
    gather,
    sleep,
    wait_for_approval,
    wait_for_event,
    wait_for_message,
)
from django_durable_jobs.conf import get_settings, problems
from django_durable_jobs.durable import points
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.operations import generations
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Lost, Parked
from tests.durable.running import COMMITS, SCRIPTS, Runner, row, stored
from tests.jobs import noop

pytestmark = COMMITS

HOUR = timedelta(hours=1)
RAN: list[str] = []
STRICT, BEST_EFFORT = Determinism.STRICT, Determinism.BEST_EFFORT


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()


def a() -> str:
    RAN.append("a")
    return "a"


def b() -> str:
    RAN.append("b")
    return "b"


def c() -> str:
    RAN.append("c")
    return "c"


def fails() -> str:
    RAN.append("fails")
    raise ValueError("no")


def begun(
    runner: Runner, script: Callable[..., Any], after: Callable[..., Any], mode: Determinism, *, at: str = "after-body"
) -> JobHandle[Any]:
    """Run a job to its end, die before that is stored, and change its code."""
    job = runner.enqueue(script, determinism=mode)
    runner.attempt_until_killed(at)
    RAN.clear()
    SCRIPTS[script.__name__] = after
    return job


def generation_of(job: JobHandle[Any], number: int) -> list[tuple[str, str]]:
    rows = Checkpoint.objects.filter(job_id=job.id, generation=number).values_list("key", "name")
    return sorted((key, name.rpartition(".")[2]) for key, name in rows)


# Which mode holds ---------------------------------------------------------------------------------------------


def test_the_mode_is_an_option_of_the_job_or_a_setting() -> None:
    assert noop.options.determinism is None
    assert noop.using(determinism=STRICT).options.determinism is STRICT
    assert noop.using(determinism="best_effort").options.determinism is BEST_EFFORT  # type: ignore[arg-type]
    assert get_settings().determinism is Determinism.EXPLICIT
    for given in (STRICT, "strict"):
        with override_settings(DURABLE_JOBS={"DETERMINISM": given}):
            assert list(problems()) == []
            assert get_settings().determinism is STRICT


def test_a_mode_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"Determinism\.EXPLICIT, .*not 'lax'"):
        noop.using(determinism="lax")  # type: ignore[arg-type]
    with override_settings(DURABLE_JOBS={"DETERMINISM": "lax"}):
        ((_id, message, _hint),) = problems()
    assert "must be 'explicit' or 'strict' or 'best_effort', not 'lax'" in message


def test_the_setting_holds_for_jobs_that_name_no_mode(runner: Runner) -> None:
    def script() -> None:
        call(a)
        call(b)

    runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    SCRIPTS["script"] = lambda: call(a)
    with override_settings(DURABLE_JOBS={"DETERMINISM": "strict"}):
        assert isinstance(runner.attempt(rescued=True), Failed)


# STRICT -------------------------------------------------------------------------------------------------------


def sync_abc() -> None:
    for one in (a, b, c):
        call(one)


async def async_abc() -> None:
    for one in (a, b, c):
        await acall(one)


def sync_a() -> None:
    call(a)


async def async_a() -> None:
    await acall(a)


@pytest.mark.parametrize(("script", "after"), [(sync_abc, sync_a), (async_abc, async_a)])
def test_strict_names_the_calls_that_are_not_reached(runner: Runner, script: Any, after: Any) -> None:
    job = begun(runner, script, after, STRICT)
    assert isinstance(runner.attempt(rescued=True), Failed)
    error = str(row(job).last_error)
    assert error.startswith(f"NonDeterminism: The code of job {job.id} ")
    assert "returned after 1 calls without making those recorded after them" in error
    assert f"2 {__name__ + '.b'!r}, 3 {__name__ + '.c'!r} (" in error
    assert RAN == []


@pytest.mark.parametrize("mode", [Determinism.EXPLICIT, BEST_EFFORT])
def test_the_other_modes_let_the_last_calls_go(runner: Runner, mode: Determinism) -> None:
    job = begun(runner, sync_abc, sync_a, mode)
    assert runner.attempt(rescued=True) == Completed(None)
    assert row(job).generation == 0


def test_strict_names_no_more_than_a_few(runner: Runner) -> None:
    def script() -> None:
        for _ in range(20):
            call(a)

    job = begun(runner, script, sync_a, STRICT)
    runner.attempt(rescued=True)
    error = str(row(job).last_error)
    assert error.count("test_determinism.a'") == 5
    assert "6 'tests.durable.test_determinism.a' and 14 more" in error


def inner_abc() -> str:
    return "".join(call(one) for one in (a, b, c))


def inner_a() -> str:
    return call(a)


inner_a.__name__ = inner_a.__qualname__ = "inner_abc"


def test_strict_looks_at_the_end_of_an_inner_call_that_runs_again(runner: Runner) -> None:
    def script() -> str:
        return call(inner_abc)

    def after() -> str:
        return call(inner_a)

    job = runner.enqueue(script, determinism=STRICT)
    runner.attempt_until_killed("before-checkpoint", at=4)
    assert stored(job) == [("1.1", "a"), ("1.2", "b"), ("1.3", "c")]
    SCRIPTS["script"] = after
    assert isinstance(runner.attempt(rescued=True), Failed)
    error = str(row(job).last_error)
    assert error.startswith(f"NonDeterminism: Call 1 of job {job.id} ")
    assert "1.2 'tests.durable.test_determinism.b', 1.3" in error
    assert "1.2" in dict(stored(job))
    assert "1" not in dict(stored(job)), "the call that left them out is not stored"


def test_strict_asks_for_nothing_inside_a_call_that_is_recorded(runner: Runner) -> None:
    def script() -> str:
        return call(inner_abc)

    begun(runner, script, lambda: call(inner_a), STRICT)
    assert runner.attempt(rescued=True) == Completed('"abc"')


def test_strict_swallowing_the_error_of_an_inner_call_does_not_help(runner: Runner) -> None:
    def script() -> str:
        return call(inner_abc)

    def after() -> str:
        try:
            return call(inner_a)
        except Exception:  # noqa: BLE001 -- what careless code does
            return "swallowed"

    runner.enqueue(script, determinism=STRICT)
    runner.attempt_until_killed("before-checkpoint", at=4)
    SCRIPTS["script"] = after
    assert isinstance(runner.attempt(rescued=True), Failed)


def test_strict_lets_an_unfinished_wait_and_version_markers_go(runner: Runner) -> None:
    job = begun(runner, sync_a, sync_a, STRICT)
    for key, kind in (("2.0", "begun"), ("2.0.1", "begun"), ("v:change", "version"), ("c.1", "call")):
        Checkpoint.objects.create(job_id=job.id, key=key, name="any", kind=kind, result="1")
    assert runner.attempt(rescued=True) == Completed(None)


def test_strict_does_not_hide_the_error_of_an_attempt(runner: Runner) -> None:
    def script() -> None:
        call(a)
        call(b)

    def after() -> None:
        call(a)
        raise ValueError("the real one")

    job = begun(runner, script, after, STRICT)
    assert isinstance(runner.attempt(rescued=True), BackedOff)
    assert row(job).last_error == "ValueError: the real one"


# BEST_EFFORT --------------------------------------------------------------------------------------------------


async def async_cab() -> str:
    return await acall(c) + await acall(a) + await acall(b)


def test_best_effort_works_in_async_jobs(runner: Runner) -> None:
    job = begun(runner, async_abc, async_cab, BEST_EFFORT)
    assert runner.attempt(rescued=True) == Completed('"cab"')
    assert RAN == ["c", "a", "b"]
    assert generation_of(job, 0) == [("1", "a"), ("2", "b"), ("3", "c")]
    assert generation_of(job, 1) == [("1", "c"), ("2", "a"), ("3", "b")]


def test_best_effort_a_wait_in_place_of_a_call_begins_a_generation(runner: Runner, dialect: Any) -> None:
    def after() -> str:
        call(a)
        sleep(HOUR)
        return call(b)

    job = begun(runner, sync_abc, after, BEST_EFFORT)
    assert isinstance(runner.attempt(rescued=True), Parked)
    assert generation_of(job, 1) == [("1", "a"), ("2", "sleep")]
    dialect.clock_offset += HOUR
    runner.promote()
    assert runner.attempt() == Completed('"b"')
    assert RAN == ["b"]


def wait_for(name: str) -> None:
    """Begin a wait that has not ended, as one for a message does."""
    point = points.here("wait_for()", name, "message")
    if point.recorded() is None:
        point.deadline(HOUR, "timeout")
        raise point.park(f"message {name}")


@pytest.mark.parametrize("instead", [lambda: call(c), lambda: wait_for("other")], ids=["call", "wait"])
def test_i19_another_call_in_place_of_a_wait_that_has_not_ended(runner: Runner, instead: Any) -> None:
    def script() -> None:
        call(a)
        wait_for("go")

    def after() -> None:
        call(a)
        instead()

    for mode in (Determinism.EXPLICIT, BEST_EFFORT):
        job = runner.enqueue(script, determinism=mode)
        assert isinstance(runner.attempt(), Parked)
        assert stored(job) == [("1", "a"), ("2.0", "go")]
        SCRIPTS["script"] = after
        runner.wake(job)
        outcome = runner.attempt()
        if mode is BEST_EFFORT:
            assert isinstance(outcome, Completed | Parked)
            assert row(job).generation == 1
            assert ("2.0", "go") not in generation_of(job, 1)
        else:
            assert isinstance(outcome, Failed)
            assert re.search(r"was recorded as 'go'( \(message\))?, but the code now calls '", str(row(job).last_error))


WAITS: dict[str, Callable[[], Any]] = {
    "message": lambda: wait_for_message("gather", timeout=HOUR),
    "event": lambda: wait_for_event("gather", timeout=HOUR),
    "approval": lambda: wait_for_approval("gather", timeout=HOUR),
    "gather": lambda: gather(noop.s(1)),
}


@pytest.mark.parametrize(("was", "now"), [(was, now) for was in WAITS for now in WAITS if was != now])
def test_i19_a_wait_of_another_kind_does_not_take_over_what_one_of_its_name_has_begun(
    runner: Runner, was: str, now: str
) -> None:
    def script() -> None:
        WAITS[was]()

    def after() -> None:
        WAITS[now]()

    for mode in (Determinism.EXPLICIT, BEST_EFFORT):
        job = runner.enqueue(script, determinism=mode, priority=100)
        assert isinstance(runner.attempt(), Parked)
        SCRIPTS["script"] = after
        runner.wake(job)
        outcome = runner.attempt()
        if mode is BEST_EFFORT:
            assert isinstance(outcome, Parked)
            assert generation_of(job, 1) in ([("1.0", "gather")], [])
        else:
            assert isinstance(outcome, Failed)
            assert f"was recorded as 'gather' ({was}), but the code now calls 'gather' ({now}) there" in str(
                row(job).last_error
            )


def test_best_effort_an_async_wait_in_place_of_a_call_begins_a_generation(runner: Runner, dialect: Any) -> None:
    async def after() -> str:
        await acall(a)
        await asleep(HOUR)
        return await acall(b)

    job = begun(runner, async_abc, after, BEST_EFFORT)
    assert isinstance(runner.attempt(rescued=True), Parked)
    assert generation_of(job, 1) == [("1", "a"), ("2", "sleep")]


def test_best_effort_leaves_the_recorded_way_as_often_as_the_code_does(runner: Runner) -> None:
    job = begun(runner, sync_abc, lambda: [call(one) for one in (a, c, b)], BEST_EFFORT)
    runner.attempt_until_killed("after-body", rescued=True)
    SCRIPTS["sync_abc"] = lambda: [call(one) for one in (b, c)]
    assert runner.attempt(rescued=True) == Completed('["b","c"]')
    assert [generation_of(job, number)[0] for number in (0, 1, 2)] == [("1", "a"), ("1", "a"), ("1", "b")]
    assert row(job).generation == 2


def test_best_effort_keeps_errors_that_the_code_caught_before(runner: Runner) -> None:
    def script() -> None:
        try:
            call.using(retries=0)(fails)
        except ValueError:
            call(a)

    def after() -> str:
        try:
            return call.using(retries=0)(fails)
        except ValueError:
            return call(b)

    job = begun(runner, script, after, BEST_EFFORT)
    assert runner.attempt(rescued=True) == Completed('"b"')
    assert RAN == ["b"]
    assert generation_of(job, 1) == [("1", "fails"), ("2", "b")]


def test_best_effort_an_error_that_is_not_stored_yet_goes_into_the_new_generation(runner: Runner) -> None:
    def script() -> None:
        call(a)
        call(b)

    def after() -> str:
        call(a)
        try:
            return call(inner_failing)
        except ValueError:
            return call(c)

    job = begun(runner, script, after, BEST_EFFORT)
    assert runner.attempt(rescued=True) == Completed('"c"')
    assert generation_of(job, 1) == [("1", "a"), ("2", "inner_failing"), ("3", "c")]


def inner_failing() -> str:
    return call.using(retries=0)(fails)


def test_best_effort_a_call_whose_repeat_goes_another_way_completes(runner: Runner) -> None:
    """Code that is left to chance is what the mode is for: it goes forward in one attempt."""

    def wavering() -> str:
        RAN.append("wavering")
        first = call(a if RAN.count("wavering") == 1 else b)
        second = call(c)
        if RAN.count("wavering") == 1:
            raise ValueError("once")
        return first + second

    def script() -> str:
        return call.using(retries=1)(wavering)

    job = runner.enqueue(script, determinism=BEST_EFFORT)
    assert runner.attempt() == Completed('"bc"')
    assert RAN == ["wavering", "a", "c", "wavering", "b", "c"]
    assert generation_of(job, 1) == [("1", "wavering"), ("1.1", "b"), ("1.2", "c")]


def test_best_effort_calls_awaited_in_another_order_keep_what_the_code_has_used(runner: Runner) -> None:
    async def script() -> str:
        return await acall(a) + await acall(b) + await acall(c)

    async def after() -> str:
        first, second = acall(c), acall(b)
        return await second + await first

    job = begun(runner, script, after, BEST_EFFORT)
    assert runner.attempt(rescued=True) == Completed('"bc"')
    assert RAN == ["c"], "the value of call 2 was used before call 1 was found to be another one"
    assert generation_of(job, 1) == [("1", "c"), ("2", "b")]


@pytest.mark.parametrize("place", ["in a branch", "beside a branch"])
def test_best_effort_branches_are_kept_to_their_recorded_calls(runner: Runner, place: str) -> None:
    async def script() -> None:
        await asyncio.gather(acall(async_inner), acall(b))
        await acall(c)

    async def in_branch() -> None:
        await asyncio.gather(acall(b), acall(a))

    async def beside_branch() -> None:
        task = asyncio.ensure_future(acall(async_inner))
        await asyncio.sleep(0)
        await acall(c)
        await task

    job = runner.enqueue(script, determinism=BEST_EFFORT)
    runner.attempt_until_killed("after-body")
    Checkpoint.objects.filter(key="1").delete()  # as if it had been killed before that was stored
    SCRIPTS["script"] = in_branch if place == "in a branch" else beside_branch
    if place == "in a branch":
        Checkpoint.objects.filter(key="1.1").update(key="1")
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert "In and beside branches of an async job" in str(row(job).last_error)
    assert row(job).generation == 0


async def async_inner() -> str:
    first = await acall(a)
    await asyncio.sleep(0.01)
    return first


def test_best_effort_a_branch_that_uses_a_call_meanwhile_is_noticed(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = threading.Event()

    async def after() -> None:
        loop, begins = asyncio.get_running_loop(), asyncio.Event()

        def slowly(*given: Any, **more: Any) -> Any:
            loop.call_soon_threadsafe(begins.set)
            assert used.wait(10)
            return generations.leave(*given, **more)

        async def branch(second: Any) -> None:
            await begins.wait()
            await second
            used.set()

        monkeypatch.setattr(points, "leave", slowly)
        first, second = acall(c), acall(b)
        task = asyncio.ensure_future(branch(second))  # a task that no durable call has been made in
        await first
        await task

    job = begun(runner, async_abc, after, BEST_EFFORT)
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert "a branch used call 2 meanwhile" in str(row(job).last_error)
    assert RAN == []


def test_best_effort_i13_a_generation_whose_answer_was_lost_is_begun_once(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4: the transaction was committed, and is done again since nobody knows."""

    def twice(*given: Any, **more: Any) -> Any:
        generations.leave(*given, **more)
        return generations.leave(*given, **more)

    monkeypatch.setattr(points, "leave", twice)
    job = begun(runner, sync_abc, lambda: [call(one) for one in (a, c)], BEST_EFFORT)
    assert runner.attempt(rescued=True) == Completed('["a","c"]')
    assert row(job).generation == 1
    assert generation_of(job, 1) == [("1", "a"), ("2", "c")]


def test_best_effort_i10_a_lost_lease_begins_no_generation(runner: Runner) -> None:
    job = begun(runner, sync_abc, lambda: [call(one) for one in (a, c)], BEST_EFFORT)
    claimed = runner.claim(rescued=True)

    def overtaken() -> list[str]:
        first = call(a)
        runner.lose(claimed)
        runner.leases.add([claimed])  # a zombie that has not learnt it yet
        return [first, call(c)]

    SCRIPTS["sync_abc"] = overtaken
    assert isinstance(runner.run(claimed), Lost)
    assert row(job).generation == 0
    assert generation_of(job, 1) == []
    assert RAN == []
