"""``save_checkpoint`` and ``load_checkpoint``: values that a job keeps under names, apart from its calls (A15)."""

from __future__ import annotations

import contextvars
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import aload_checkpoint, asave_checkpoint, call, load_checkpoint, save_checkpoint
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import NotInJob, OpenTransaction, OptionError, SerializationError
from django_durable_jobs.models import Job, NamedValue
from django_durable_jobs.operations.cancel import cancel
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.prune import prune
from django_durable_jobs.operations.retry import retry
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Lost
from tests.durable.committing import take_away
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import add
from tests.waiting import elsewhere

pytestmark = COMMITS

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    SEEN.clear()


def phases() -> None:
    SEEN.append(load_checkpoint("phase", "none"))
    save_checkpoint("phase", "first")
    save_checkpoint("phase", "second")
    SEEN.append(load_checkpoint("phase"))
    raise ValueError("again")


async def async_phases() -> None:
    SEEN.append(await aload_checkpoint("phase", "none"))
    await asave_checkpoint("phase", "first")
    await asave_checkpoint("phase", "second")
    SEEN.append(await aload_checkpoint("phase"))
    raise ValueError("again")


@pytest.mark.parametrize("script", [phases, async_phases])
def test_a_value_may_be_overwritten_and_survives_attempts_and_generations(runner: Runner, script: Any) -> None:
    job = runner.enqueue(script, retries=1)
    assert isinstance(runner.attempt(), BackedOff)
    runner.attempt()
    assert SEEN == ["none", "second", "second", "second"]
    retry(job.id)
    Job.objects.filter(id=job.id).update(generation=1)
    runner.attempt()
    assert SEEN[4:] == ["second", "second"]
    assert NamedValue.objects.get().value == '"second"'
    assert stored(job) == []


def test_a_value_comes_back_with_its_type(runner: Runner) -> None:
    value = {
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "sum": Decimal("1.50"),
        "ids": {1, 2},
        "raw": b"\x00",
        "none": None,
    }

    def script() -> None:
        save_checkpoint("value", value)
        save_checkpoint("none", None)
        SEEN.extend([load_checkpoint("value"), load_checkpoint("none", "default")])

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert [value, None] == SEEN


def test_values_of_two_jobs_are_apart(runner: Runner) -> None:
    def saves() -> None:
        save_checkpoint("x", 1)

    def loads() -> Any:
        return load_checkpoint("x", "nothing")

    runner.enqueue(saves)
    runner.enqueue(loads)
    runner.attempt()
    assert runner.attempt() == Completed('"nothing"')


def test_they_take_no_place_among_the_calls(runner: Runner) -> None:
    def script() -> int:
        save_checkpoint("x", call(add, 1, 2))
        return call(add, load_checkpoint("x"), 1)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("4")
    assert stored(job) == [("1", "add"), ("2", "add")]


def test_i10_a_lost_attempt_overwrites_nothing(runner: Runner) -> None:
    def script() -> None:
        save_checkpoint("x", "mine")
        elsewhere(lambda: take_away(job.id))
        save_checkpoint("x", "too late")

    job = runner.enqueue(script)
    assert runner.attempt() == Lost()
    assert NamedValue.objects.get().value == '"mine"'


def test_an_order_to_cancel_is_seen(runner: Runner) -> None:
    def script() -> None:
        elsewhere(lambda: cancel(job.id))
        save_checkpoint("x", 1)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Cancelled)
    assert not NamedValue.objects.exists()


def test_inside_a_transaction_they_are_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            for use in (lambda: save_checkpoint("x", 1), lambda: load_checkpoint("x")):
                with pytest.raises(OpenTransaction, match=r"_checkpoint\(\) was used inside a transaction"):
                    use()

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert not NamedValue.objects.exists()


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "\x00", "\ud800", "x" * 201, 3, None])
def test_a_name_that_cannot_be_stored_is_refused(runner: Runner, name: Any) -> None:
    def script() -> None:
        for use in (lambda: save_checkpoint(name, 1), lambda: load_checkpoint(name)):
            with pytest.raises(OptionError, match="The name of a value must be"):
                use()

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert not NamedValue.objects.exists()


def test_a_value_that_cannot_be_stored_is_refused_and_the_old_one_stays(runner: Runner) -> None:
    def script() -> None:
        save_checkpoint("x", 1)
        for value in (object(), "x" * 2_000_000):
            with pytest.raises(SerializationError, match="value of 'x'"):
                save_checkpoint("x", value)

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert NamedValue.objects.get().value == "1"


def test_outside_of_a_job_it_is_said_so() -> None:
    for use in (lambda: save_checkpoint("x", 1), lambda: load_checkpoint("x")):
        with pytest.raises(NotInJob, match=r"_checkpoint\(\) works inside a running durable job only"):
            use()


async def test_on_the_event_loop_it_says_what_to_write(runner: Runner) -> None:
    with pytest.raises(NotInJob, match="asave_checkpoint"):
        save_checkpoint("x", 1)
    with pytest.raises(NotInJob, match=r"asave_checkpoint\(\) works inside"):
        await asave_checkpoint("x", 1)


def test_another_thread_that_has_the_jobs_context_is_refused(runner: Runner) -> None:
    def script() -> None:
        context = contextvars.copy_context()
        elsewhere(lambda: context.run(pytest.raises, NotInJob, save_checkpoint, "x", 1))

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    assert not NamedValue.objects.exists()


@pytest.mark.parametrize("how", ["delete", "prune"])
def test_values_go_with_their_job(runner: Runner, dialect: Dialect, settings: Any, how: str) -> None:
    def script() -> None:
        save_checkpoint("x", 1)

    job = runner.enqueue(script)
    runner.attempt()
    assert row(job).status == "completed"
    if how == "delete":
        delete(job.id)
    else:
        settings.DURABLE_JOBS = {"RETENTION_COMPLETED": 0, "RETENTION_FAILED": 0}
        dialect.clock_offset += timedelta(days=1)
        assert prune(None)[0] == 1
    assert not NamedValue.objects.exists()
