"""A worker process dies at the worst moments (X1, X2, X5, X44, X47): what ran, what runs again, what it costs."""

from __future__ import annotations

import pytest

from django_durable_jobs.models import Attempt, Checkpoint, Job, Worker
from django_durable_jobs.states import Status
from tests.factories import present
from tests.reliability.harness import Stopwatch, Workers
from tests.reliability.orders import Action, Order
from tests.reliability.process_jobs import die, remember, steps
from tests.waiting import eventually


def _order(workers: Workers, point: str, action: Action, nth: int = 1, definition: str = "steps") -> Order:
    name = f"tests.reliability.process_jobs.{definition}"
    return Order(point, action, str(workers.folder / "order"), nth, name)


def _dies(workers: Workers, order: Order) -> None:
    """Start a worker that obeys the order, and see it die by it."""
    doomed = workers.start("--queue", "default=4", orders=[order], ready=False)
    assert doomed.ended(20) == (-9 if order.action == "kill" else 9), doomed.output
    assert order.reached.exists()


def test_a_job_whose_worker_dies_before_its_first_step_runs_again_after_one_lease(workers: Workers) -> None:
    """X1, I1, I5, I11."""
    handle = steps.enqueue(workers.ledger, ["a", "b"])
    _dies(workers, _order(workers, "before-body", "kill"))
    with Stopwatch() as watch:
        workers.start("--queue", "default=4")
        assert handle.result(30) == ["a", "b"]
    job = present(handle.id)
    assert (job.attempt, job.token, job.rescues) == (2, 2, 1), "a crash of a worker with this one job counts"
    assert workers.lines() == ["attempt 2", "a", "b"]
    lost = Attempt.objects.get(job_id=job.id)
    assert (lost.number, lost.end) == (1, "lost")
    # P9, B4: the lease of 2 s, the rescue interval, and two interpreters to start on a machine that does more.
    assert watch.seconds < 12


def test_a_step_whose_checkpoint_was_not_written_runs_again_and_is_recorded_once(workers: Workers) -> None:
    """X2, I13, I14, I17."""
    handle = steps.enqueue(workers.ledger, ["a", "b", "c"])
    _dies(workers, _order(workers, "before-checkpoint", "exit", nth=2))
    assert workers.lines() == ["attempt 1", "a", "b"]
    workers.start("--queue", "default=4")
    assert handle.result(30) == ["a", "b", "c"]
    assert workers.lines() == ["attempt 1", "a", "b", "attempt 2", "b", "c"], "b's effect twice, a's once"
    keys = Checkpoint.objects.filter(job_id=handle.id).order_by("key").values_list("key", "result")
    assert list(keys) == [("1", '"a"'), ("2", '"b"'), ("3", '"c"')]


def test_after_the_last_step_a_crash_repeats_no_step(workers: Workers) -> None:
    """X5, I14, I15."""
    handle = steps.enqueue(workers.ledger, ["a", "b", "c"])
    _dies(workers, _order(workers, "after-body", "kill"))
    assert present(handle.id).status == Status.RUNNING
    workers.start("--queue", "default=4")
    assert handle.result(30) == ["a", "b", "c"]
    assert workers.lines() == ["attempt 1", "a", "b", "c", "attempt 2"], (
        "the replay took every value from its checkpoint"
    )
    assert present(handle.id).attempt == 2


@pytest.mark.parametrize("how", ["os._exit(9)", "os._exit(0)", "segfault"])
def test_a_job_that_ends_its_process_uses_up_its_own_attempts_and_nothing_else(workers: Workers, how: str) -> None:
    """X44, I11: alone in the first worker it counts from the start; then each attempt has a process of its own."""
    poison = die.using(retries=1).enqueue(workers.ledger, "poison", how)
    first = workers.start("--queue", "default=4", ready=False)
    assert first.ended(20) in {9, 0, -11}, first.output
    survivor = workers.start("--queue", "default=4")
    workers.noted("poison 2")
    survivor.says("no attempt is left")
    job = present(poison.id)
    assert (job.status, job.attempt) == (Status.FAILED, 2)
    assert "WorkerLost" in str(job.last_error)
    assert len(workers.lines("poison")) == 2
    good = remember.enqueue(workers.ledger, "good")
    assert good.result(10) == "good"
    assert survivor.process.poll() is None


def test_a_job_that_calls_sys_exit_fails_and_its_worker_goes_on(workers: Workers) -> None:
    """X44: what ends a thread by an exception is an error like any other."""
    worker = workers.start("--queue", "default=4")
    job = die.using(retries=1).enqueue(workers.ledger, "leaver", "sys.exit")
    worker.says("failed: SystemExit: 3")
    assert workers.noted("leaver", 2) == [f"leaver 1 {worker.pid}", f"leaver 2 {worker.pid}"]
    assert remember.enqueue(workers.ledger, "good").result(10) == "good"
    assert present(job.id).status == Status.FAILED


def test_a_job_that_kills_its_worker_takes_no_neighbour_with_it(workers: Workers) -> None:
    """X47, I11, I29: the guilty one fails after its attempts; no good job fails or loses one."""
    good = [remember.enqueue(workers.ledger, f"good {number}") for number in range(10)]
    poison = die.using(retries=1).enqueue(workers.ledger, "poison", "os._exit(9)")
    good += [remember.enqueue(workers.ledger, f"good {number}") for number in range(10, 20)]
    fleet = [workers.start("--queue", "default=4", ready=False) for _ in range(2)]
    for handle in good:
        handle.result(40)
        assert present(handle.id).attempt == 1
    failed = [worker for worker in fleet if worker.process.poll() is not None]
    assert len(failed) == 1, "only the first time is it not alone"
    eventually(lambda: present(poison.id).status == Status.FAILED, seconds=30)
    assert present(poison.id).attempt == 2
    assert Attempt.objects.filter(job_id__in=[handle.id for handle in good]).count() == 0
    assert len({line.split()[-1] for line in workers.lines("poison")}) == len(workers.lines("poison"))


def test_processes_for_lost_jobs_that_cannot_begin_are_tried_with_growing_pauses(workers: Workers) -> None:
    """I29: a clear line, no storm of processes, and the other jobs go on."""
    lost = remember.enqueue(workers.ledger, "lost")
    Job.objects.filter(id=lost.id).update(rescues=1)
    worker = workers.start("--queue", "default=4", environment={"DURABLE_JOBS_TEST_BROKEN_CHILD": "1"})
    worker.says("The process for lost jobs ended before it had one (exit code 1); trying again in 2 s")
    with Stopwatch() as watch:
        worker.says("trying again in 4 s")
    assert watch.seconds > 2
    assert worker.output.count("ImportError: broken on purpose") == 2
    assert remember.enqueue(workers.ledger, "good").result(10) == "good"
    assert (present(lost.id).status, present(lost.id).attempt) == (Status.PENDING, 0)


def test_only_as_many_processes_are_started_as_lost_jobs_can_use(workers: Workers) -> None:
    """One quick job needs one process, however long that takes to begin."""
    lost = remember.enqueue(workers.ledger, "lost")
    Job.objects.filter(id=lost.id).update(rescues=1)
    worker = workers.start("--queue", "default=4")
    assert lost.result(20) == "lost"
    worker.says("alone-1 has stopped")
    assert Worker.objects.filter(name__contains="/alone-").count() == 1
