"""Atomic steps: a step's writes and its checkpoint are one commit (A15, I16, I18)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from django_durable_jobs import Backoff, acall, atomic_step, call, idempotency_key, patched, save_checkpoint, sleep
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import DefinitionError, NonDeterminism, NotInJob, OpenTransaction, OptionError
from django_durable_jobs.models import Checkpoint, Queue
from django_durable_jobs.operations.cancel import cancel
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Failed, Lost
from tests.durable.committing import effects, lose_commit, take_away, write
from tests.durable.running import COMMITS, SCRIPTS, Runner, row, stored
from tests.waiting import elsewhere

pytestmark = COMMITS

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    RAN.clear()


@atomic_step("book seat")
def book(order: int) -> int:
    RAN.append(f"book {order}")
    write(f"seat {order}")
    return order + 1


def note(what: str) -> str:
    RAN.append(what)
    return what


def booking() -> int:
    call(note, "before")
    seat = book(7)
    call(note, "after")
    return seat


async def async_booking() -> int:
    await acall(note, "before")
    seat = await book.acall(7)
    await acall(note, "after")
    return seat


BOTH = pytest.mark.parametrize("script", [booking, async_booking])


@BOTH
def test_a_step_is_a_checkpoint_of_its_own_kind(runner: Runner, script: Any) -> None:
    job = runner.enqueue(script)
    assert runner.attempt() == Completed("8")
    assert [key for key, _name in stored(job)] == ["1", "2", "3"]
    found = Checkpoint.objects.get(job_id=job.id, key="2")
    assert (found.name, found.kind, found.result, found.error) == ("book seat", "step", "8", None)
    assert effects() == ["seat 7"]


@BOTH
@pytest.mark.parametrize("point", ["before-commit", "after-commit"])
def test_x3_i16_a_worker_that_dies_around_the_commit_leaves_both_or_neither(
    runner: Runner, script: Any, point: str
) -> None:
    job = runner.enqueue(script)
    runner.attempt_until_killed(point)
    committed = point == "after-commit"
    assert effects() == (["seat 7"] if committed else [])
    assert Checkpoint.objects.filter(job_id=job.id, key="2").exists() == committed
    assert runner.attempt(rescued=True) == Completed("8")
    assert effects() == ["seat 7"]
    assert RAN.count("book 7") == (1 if committed else 2)
    assert RAN.count("before") == RAN.count("after") == 1


@BOTH
def test_i16_a_step_is_not_committed_under_a_token_that_is_gone(runner: Runner, script: Any) -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("one writer at a time: nobody can take the job during the step")
    job = runner.enqueue(script)
    claimed = runner.claim()

    @atomic_step("book seat")
    def lose(order: int) -> int:
        write("zombie")
        # The heartbeat must be able to renew the lease meanwhile, and a rescue to take the job.
        assert elsewhere(lambda: take_away(claimed.id)) == 1
        return order

    def sync_script() -> int:
        call(note, "before")
        return lose(7)

    async def async_script() -> int:
        await acall(note, "before")
        return await lose.acall(7)

    SCRIPTS[script.__name__] = async_script if script is async_booking else sync_script
    assert isinstance(runner.run(claimed), Lost)
    assert effects() == []
    assert stored(job) == [("1", "note")]


def test_i16_an_error_in_the_body_undoes_its_writes_and_is_repeated_as_a_call_is(runner: Runner) -> None:
    @atomic_step("flaky")
    def flaky() -> str:
        RAN.append("flaky")
        write("half")
        if len(RAN) < 3:
            raise ValueError("not yet")
        return "done"

    def script() -> str:
        return flaky()

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert (len(RAN), effects(), stored(job)) == (3, ["half"], [("1", "flaky")])


def test_retries_of_one_step_are_set_by_using(runner: Runner) -> None:
    @atomic_step("flaky")
    def flaky() -> None:
        RAN.append("flaky")
        raise ValueError("no")

    def script() -> None:
        flaky.using(retries=1, backoff=Backoff.none())()

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    assert (len(RAN), stored(job)) == (2, [])


def test_an_error_that_the_job_catches_is_recorded_with_the_next_step(runner: Runner) -> None:
    @atomic_step("refuse")
    def refuse() -> None:
        RAN.append("refuse")
        raise ValueError("no seat")

    def script() -> int:
        with pytest.raises(ValueError, match="no seat"):
            refuse.using(retries=0)()
        return book(1)

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-commit")
    assert stored(job) == [("1", "refuse!"), ("2", "book seat")]
    assert runner.attempt(rescued=True) == Completed("2")
    assert RAN == ["refuse", "book 1"]


@pytest.mark.parametrize(
    "inner",
    [
        lambda: call(note, "inner"),
        lambda: sleep(1),
        lambda: book(1),
        lambda: save_checkpoint("a", 1),
        lambda: patched("x"),
    ],
    ids=["call", "sleep", "step", "value", "version"],
)
def test_x33_i18_durable_work_inside_a_step_is_refused(runner: Runner, inner: Callable[[], Any]) -> None:
    @atomic_step("outer")
    def outer() -> None:
        write("outer")
        inner()

    def script() -> None:
        outer()

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert outcome.failure.error.startswith("OpenTransaction")
    assert (stored(job), effects(), RAN) == ([], [], [])
    assert row(job).attempt == 1


def test_x33_a_step_inside_atomic_is_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic(), pytest.raises(OpenTransaction, match="book seat"):
            book(1)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert (stored(job), effects()) == ([], [])


def test_x34_a_step_that_catches_a_database_error_and_goes_on_gets_a_clear_error(runner: Runner) -> None:
    @atomic_step("twice")
    def twice() -> str:
        RAN.append("twice")
        write("twice")
        Queue.objects.create(name="taken")
        try:
            Queue.objects.create(name="taken")
        except IntegrityError:
            return "went on"
        raise AssertionError

    def script() -> str:
        call(note, "before")
        return twice()

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, BackedOff)
    assert outcome.failure.error.startswith("BrokenTransaction: Step 2 (twice)")
    assert "atomic() block of its own" in outcome.failure.error
    assert (row(job).last_error or "").startswith("BrokenTransaction")
    assert RAN == ["before", "twice"], "never repeated inside the attempt"
    assert (stored(job), effects()) == ([("1", "note")], [])


def test_x34_a_savepoint_inside_the_step_keeps_it_whole(runner: Runner) -> None:
    @atomic_step("careful")
    def careful() -> str:
        Queue.objects.create(name="taken")
        try:
            with transaction.atomic():
                Queue.objects.create(name="taken")
        except IntegrityError:
            write("went on")
        return "done"

    def script() -> str:
        return careful()

    runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert effects() == ["went on"]


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_i18_a_step_that_ends_its_transaction_by_hand_is_not_recorded(runner: Runner, how: str) -> None:
    @atomic_step("ends")
    def ends() -> None:
        RAN.append("ends")
        write("before")
        with connection.cursor() as cursor:
            cursor.execute(how)
        if connection.vendor != "sqlite":
            write("after")  # a new transaction has begun

    def script() -> None:
        ends()

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, BackedOff)
    assert "BrokenTransaction" in outcome.failure.error
    assert "ended by hand" in outcome.failure.error
    assert RAN == ["ends"]
    assert stored(job) == []
    assert effects() == (["before"] if how == "COMMIT" else [])


def test_x4_a_commit_whose_answer_was_lost_is_looked_up_and_the_step_does_not_run_again(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = lose_commit(monkeypatch, dialect, "answer")
    job = runner.enqueue(booking)
    assert runner.attempt() == Completed("8")
    assert lost == ["answer"]
    assert (RAN, effects()) == (["before", "book 7", "after"], ["seat 7"])
    assert row(job).attempt == 1


def test_x4_a_commit_that_did_not_arrive_is_a_failed_run_of_the_step(
    runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = lose_commit(monkeypatch, dialect, "request")
    runner.enqueue(async_booking)
    assert runner.attempt() == Completed("8")
    assert lost == ["request"]
    assert (RAN, effects()) == (["before", "book 7", "book 7", "after"], ["seat 7"])


def test_an_error_of_on_commit_does_not_undo_the_step(runner: Runner) -> None:
    @atomic_step("hooked")
    def hooked() -> str:
        write("hooked")
        transaction.on_commit(lambda: 1 / 0)
        return "done"

    def script() -> str:
        return hooked()

    job = runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    assert (stored(job), effects()) == ([("1", "hooked")], ["hooked"])


def test_an_order_to_cancel_that_came_during_the_step_undoes_it(runner: Runner) -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("one writer at a time: no order can be given during the step")

    @atomic_step("slow")
    def slow() -> None:
        write("slow")
        elsewhere(lambda: cancel(job.id))

    def script() -> None:
        slow()

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert (stored(job), effects(), row(job).status) == ([], [], "cancelled")


def test_two_runs_of_one_step_at_once_leave_the_writes_of_one(runner: Runner) -> None:
    """A call that took too long is made again while the thread of its step still runs."""
    if not connection.features.has_select_for_update:
        pytest.skip("one writer at a time: the second run waits for the first")
    first_is_in, go = threading.Event(), threading.Event()

    @atomic_step("slow")
    def slow() -> str:
        RAN.append("slow")
        write("slow")
        if len(RAN) == 1:
            first_is_in.set()
            assert go.wait(20)
        return "done"

    async def branch() -> str:
        if not first_is_in.is_set():
            return await slow.acall()
        found = await slow.acall()
        go.set()
        return found

    async def script() -> str:
        found = await acall.using(timeout=0.5)(branch)
        await asyncio.to_thread(go.wait, 20)
        return found

    runner.enqueue(script)
    assert runner.attempt() == Completed('"done"')
    runner.executor.close()
    assert RAN == ["slow", "slow"]
    assert effects() == ["slow"]


def test_the_search_path_of_the_job_is_the_steps_but_not_its_checkpoints(runner: Runner) -> None:
    """X35."""
    if connection.vendor == "sqlite":
        pytest.skip("has one schema")
    names = {"postgresql": "current_schema()", "mysql": "DATABASE()"}
    other = "pg_catalog" if connection.vendor == "postgresql" else "information_schema"
    choose = {"postgresql": f"SET search_path TO {other}", "mysql": f"USE {other}"}[connection.vendor]

    @atomic_step("elsewhere")
    def step() -> str:
        return schema()

    def schema() -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {names[connection.vendor]}")
            return str(cursor.fetchone()[0])

    def script() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(choose)
        return [step(), schema()]

    job = runner.enqueue(script)
    assert runner.attempt() == Completed(f'["{other}","{other}"]')
    assert stored(job) == [("1", "elsewhere")]


def test_a_step_has_an_idempotency_key_of_its_own(runner: Runner) -> None:
    keys = []

    @atomic_step("keyed")
    def keyed() -> None:
        keys.append(idempotency_key())
        if len(keys) == 1:
            raise ValueError("again")

    def script() -> None:
        keyed()
        keys.append(idempotency_key())

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert keys[0] == keys[1] != keys[2]


def test_a_step_recorded_as_a_call_is_another_one(runner: Runner) -> None:
    def first() -> None:
        call(note, "x")
        sleep(3600)

    job = runner.enqueue(first)
    runner.attempt()

    def second() -> None:
        with pytest.raises(NonDeterminism):
            book(1)

    SCRIPTS["first"] = second
    runner.wake(job)
    assert isinstance(runner.attempt(), Failed)
    assert effects() == []


def test_outside_of_a_job_it_says_how_to_call_the_function() -> None:
    with pytest.raises(NotInJob, match=r"'book seat'.*`book\.function\(\.\.\.\)`"):
        book(1)
    assert book.function(1) == 2
    assert effects() == ["seat 1"]


async def test_on_the_event_loop_it_says_what_to_write(runner: Runner) -> None:
    with pytest.raises(NotInJob, match=r"await book\.acall"):
        book(1)
    with pytest.raises(NotInJob, match="running durable job only"):
        await book.acall(1)


def test_a_thread_that_the_job_starts_is_not_in_the_job(runner: Runner) -> None:
    def script() -> None:
        with pytest.raises(NotInJob, match="running durable job only"):
            elsewhere(lambda: book(1))

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)


async def _async() -> None: ...


def _generator() -> Any:
    yield 1


class _Class:
    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [(_async, "is async"), (_generator, "is a generator"), (_Class.method, "is a method"), (3, "defined with def")],
)
def test_what_cannot_be_a_step_is_refused(function: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        atomic_step("name")(function)


def test_a_step_needs_a_name() -> None:
    with pytest.raises(DefinitionError, match="Give the step a name"):
        atomic_step(note)  # type: ignore[arg-type]
    for name in ("", " a", "a\n", "\x00", "\ud800", "x" * 201):
        with pytest.raises(OptionError, match="atomic step"):
            atomic_step(name)


def test_a_result_that_cannot_be_stored_undoes_the_step(runner: Runner) -> None:
    @atomic_step("odd")
    def odd() -> Any:
        RAN.append("odd")
        write("odd")
        return object()

    def script() -> None:
        odd()

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "SerializationError" in outcome.failure.error
    assert (RAN, effects(), stored(job)) == (["odd"], [], [])
