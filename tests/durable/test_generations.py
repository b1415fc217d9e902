"""A new generation of a job with children, messages, questions, steps and versions: by the features themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_durable_jobs import (
    ApprovalExpired,
    Determinism,
    JobHandle,
    NoRetry,
    acall,
    approve,
    atomic_step,
    call,
    compensate,
    current_job,
    durable_job,
    fork,
    gather,
    get_version,
    idempotency_key,
    pending_approvals,
    retry,
    send_message,
    sleep,
    wait_for_approval,
    wait_for_message,
)
from django_durable_jobs.models import Approval, Job
from django_durable_jobs.outcomes import Completed, Failed, Parked
from tests.durable.running import COMMITS, NOW, SCRIPTS, Runner, row

pytestmark = COMMITS

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


@durable_job(name="tests.generations.child", backoff=NOW)
def child(name: str) -> str:
    RAN.append(f"child {name}")
    return name


@atomic_step("write")
def write(what: str) -> str:
    RAN.append(f"write {what}")
    return what


def note(what: str) -> str:
    RAN.append(what)
    return what


def drain(runner: Runner) -> None:
    """Run whatever is pending, until nothing is."""
    while Job.objects.filter(status="pending").exists():
        runner.attempt()


def workflow() -> list[Any]:
    names = gather(child.s("a"), child.s("b")).values()
    paid = wait_for_message("paid")
    written = write("x")
    if "fail" in RAN:
        raise ValueError("fail")
    return [*names, paid, written]


def failed(runner: Runner) -> JobHandle[Any]:
    job = runner.enqueue(workflow, retries=0)
    drain(runner)
    send_message(job.id, "paid", "in cash")
    RAN.append("fail")
    drain(runner)
    assert row(job).status == "failed"
    RAN.clear()
    return job


def test_from_a_step_on_only_the_step_runs_again(runner: Runner) -> None:
    job = failed(runner)
    retry(job.id, from_call="3")
    assert runner.attempt() == Completed('["a","b","in cash","x"]')
    assert RAN == ["write x"]


def test_from_a_message_on_the_same_message_is_received_again(runner: Runner) -> None:
    job = failed(runner)
    retry(job.id, from_call="2")
    assert runner.attempt() == Completed('["a","b","in cash","x"]')
    assert RAN == ["write x"]
    assert list(job.job().messages.values_list("consumed_key", flat=True)) == ["2"]


def test_from_the_children_on_there_are_new_children(runner: Runner) -> None:
    job = failed(runner)
    retry(job.id, from_call="1")
    drain(runner)
    assert job.result() == ["a", "b", "in cash", "x"]
    assert RAN == ["child a", "child b", "write x"]
    calls = job.job().children.order_by("id").values_list("parent_call", flat=True)
    assert list(calls) == ["children! 0/1"] * 2 + ["children! 1/1"] * 2


def test_a_fork_has_the_results_of_the_children_and_no_children(runner: Runner) -> None:
    job = failed(runner)
    new = fork(job.id, from_call="2")
    assert isinstance(runner.attempt(), Parked)
    send_message(new.id, "paid", "by card")
    assert runner.attempt() == Completed('["a","b","by card","x"]')
    assert RAN == ["write x"]
    assert not new.job().children.exists()


def asks() -> str:
    call(note, "before")
    return wait_for_approval("Ship it?").by


def test_a_question_of_a_call_that_runs_again_is_asked_again(runner: Runner) -> None:
    job = runner.enqueue(asks, determinism=Determinism.BEST_EFFORT)
    assert isinstance(runner.attempt(), Parked)
    (first,) = pending_approvals(job)

    def changed() -> str:
        call(note, "before")
        call(note, "new")
        return wait_for_approval("Ship it?").by

    SCRIPTS["asks"] = changed
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    (second,) = pending_approvals(job)
    assert (first.key, second.key, second.generation) == ("2", "3", 1)
    with pytest.raises(ApprovalExpired):
        approve(first)
    approve(second, by="ada")
    assert runner.attempt() == Completed('"ada"')
    assert RAN == ["before", "new"]


def test_a_retry_from_a_question_asks_it_anew(runner: Runner) -> None:
    job = runner.enqueue(asks)
    runner.attempt()
    Job.objects.filter(id=job.id).update(status="retrying", waiting_for=None, run_at="2001-01-01T00:00:00Z")
    retry(job.id, from_call="2")
    assert isinstance(runner.attempt(), Parked)
    assert [one.generation for one in Approval.objects.order_by("id")] == [0, 1]
    approve(pending_approvals(job).get(), by="bob")
    assert runner.attempt() == Completed('"bob"')


def gathers() -> list[str]:
    call(note, "before")
    return gather(child.s("a")).values()


def test_best_effort_children_of_a_gather_that_is_left_are_cancelled(runner: Runner) -> None:
    job = runner.enqueue(gathers, determinism=Determinism.BEST_EFFORT)
    assert isinstance(runner.attempt(), Parked)

    def changed() -> list[str]:
        call(note, "before")
        call(note, "new")
        return gather(child.s("c")).values()

    SCRIPTS["gathers"] = changed
    first = job.job().children.get()
    Job.objects.filter(id=first.id).update(queue="elsewhere")  # not run here
    runner.wake(job)
    drain(runner)
    assert job.result() == ["c"]
    first.refresh_from_db()
    assert first.status == "cancelled"
    assert RAN == ["before", "new", "child c"]


def test_best_effort_steps_begin_a_generation_in_sync_and_async_code(runner: Runner) -> None:
    def script() -> str:
        return call(note, "a")

    async def ascript() -> str:
        return await acall(note, "a")

    async def achanged() -> str:
        return await write.acall("y")

    changes: list[tuple[Any, Any]] = [(script, lambda: write("y")), (ascript, achanged)]
    for before, after in changes:
        job = runner.enqueue(before, determinism=Determinism.BEST_EFFORT)
        runner.attempt_until_killed("after-body")
        SCRIPTS[before.__name__] = after
        assert runner.attempt(rescued=True) == Completed('"y"')
        assert row(job).generation == 1
    assert RAN == ["a", "write y", "a", "write y"]


def test_a_version_that_was_recorded_holds_in_the_new_generation(runner: Runner) -> None:
    def script() -> int:
        call(note, "1")
        call(note, "2")
        version = get_version("change", 0, 1)
        call(note, "3")
        if "fail" in RAN:
            raise ValueError("fail")
        return version

    job = runner.enqueue(script, retries=0)
    RAN.append("fail")
    assert isinstance(runner.attempt(), Failed)
    RAN.clear()
    retry(job.id, from_call="2")
    SCRIPTS["script"] = lambda: [call(note, "1"), call(note, "2"), get_version("change", 0, 2), call(note, "3")]
    assert runner.attempt() == Completed('["1","2",1,"3"]')
    assert RAN == ["2", "3"]


# Keys for outside systems -------------------------------------------------------------------------------------


def charge(what: str) -> str:
    RAN.append(f"{what} {idempotency_key()}")
    return what


def give_back(what: str) -> str:
    RAN.append(f"{what} {idempotency_key()}")
    return what


@durable_job(name="tests.generations.undo", backoff=NOW)
def undo(what: str) -> None:
    RAN.append(f"undo {what}")


def keys(what: str) -> list[str]:
    return [entry.rpartition(" ")[2] for entry in RAN if entry.startswith(f"{what} ")]


def test_another_call_at_the_same_place_has_another_key(runner: Runner) -> None:
    def before() -> None:
        call(charge, "first")
        sleep(3600)

    def after() -> None:
        call(give_back, "second")

    job = runner.enqueue(before, determinism=Determinism.BEST_EFFORT)
    runner.attempt()
    SCRIPTS[before.__name__] = after
    runner.wake(job)
    assert isinstance(runner.attempt(), Completed)
    assert keys("first") != keys("second")


def test_another_call_has_another_key_although_nothing_was_recorded(runner: Runner) -> None:
    def before() -> None:
        call(charge, "first")

    def after() -> None:
        call(give_back, "second")

    job = runner.enqueue(before)
    runner.attempt_until_killed("before-checkpoint")
    SCRIPTS[before.__name__] = after
    assert isinstance(runner.attempt(rescued=True), Completed)
    assert row(job).generation == 0
    assert keys("first") != keys("second")


@pytest.mark.parametrize("kind", [call, acall], ids=["sync", "async"])
def test_a_call_that_is_run_again_from_has_another_key_and_keeps_that(runner: Runner, kind: Any) -> None:
    def script() -> None:
        call(charge, "kept")
        call(charge, "again")
        raise NoRetry("in the end")

    async def ascript() -> None:
        await acall(charge, "kept")
        await acall(charge, "again")
        raise NoRetry("in the end")

    job = runner.enqueue(script if kind is call else ascript)
    runner.attempt()
    retry(job.id, from_call="2")
    runner.attempt_until_killed("before-checkpoint")
    runner.attempt(rescued=True)
    assert row(job).generation == 1
    assert len(keys("kept")) == 1
    first, second, second_again = keys("again")
    assert second == second_again != first


def test_a_call_that_was_undone_has_another_key_when_it_is_made_again(runner: Runner) -> None:
    job_keys = []

    def script() -> None:
        job_keys.append(current_job().idempotency_key)
        compensate(undo, call(charge, "first"))
        if len(job_keys) == 1:
            raise NoRetry("in the end")

    job = runner.enqueue(script)
    runner.attempt()
    retry(job.id)
    assert isinstance(runner.attempt(), Completed)
    first, second = keys("first")
    assert first != second
    assert job_keys[0] == job_keys[1]
