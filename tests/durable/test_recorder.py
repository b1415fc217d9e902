"""Group commit of checkpoints: shared commits, and nobody harmed by a neighbour."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import pytest
from django.db import DatabaseError, connection

from django_durable_jobs.dialects.rows import Claimed, NewCheckpoint, Saved
from django_durable_jobs.durable.recorder import Recorder, Rows, Scribe, _Ticket
from django_durable_jobs.errors import LeaseLost
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.operations.checkpoints import SteadySave
from tests.durable.running import COMMITS, LEASE
from tests.factories import checkpoint_of, claim_one, make_worker
from tests.waiting import eventually, together

Result = TypeVar("Result")


class Gate:
    """The real `save`, which counts its commits and lets the test hold one of them back."""

    def __init__(self, save: Callable[[Rows], Saved] | None = None) -> None:
        self.steady = SteadySave(LEASE)
        self.save = save or self.steady
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, rows: Rows) -> Saved:
        self.batches.append([row.key for row in rows])
        self.entered.set()
        assert self.open.wait(20)
        return self.save(rows)

    def transact(self, work: Callable[[], Result]) -> Result:
        return self.steady.transact(work)


def while_one_is_written(
    recorder: Recorder, gate: Gate, first: Rows, others: Sequence[Rows]
) -> list[BaseException | None]:
    """Let the first begin a commit, then all others come, then go on; return what each got."""

    def record(rows: Rows) -> BaseException | None:
        try:
            recorder.record(rows)
        except BaseException as error:  # noqa: BLE001 -- what the test is about
            return error
        return None

    def late(rows: Rows) -> BaseException | None:
        assert gate.entered.wait(20)
        return record(rows)

    def opener() -> None:
        eventually(lambda: len(recorder._queue) == len(others))
        gate.open.set()

    functions: list[Callable[[], BaseException | None]] = [
        lambda: record(first),
        *((lambda rows=rows: late(rows)) for rows in others),
        opener,
    ]
    return together(*functions, seconds=10)[:-1]


@pytest.fixture
def jobs(transactional_db: None) -> list[Claimed]:
    worker = make_worker()
    return [claim_one(worker) for _ in range(8)]


@COMMITS
def test_eight_threads_share_two_commits(jobs: list[Claimed]) -> None:
    gate = Gate()
    got = while_one_is_written(
        Recorder(gate), gate, [checkpoint_of(jobs[0])], [[checkpoint_of(job)] for job in jobs[1:]]
    )
    gate.steady.close()
    assert got == [None] * 8
    assert [len(batch) for batch in gate.batches] == [1, 7]
    assert Checkpoint.objects.count() == 8
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(DISTINCT xmin::text) FROM {Checkpoint._meta.db_table}")
            assert cursor.fetchone() == (2,)


@COMMITS
def test_i8_a_lost_lease_of_one_does_not_harm_the_others(jobs: list[Claimed]) -> None:
    gate = Gate()
    rows = [[checkpoint_of(job)] for job in jobs]
    rows[3] = [checkpoint_of(jobs[3], token=jobs[3].token - 1)]
    got = while_one_is_written(Recorder(gate), gate, rows[0], rows[1:])
    gate.steady.close()
    assert [type(error) for error in got] == [LeaseLost if index == 3 else type(None) for index in range(8)]
    assert set(Checkpoint.objects.values_list("job_id", flat=True)) == {job.id for job in jobs} - {jobs[3].id}
    assert len(gate.batches) == 2


@COMMITS
def test_i29_a_row_that_the_database_refuses_does_not_take_the_others_with_it(jobs: list[Claimed]) -> None:
    gate = Gate()
    rows = [[checkpoint_of(job)] for job in jobs]
    rows[5] = [checkpoint_of(jobs[5], result="1", error="both")]  # the CHECK constraint allows one of them
    got = while_one_is_written(Recorder(gate), gate, rows[0], rows[1:])
    gate.steady.close()
    assert isinstance(got.pop(5), DatabaseError)
    assert got == [None] * 7
    assert set(Checkpoint.objects.values_list("job_id", flat=True)) == {job.id for job in jobs} - {jobs[5].id}


@COMMITS
def test_the_event_loop_shares_commits_too(jobs: list[Claimed]) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    scribe = Scribe(recorder)

    async def record() -> None:
        first = asyncio.ensure_future(scribe.record([checkpoint_of(jobs[0])]))
        await asyncio.to_thread(gate.entered.wait, 20)
        others = [asyncio.ensure_future(scribe.record([checkpoint_of(job)])) for job in jobs[1:]]
        await asyncio.sleep(0)
        others[2].cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others, return_exceptions=True)

    asyncio.run(record())
    scribe.close()
    gate.steady.close()
    assert [len(batch) for batch in gate.batches] == [1, 6]
    assert Checkpoint.objects.count() == 7


# Without a database: what happens to the turn -----------------------------------------------------------------------


def row(number: int) -> NewCheckpoint:
    return NewCheckpoint(UUID(int=number), 1, 0, str(number), "f", "call", "1", None)


def accept(rows: Rows) -> Saved:
    return Saved({(one.job_id, one.key) for one in rows}, set(), set())


class Struck(BaseException):
    """Something raised into a thread from outside."""


def test_a_writer_that_is_struck_down_does_not_leave_the_others_believing_they_are_stored() -> None:
    def save(rows: Rows) -> Saved:
        if len(gate.batches) == 2:
            raise Struck
        return accept(rows)

    gate = Gate(save)
    recorder = Recorder(gate)
    got = while_one_is_written(recorder, gate, [row(0)], [[row(n)] for n in range(1, 6)])
    # One of the five led the second commit and was struck; the four others were written after it.
    assert [type(error).__name__ for error in got].count("Struck") == 1
    assert [error for error in got if not isinstance(error, Struck)] == [None] * 5
    assert [len(batch) for batch in gate.batches] == [1, 5, 4]
    recorder.record([row(9)])


class StrikingTurn:
    """A turn whose waiter is struck down at the moment when it gets it."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def acquire(self) -> None:
        self.real.acquire()
        raise Struck

    def release(self) -> None:
        self.real.release()


class StrikingTicket(_Ticket):
    """What the struck thread brings."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups)
        if threading.current_thread().name == "together-1":
            self.turn = StrikingTurn(self.turn)  # type: ignore[assignment]


def test_a_waiting_thread_that_is_struck_down_does_not_keep_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_jobs.durable.recorder._Ticket", StrikingTicket)
    gate = Gate(accept)
    recorder = Recorder(gate)
    got = while_one_is_written(recorder, gate, [row(0)], [[row(1)]])
    assert [type(error) for error in got] == [type(None), Struck]
    together(lambda: recorder.record([row(2)]), seconds=5)  # would wait for ever if the turn had gone with the thread
    assert gate.batches == [["0"], ["2"]]


def test_an_outage_that_lasted_too_long_reaches_every_waiting_job() -> None:
    def save(rows: Rows) -> Saved:
        if len(gate.batches) == 2:
            raise LeaseLost("The database stayed away.")
        return accept(rows)

    gate = Gate(save)
    got = while_one_is_written(Recorder(gate), gate, [row(0)], [[row(n)] for n in range(1, 4)])
    assert got[0] is None
    assert [type(error) for error in got[1:]] == [LeaseLost] * 3
    assert len({id(error) for error in got}) == 4
