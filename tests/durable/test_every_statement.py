"""A rich workflow, killed before each of its database statements in turn: what it comes to is the same (I13 to I18).

The process "dies" at statement n: from there on nothing that it would store is stored. Its lease ends, the jobs are
taken back, and another worker goes on. Final status, results and side effects must be those of a run without a death;
plain calls run at most once per claim, atomic steps exactly once in all. The sender of the message may die as well,
and whoever promotes, wakes and rescues jobs: the first claim of every story is lost, so that there is one to rescue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_durable_jobs import (
    NoRetry,
    atomic_step,
    call,
    compensate,
    current_job,
    durable_job,
    gather,
    send_message,
    sleep,
    wait_for_message,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Checkpoint, Job, Message, Queue
from django_durable_jobs.operations import finish as finishing
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.wake import wake_forgotten
from django_durable_jobs.states import FINAL, OPEN
from tests.durable.running import COMMITS, LEASE, NOW, Killed, Runner
from tests.reliability.outages import has_sessions

pytestmark = COMMITS

PLAIN: list[tuple[str, int]] = []
"""Side effects of plain calls: which, and under which token."""
MOST_ROUNDS = 60


def effect(what: str) -> str:
    PLAIN.append((what, current_job().fencing_token))
    return what


@atomic_step("book")
def book(name: str) -> str:
    # A row of some table; its key would refuse a second one.
    Queue.objects.create(name=name)
    return name


@durable_job(backoff=NOW, call_backoff=NOW)
def child(n: int) -> int:
    call(effect, f"child {n}")
    return n * n


@durable_job(backoff=NOW, call_backoff=NOW)
def inner() -> list[str]:
    return [call(effect, "inner 1"), call(effect, "inner 2")]


@durable_job(backoff=NOW, call_backoff=NOW)
def undo(name: str) -> str:
    return call(effect, f"undo {name}")


@durable_job(backoff=NOW, call_backoff=NOW)
def rich() -> dict[str, Any]:
    """Use everything that a job can do between two crashes."""
    first = call(effect, "first")
    compensate(undo, "first")
    nested = call(inner)
    sleep(timedelta(minutes=1))
    word = wait_for_message("go")
    squares = gather(child.s(2), child.s(3)).values()
    booked = book("booked")
    compensate(undo, "booked")
    return {"first": first, "nested": nested, "word": word, "squares": list(squares), "booked": booked}


@durable_job(backoff=NOW, call_backoff=NOW)
def rich_and_failing() -> None:
    """Do the same, and fail at the end."""
    call(rich)
    raise NoRetry(ValueError("in the end"))


class Deaths:
    """Counts the statements of a worker's step, and dies at the n-th of them."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.count = 0

    @property
    def dead(self) -> bool:
        return self.at is not None and self.count >= self.at

    def point(self) -> None:
        self.count += 1
        if self.dead:
            raise Killed(f"statement {self.count}")

    def wrap(self, execute: Callable[..., Any], *statement: Any) -> Any:
        self.point()
        return execute(*statement)


@contextmanager
def watched(deaths: Deaths, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count every statement and every commit of connections that open in the block, and of those that are open."""

    def watch(connection: BaseDatabaseWrapper, **_signal: object) -> None:
        connection.execute_wrappers.append(deaths.wrap)

    real = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    def commit(self: BaseDatabaseWrapper) -> None:
        deaths.point()
        real(self)

    connection_created.connect(watch, weak=False, dispatch_uid="tests.deaths")
    try:
        with patch.context() as patched, connection.execute_wrapper(deaths.wrap):
            patched.setattr(BaseDatabaseWrapper, "_commit", commit)
            yield
    finally:
        connection_created.disconnect(dispatch_uid="tests.deaths")


class Story:
    """One run of a workflow with its children, by workers of which one may die."""

    def __init__(self, runner: Runner, dialect: Dialect, patch: pytest.MonkeyPatch, at: int | None) -> None:
        self.runner = runner
        self.dialect = dialect
        self.patch = patch
        self.deaths = Deaths(at)
        self.last_look = 0
        """How many statements there were before somebody last looked after waiting jobs."""

    def run(self, job: Any) -> Job:
        """Drive the job to its end and return its row."""
        handle = job.enqueue()
        self.runner.claim()
        self.lose()
        for _round in range(MOST_ROUNDS):
            row = Job.objects.get(id=handle.id)
            if row.status in FINAL:
                assert not Job.objects.filter(status__in=OPEN).exists()
                return row
            self.work(row)
        raise AssertionError(list(Job.objects.values_list("definition", "status", "waiting_for", "last_error")))

    def work(self, job: Job) -> None:
        """Let a worker do one job that is there, the message come that is waited for, or time pass."""
        pending = Job.objects.filter(status="pending").order_by("rescues", "rank", "id").first()
        if pending is not None:
            self.runner.recorder.close()
            if not self.lives(lambda: self.runner.attempt(rescued=pending.rescues > 0)):
                self.lose()
        elif job.waiting_for == "message go":
            self.lives(lambda: send_message(job, "go", "came"))
        else:
            self.dialect.clock_offset += timedelta(minutes=2)
            self.last_look = self.deaths.count
            self.lives(look_after)

    def lives(self, step: Callable[[], object]) -> bool:
        """Let a process do this, if none has died yet one that may die of it; answer whether it lives."""
        if self.deaths.dead:
            step()
            return True
        with suppress(Killed), watched(self.deaths, self.patch):
            step()
        return not self.deaths.dead

    def lose(self) -> None:
        """End the lease of a worker's jobs, as of one that is dead."""
        self.runner.bury()
        self.dialect.clock_offset += LEASE + timedelta(seconds=1)


def look_after() -> None:
    """Do what workers do beside their jobs."""
    rescue()
    wake_forgotten()
    promote()


def came_to(job: Job) -> tuple[str, str | None, str | None]:
    # What a lost worker left there stays readable beside a result.
    return job.status, job.result, job.last_error if job.status == "failed" else None


def effects() -> Counter[str]:
    return Counter(what for what, _token in PLAIN)


def tidy() -> None:
    PLAIN.clear()
    for model in (Checkpoint, Message, Job):
        model._default_manager.all().delete()
    Queue.objects.filter(name="booked").delete()


@pytest.fixture(autouse=True)
def _only_where_a_statement_is_one() -> None:
    PLAIN.clear()
    if has_sessions():
        pytest.skip("PostgreSQL's hot statements do not go through Django; real kills do it there")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("job", [rich, rich_and_failing], ids=["completes", "fails and compensates"])
def test_a_death_before_any_statement_changes_nothing(
    job: Any, runner: Runner, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    if job is rich_and_failing:
        # Whoever ends its children dies before it tells, so that those who look after waiting jobs wake it.
        monkeypatch.setattr(finishing, "wake_waiting", lambda _groups: 0)
    story = Story(runner, dialect, monkeypatch, None)
    undisturbed = story.run(job)
    expected = came_to(undisturbed)
    usual, statements = effects(), story.deaths.count
    assert undisturbed.status == ("completed" if job is rich else "failed")
    assert set(usual.values()) == {1}, PLAIN
    assert statements > 60
    # Up to its children the one that fails does what the other one does.
    first = 1 if job is rich else story.last_look + 1
    assert statements - first > 20
    for at in range(first, statements + 1):
        tidy()
        story = Story(runner, dialect, monkeypatch, at)
        row = story.run(job)
        where = f"killed at statement {at} of {statements}"
        assert came_to(row) == expected, where
        assert Queue.objects.filter(name="booked").count() == 1, where
        # What was done and not stored is done again, by the next claim.
        assert effects().keys() == usual.keys(), where
        assert max(effects().values()) <= 2, where
        assert max(Counter(PLAIN).values()) == 1, where
        assert sum(effects().values()) <= sum(usual.values()) + 1, where
