"""Durable calls and transactions: a call inside one is refused, and what a job leaves open reaches nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.backends.base.base import NO_DB_ALIAS

from django_durable_jobs import call
from django_durable_jobs.models import Attempt, Queue
from django_durable_jobs.outcomes import BackedOff, Completed, Failed
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import add

pytestmark = COMMITS


@pytest.fixture
def second() -> Iterator[str]:
    """A second alias on the same database. It has the one name that Django's test classes do not forbid."""
    connections.settings[NO_DB_ALIAS] = {**connections.settings["default"]}
    yield NO_DB_ALIAS
    del connections.settings[NO_DB_ALIAS]


def write(name: str) -> str:
    Queue.objects.create(name=name)
    return name


def written() -> list[str]:
    return sorted(Queue.objects.exclude(name="default").values_list("name", flat=True))


def test_x33_i18_a_call_inside_atomic_is_refused_without_checkpoint_or_effect(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            call(write, "one")
            call(write, "two")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    error = str(row(job).last_error)
    assert error.startswith(
        "OpenTransaction: call(tests.durable.test_transactions.write) was made inside a transaction"
    )
    assert "'default'" in error
    assert (stored(job), written()) == ([], [])
    assert row(job).attempt == 1, "the same code would be refused again"


def test_x33_a_transaction_on_another_alias_counts_as_well(runner: Runner, second: str) -> None:
    def script() -> None:
        try:
            with transaction.atomic(using=second):
                call(write, "one")
        finally:
            connections[second].close()

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert f"on database {second!r}" in str(row(job).last_error)
    assert (stored(job), written()) == ([], [])


@pytest.mark.parametrize("how", ["autocommit off", "BEGIN"])
def test_x33_a_transaction_that_was_not_opened_by_atomic_counts_as_well(runner: Runner, how: str) -> None:
    def script() -> None:
        if how == "BEGIN":
            connection.ensure_connection()
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
        else:
            transaction.set_autocommit(False)
        call(write, "one")

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert "OpenTransaction" in str(row(job).last_error)
    assert (stored(job), written()) == ([], [])


def open_and_leave() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    write("not-committed")


def test_i18_a_function_that_leaves_a_transaction_open_is_refused_and_rolled_back(runner: Runner) -> None:
    def script() -> None:
        call(write, "one")
        call(open_and_leave)

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert "open_and_leave left a transaction open" in str(row(job).last_error)
    assert (stored(job), written()) == ([("1", "write")], ["one"])


def test_a_function_may_use_transactions_inside_itself(runner: Runner) -> None:
    def inside() -> int:
        with transaction.atomic():
            write("one")
            with transaction.atomic():
                write("two")
        return len(written())

    def script() -> int:
        return call(inside)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("2")
    assert (stored(job), written()) == ([("1", "inside")], ["one", "two"])


def _break_inside_atomic() -> None:
    write("taken")
    with transaction.atomic():
        try:
            write("taken")
        except IntegrityError:
            call(add, 1, 2)


def test_x34_a_call_in_a_broken_transaction_gets_a_clear_error_and_the_failure_is_recorded(runner: Runner) -> None:
    job = runner.enqueue(_break_inside_atomic)
    assert isinstance(runner.attempt(), Failed)
    assert "OpenTransaction: call(tests.jobs.add) was made inside a transaction" in str(row(job).last_error)
    assert stored(job) == []
    assert row(job).status == "failed"
    assert Attempt.objects.get().number == 1


def test_x34_a_job_that_breaks_its_transaction_fails_by_its_own_error(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            write("taken")
            transaction.set_rollback(True)  # what Django does when an inner block fails without a savepoint
            write("after")

    job = runner.enqueue(script)
    outcome = runner.attempt()
    assert isinstance(outcome, BackedOff)
    assert "TransactionManagementError" in str(row(job).last_error)
    assert row(job).status in ("retrying", "pending")
    assert written() == []


def test_checkpoints_do_not_go_through_the_jobs_connection(runner: Runner) -> None:
    """What the code did to its session (here: made it read only, or hid the tables) is not theirs to suffer."""
    spoil = {
        "postgresql": "SET search_path TO pg_catalog; SET default_transaction_read_only = on",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
        "sqlite": "PRAGMA query_only = on",
    }[connection.vendor]

    def script() -> int:
        with connection.cursor() as cursor:
            cursor.execute(spoil)
        return call(add, 1, call(add, 2, 3))

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("6")
    assert stored(job) == [("1", "add"), ("2", "add")]


def test_a_killed_connection_of_the_job_does_not_take_the_checkpoint_with_it(runner: Runner) -> None:
    def script() -> Any:
        connection.ensure_connection()
        connection.connection.close()
        return call(add, 1, 2)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("3")
    assert stored(job) == [("1", "add")]
