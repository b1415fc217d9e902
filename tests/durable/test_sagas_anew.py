"""A job with compensations that runs again: what they undid is done anew, and what they did not, is undone later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_durable_jobs import (
    Backoff,
    Determinism,
    NoRetry,
    acall,
    acompensate,
    call,
    compensate,
    durable_job,
    fork,
    gather,
    retry,
    send_message,
    sleep,
    wait_for_message,
)
from django_durable_jobs.models import Checkpoint, Job, Message
from django_durable_jobs.operations import children
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Parked
from tests.durable.family import run_all
from tests.durable.running import COMMITS, NOW, SCRIPTS, Runner, row
from tests.factories import make_checkpoint, make_job, present

pytestmark = COMMITS

LEDGER: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


def book(what: str) -> str:
    LEDGER.append(f"book {what}")
    return what


def check() -> None:
    LEDGER.append("check")


@durable_job(call_backoff=NOW)
def unbook(what: str) -> None:
    """Undo a booking."""
    LEDGER.append(f"unbook {what}")


def booked(what: str) -> None:
    call(book, what)
    compensate(unbook, what)


# Begun anew: messages and children --------------------------------------------------------------------------------


@pytest.mark.parametrize("from_call", [None, "1"])
def test_a_job_that_begins_anew_receives_its_messages_again(runner: Runner, from_call: str | None) -> None:
    def script() -> str:
        where: str = wait_for_message("where")
        booked(where)
        if LEDGER.count(f"book {where}") == 1:
            raise NoRetry("full")
        return where

    job = runner.enqueue(script)
    send_message(job, "where", "Rome")
    assert isinstance(runner.attempt(), Failed)
    retry(job, from_call=from_call)
    assert runner.attempt() == Completed('"Rome"')
    assert (row(job).generation, row(job).attempt) == (1, 2)


@durable_job(retries=0, backoff=NOW)
def told() -> str:
    """Book where a message says; fail the first time."""
    where: str = wait_for_message("where")
    booked(where)
    if LEDGER.count(f"book {where}") == 1:
        raise ValueError("full")
    return where


def test_a_child_that_its_parent_runs_again_receives_its_messages_again(runner: Runner) -> None:
    def script() -> list[str]:
        return gather(told.s()).values()

    job = runner.enqueue(script, retries=1)
    assert isinstance(runner.attempt(), Parked)
    child = Job.objects.get(parent=job.id)
    send_message(child, "where", "Rome")
    run_all(runner)
    assert job.result() == ["Rome"]
    assert LEDGER == ["book Rome", "unbook Rome", "book Rome"]
    assert present(child).generation == 1


@durable_job(retries=0)
def guest(name: str) -> str:
    """Be one of the children."""
    LEDGER.append(name)
    return name


def test_children_of_an_attempt_that_was_undone_are_cancelled_when_it_begins_anew(runner: Runner) -> None:
    def script() -> list[str]:
        compensate(unbook, "Rome")
        if full:
            raise NoRetry("full")
        return gather(guest.s("ada"), guest.s("bob")).values()

    full: list[bool] = []
    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    old = set(Job.objects.filter(parent=job.id).values_list("id", flat=True))
    full.append(True)
    runner.wake(job)
    assert isinstance(runner.attempt(), Failed)
    assert set(Job.objects.filter(id__in=old).values_list("status", flat=True)) == {"pending"}
    full.clear()
    retry(job)
    assert set(Job.objects.filter(id__in=old).values_list("status", flat=True)) == {"cancelled"}
    run_all(runner)
    assert job.result() == ["ada", "bob"]
    assert LEDGER == ["unbook Rome", "ada", "bob"]


@durable_job(retries=0)
def stays(name: str) -> str:
    """Book, and wait the first time."""
    booked(name)
    if LEDGER.count(f"book {name}") == 1:
        sleep(3600)
    return name


@durable_job(retries=0)
def fails_once() -> str:
    """Fail the first time."""
    LEDGER.append("fails once")
    if LEDGER.count("fails once") == 1:
        raise ValueError("full")
    return "done"


def test_a_child_that_is_still_undone_when_the_next_attempt_begins_is_run_again_then(runner: Runner) -> None:
    def script() -> list[str]:
        return gather(stays.s("Rome"), fails_once.s()).values()

    job = runner.enqueue(script, retries=1)
    run_all(runner)
    assert (row(job).status, row(job).attempt) == ("completed", 2)
    assert job.result() == ["Rome", "done"]
    assert LEDGER == ["book Rome", "fails once", "unbook Rome", "book Rome", "fails once"]


@durable_job
def unbook_when_told() -> None:
    """Undo a booking when somebody says so."""
    LEDGER.append(wait_for_message("undo"))


def test_what_compensations_have_received_stays_received(runner: Runner) -> None:
    def script() -> None:
        compensate(unbook_when_told)
        raise NoRetry("full")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    send_message(job, "undo", "now")
    assert isinstance(runner.attempt(), Failed)
    retry(job)
    assert isinstance(runner.attempt(), Parked)
    send_message(job, "undo", "once more")
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["now", "once more"]


def undone_children(count: int) -> Job:
    parent = make_job("running")
    for number in range(count):
        child = make_job("failed", parent=parent, parent_call="children 0/1")
        make_checkpoint(child, "1")
        make_checkpoint(child, "2", kind="compensation")
        make_checkpoint(child, "c.1")
        Message.objects.create(job=child, name="go", payload="1", consumed_key="1", consumed_at=child.created_at)
        make_job(parent=child, parent_call=f"children 0/{number + 3}")
    return parent


def queries_to_run_again(parent: Job) -> int:
    with transaction.atomic(), CaptureQueriesContext(connection) as captured:
        children.run_again(parent.id, "children 0/1")
    return len(captured)


def test_many_children_begin_anew_with_as_many_queries_as_few() -> None:
    few, many = undone_children(2), undone_children(40)
    assert queries_to_run_again(many) == queries_to_run_again(few)
    put_back = Job.objects.filter(parent__in=[few, many])
    assert set(put_back.values_list("status", "generation")) == {("pending", 1)}
    assert not Message.objects.exclude(consumed_at=None, consumed_key=None).exists()
    assert set(Job.objects.filter(parent__in=put_back).values_list("status", flat=True)) == {"cancelled"}


# Left calls -------------------------------------------------------------------------------------------------------


def best_effort(runner: Runner, *scripts: Callable[[], Any]) -> Any:
    """Run one attempt with each of these; the last one is to fail for good."""
    first, *others = scripts
    job = runner.enqueue(first, determinism=Determinism.BEST_EFFORT, retries=5)
    assert isinstance(runner.attempt(), BackedOff)
    for script in others[:-1]:
        SCRIPTS[first.__name__] = script
        assert isinstance(runner.attempt(), BackedOff)
    SCRIPTS[first.__name__] = others[-1]
    assert isinstance(runner.attempt(), Failed)
    return row(job)


def test_calls_that_best_effort_leaves_are_undone_in_the_end(runner: Runner) -> None:
    def first() -> None:
        booked("Rome")
        raise OSError("not yet")

    def changed() -> None:
        call(check)
        booked("Oslo")
        raise NoRetry("full")

    assert best_effort(runner, first, changed).generation == 1
    assert LEDGER == ["book Rome", "check", "book Oslo", "unbook Oslo", "unbook Rome"]


def test_whatever_way_was_left_the_last_booking_is_undone_first(runner: Runner) -> None:
    def first() -> None:
        booked("a")
        booked("b")
        booked("c")
        raise OSError("not yet")

    def second() -> None:
        booked("a")
        booked("b")
        call(check)
        booked("d")
        raise OSError("not yet")

    def third() -> None:
        booked("a")
        call(check)
        booked("e")
        raise NoRetry("full")

    job = best_effort(runner, first, second, third)
    assert [one for one in LEDGER if one.startswith("unbook")] == [f"unbook {what}" for what in "edcba"]
    undone = Checkpoint.objects.filter(job=job, generation=2, key__startswith="c.").count()
    assert (job.generation, undone) == (2, 6)


def test_an_async_job_undoes_the_calls_it_left_too(runner: Runner) -> None:
    async def first() -> None:
        await acall(book, "Rome")
        await acompensate(unbook, "Rome")
        raise OSError("not yet")

    async def changed() -> None:
        await acall(check)
        raise NoRetry("full")

    best_effort(runner, first, changed)
    assert LEDGER == ["book Rome", "check", "unbook Rome"]


def test_calls_that_a_retry_runs_again_are_undone_in_the_end(runner: Runner) -> None:
    def script() -> None:
        booked("Rome")
        booked(f"{LEDGER.count('book Rome')} {len(LEDGER)}")
        if len(LEDGER) < 4:
            raise OSError("not yet")
        raise NoRetry("full")

    job = runner.enqueue(script, backoff=Backoff.fixed(3600))
    assert isinstance(runner.attempt(), BackedOff)
    retry(job, from_call="3")
    assert isinstance(runner.attempt(), BackedOff)
    retry(job, from_call="1")
    assert isinstance(runner.attempt(), Failed)
    done = [one.removeprefix("book ") for one in LEDGER if one.startswith("book")]
    undone = [one.removeprefix("unbook ") for one in LEDGER if one.startswith("unbook")]
    assert done == ["Rome", "1 1", "1 2", "Rome", "2 4"]
    assert undone == list(reversed(done))


def test_what_has_been_undone_is_not_undone_again(runner: Runner) -> None:
    def first() -> None:
        booked("Rome")
        raise OSError("not yet")

    def changed() -> None:
        call(check)
        raise NoRetry("full")

    job = best_effort(runner, first, changed)
    retry(job, from_call="1")
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["book Rome", "check", "unbook Rome", "check"]


def test_a_fork_takes_no_calls_over_that_were_left(runner: Runner) -> None:
    def first() -> None:
        booked("Rome")
        raise OSError("not yet")

    def changed() -> None:
        call(check)
        raise OSError("full") if LEDGER.count("check") == 1 else NoRetry("full")

    job = runner.enqueue(first, determinism=Determinism.BEST_EFFORT, backoff=Backoff.fixed(3600))
    runner.attempt()
    SCRIPTS["first"] = changed
    retry(job)
    assert isinstance(runner.attempt(), BackedOff)
    fork(job, from_call="1")
    assert isinstance(runner.attempt(), Failed)
    assert LEDGER == ["book Rome", "check", "check"]


# Transactions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_job_that_leaves_a_transaction_open_is_undone(runner: Runner, ends: str) -> None:
    def script() -> None:
        call(book, "Rome")
        compensate(unbook_in_database)
        transaction.set_autocommit(False)
        make_checkpoint(row(job), "note")
        if ends == "raises":
            raise NoRetry("its own")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    error = "its own" if ends == "raises" else "OpenTransaction: A transaction was left open"
    assert str(row(job).last_error).startswith(error)
    assert LEDGER == ["book Rome", "unbook in database"]
    # What the job wrote in its transaction is gone, and what undid it has stayed.
    assert [one.name for one in Message.objects.all()] == ["undone"]
    assert not Checkpoint.objects.filter(key="note").exists()


@durable_job
def unbook_in_database() -> None:
    """Undo a booking by a row."""
    LEDGER.append("unbook in database")
    Message.objects.create(name="undone", payload="1")
