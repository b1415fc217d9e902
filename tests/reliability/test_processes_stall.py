"""A worker that is stopped for longer than its lease comes back (X6, X7): what it still wants to write is refused."""

from __future__ import annotations

import signal
from uuid import UUID

import psutil
from django.db import OperationalError, connection, transaction

from django_durable_jobs.models import Checkpoint, Worker
from django_durable_jobs.states import Status
from tests.factories import present
from tests.reliability.harness import RunJobs, Workers
from tests.reliability.process_jobs import hold, hold_then_call, remember, swallow
from tests.waiting import eventually


def _stall_until_taken_over(workers: Workers, zombie: RunJobs, job_id: UUID) -> RunJobs:
    """Stop the process, let its lease run out, and start another worker that begins the job again."""
    _stop_between_transactions(zombie)
    other = workers.start("--queue", "default=4", name="other")
    eventually(lambda: present(job_id).token == 2, seconds=20, what="taken over")
    workers.noted("begin", 2)
    return other


def _stop_between_transactions(zombie: RunJobs) -> None:
    """Stop it where it holds no lock of the database: on SQLite nobody else could write until it goes on."""
    row = Worker.objects.filter(name=zombie.name)
    for _ in range(20):
        before = row.get().seen_at
        zombie.send(signal.SIGSTOP)
        eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_STOPPED)
        try:
            with transaction.atomic():
                # Not waited for where the database can say so at once: the wait would outlast the test.
                row.select_for_update(nowait=connection.features.has_select_for_update_nowait).get()
                row.update(host="stalled")
        except OperationalError:
            zombie.send(signal.SIGCONT)
            eventually(lambda before=before: row.get().seen_at != before)  # type: ignore[misc]  # a lambda's default
        else:
            return
    raise AssertionError("it is always in a transaction")


def test_a_worker_that_was_stalled_stores_no_checkpoint_and_goes_on_with_other_jobs(workers: Workers) -> None:
    """X6, I8, I10: the job's code learns of it at its next durable call; the process stays usable."""
    zombie = workers.start("--queue", "default=4", name="zombie")
    gate = workers.gate()
    handle = hold_then_call.enqueue(workers.ledger, "x", str(gate))
    workers.noted("begin")
    other = _stall_until_taken_over(workers, zombie, handle.id)
    new_owner = workers.lines("begin")[1].split()[-1]
    # Both wake, the zombie first: it must not get its checkpoint in although the new owner has none yet.
    zombie.send(signal.SIGCONT)
    zombie.says("their code is asked to stop")
    gate.touch()
    assert handle.result(20) == "effect x"
    zombie.says("was lost to another worker; its code was stopped")
    job = present(handle.id)
    assert (job.status, job.token, job.attempt) == (Status.COMPLETED, 2, 2)
    assert Checkpoint.objects.filter(job_id=handle.id).count() == 1
    assert len(workers.lines("effect x")) == 1, f"only {new_owner} came as far as the call"
    other.send(signal.SIGTERM)
    assert other.ended() == 0
    assert remember.enqueue(workers.ledger, "later").result(15) == "later", "the stalled process works again"
    assert Worker.objects.alive().get().name == "zombie"


def test_a_stalled_worker_completes_nothing_that_another_one_holds(workers: Workers) -> None:
    """X6, I4, I8: the late completion changes no row, neither before nor after the new owner's."""
    zombie = workers.start("--queue", "default=4", name="zombie")
    mine, theirs = workers.gate("mine"), workers.gate("theirs")
    handle = hold.enqueue(workers.ledger, "x", str(mine))
    workers.noted("begin")
    # The new attempt reads its arguments from the row: there it waits for another gate.
    row = present(handle.id)
    row.payload = row.payload.replace(str(mine), str(theirs))
    row.save(update_fields=["payload"])
    _stall_until_taken_over(workers, zombie, handle.id)
    mine.touch()
    zombie.send(signal.SIGCONT)
    zombie.says("ended here after its lease was lost; nothing was stored")
    job = present(handle.id)
    assert (job.status, job.token, job.result) == (Status.RUNNING, 2, None)
    theirs.touch()
    assert handle.result(20) == "x"


def test_the_result_of_a_zombie_that_swallows_every_exception_is_dropped_and_logged(workers: Workers) -> None:
    """X7, I10: the code goes on against all rules; nothing of it counts."""
    zombie = workers.start("--queue", "default=4", name="zombie")
    gate = workers.gate()
    handle = swallow.enqueue(workers.ledger, "x", str(gate))
    workers.noted("begin")
    _stall_until_taken_over(workers, zombie, handle.id)
    zombie.send(signal.SIGCONT)
    zombie.says("their code is asked to stop")
    gate.touch()
    workers.noted("swallowed LeaseLost")
    zombie.says("ended here after its lease was lost; nothing was stored")
    result = handle.result(20)
    assert result != f"from {zombie.pid}"
    assert workers.lines("swallowed") == [f"swallowed LeaseLost {zombie.pid}"]
    assert remember.enqueue(workers.ledger, "later").result(15) == "later"
