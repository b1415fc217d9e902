"""Stopping a worker by signals (X40, X41): nothing is lost, no attempt is used up, and it does end."""

from __future__ import annotations

import signal

from django_durable_jobs.models import Job, Worker
from django_durable_jobs.states import Status
from tests.factories import present
from tests.reliability.harness import Stopwatch, Workers
from tests.reliability.process_jobs import hold, hold_on_loop, leave_a_thread, remember

NOISE = ["Traceback", "Fatal Python error", "Exception ignored", "was destroyed but it is pending"]


def _is_quiet(output: str) -> bool:
    return not any(text in output for text in NOISE)


def test_a_job_that_outlasts_the_grace_time_goes_back_with_its_attempt(workers: Workers) -> None:
    """X40, I12, I32: pending again, attempt given back, the process ends within 2–3 s with exit code 0."""
    worker = workers.start("--queue", "default=4", "--grace", "2")
    handle = hold.enqueue(workers.ledger, "long", str(workers.gate()), 30.0)
    workers.noted("begin")
    with Stopwatch() as watch:
        worker.send(signal.SIGTERM)
        later = remember.enqueue(workers.ledger, "after the signal")
        assert worker.ended(10) == 0
    assert 1.9 < watch.seconds < 4
    job = present(handle.id)
    assert (job.status, job.attempt, job.token, job.rescues) == (Status.PENDING, 0, 1, 0)
    assert present(later.id).token <= 1, "claimed at most in the moment of the signal"
    assert Worker.objects.get().stopped_at is not None
    assert _is_quiet(worker.output)


def test_a_job_that_ends_within_the_grace_time_is_completed(workers: Workers) -> None:
    """I32: running jobs may end; jobs that have not begun go back at once."""
    worker = workers.start("--queue", "default=1", "--grace", "20")
    gate = workers.gate()
    running = hold.enqueue(workers.ledger, "short", str(gate))
    workers.noted("begin")
    waiting = [remember.enqueue(workers.ledger, f"waiting {number}") for number in range(5)]
    worker.send(signal.SIGTERM)
    worker.says("stops claiming")
    gate.touch()
    assert worker.ended(10) == 0
    assert present(running.id).status == Status.COMPLETED
    states = {(present(one.id).status, present(one.id).attempt) for one in waiting}
    assert states == {(Status.PENDING, 0)}
    assert workers.lines("waiting") == []


def test_prefetched_jobs_go_back_at_the_signal_not_at_the_end(workers: Workers) -> None:
    """I12, I28: another worker can take them while the first one still waits for a long job."""
    worker = workers.start("--queue", "default=1", "--grace", "20")
    for handle in remember.enqueue_many([(workers.ledger, f"quick {number}") for number in range(300)]):
        handle.result(20)
    # So quick that the lane now holds some in advance, behind a long one.
    gate = workers.gate()
    long = hold.using(priority=100).enqueue(workers.ledger, "long", str(gate))
    behind = remember.enqueue_many([(workers.ledger, f"behind {number}") for number in range(300)])
    workers.noted("begin")
    worker.send(signal.SIGTERM)
    other = workers.start("--queue", "default=4")
    for handle in behind:
        handle.result(20)
    assert {present(handle.id).attempt for handle in behind} == {1}
    assert present(long.id).status == Status.RUNNING, "the first worker still is within its grace time"
    gate.touch()
    assert long.result(10) == "long"
    assert worker.ended(10) == 0
    assert other.process.poll() is None


def test_async_jobs_are_cancelled_after_the_grace_time_and_go_back(workers: Workers) -> None:
    """I12, I32."""
    worker = workers.start("--queue", "default=4", "--grace", "0.5")
    handle = hold_on_loop.enqueue(workers.ledger, "async", str(workers.gate()))
    workers.noted("begin")
    worker.send(signal.SIGTERM)
    assert worker.ended(8) == 0
    assert workers.lines("cancelled") == [f"cancelled async {worker.pid}"]
    job = present(handle.id)
    assert (job.status, job.attempt) == (Status.PENDING, 0)
    assert _is_quiet(worker.output)


def test_many_signals_end_a_worker_at_once_and_still_in_order(workers: Workers) -> None:
    """X41: no grace time, no traceback, no deadlock; the running job goes back with its attempt."""
    worker = workers.start("--queue", "default=4", "--grace", "30")
    handle = hold.enqueue(workers.ledger, "long", str(workers.gate()), 60.0)
    workers.noted("begin")
    with Stopwatch() as watch:
        worker.send(signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
        assert worker.ended(8) == 0
    assert watch.seconds < 4
    job = present(handle.id)
    assert (job.status, job.attempt) == (Status.PENDING, 0)
    assert _is_quiet(worker.output)


def test_a_second_signal_during_the_grace_time_ends_it(workers: Workers) -> None:
    """X41."""
    worker = workers.start("--queue", "default=4", "--grace", "30")
    hold.enqueue(workers.ledger, "long", str(workers.gate()), 60.0)
    workers.noted("begin")
    worker.send(signal.SIGINT)
    worker.says("stops claiming")
    worker.send(signal.SIGINT)
    assert worker.ended(5) == 0
    assert "1 jobs still ran and go back" in worker.output


def test_signals_in_every_moment_of_a_start_and_a_stop_never_hang_it(workers: Workers) -> None:
    """X41: a storm of signals while the main thread goes through all its waits."""
    worker = workers.start("--queue", "default=4", "--grace", "30")
    for _ in range(300):
        worker.send(signal.SIGHUP)
    assert worker.ended(8) == 0
    assert _is_quiet(worker.output)


def test_a_thread_that_never_ends_does_not_keep_the_process(workers: Workers) -> None:
    """A job started a thread that is no daemon: Python would wait for it for ever."""
    worker = workers.start("--queue", "default=4")
    assert leave_a_thread.enqueue(workers.ledger).result(15) is None
    worker.send(signal.SIGTERM)
    # Sooner than the last resort, which would end it after five seconds.
    assert worker.ended(4) == 0
    assert _is_quiet(worker.output)


def test_a_worker_started_to_ignore_hangups_ignores_them(workers: Workers) -> None:
    """As `nohup` does; closing the terminal must not stop it."""
    worker = workers.start("--queue", "default=4", through=["nohup"])
    worker.send(signal.SIGHUP)
    workers.beats(worker.name)
    assert remember.enqueue(workers.ledger, "after").result(15) == "after"
    worker.send(signal.SIGTERM)
    assert worker.ended() == 0


def test_a_job_in_quarantine_goes_back_when_the_worker_that_started_its_process_stops(workers: Workers) -> None:
    """I12, I32: one grace time for both, not one after the other; the attempt is given back."""
    handle = hold.enqueue(workers.ledger, "alone", str(workers.gate()), 60.0)
    Job.objects.filter(id=handle.id).update(rescues=1)
    worker = workers.start("--queue", "default=4", "--grace", "1")
    alone = int(workers.noted("begin")[0].split()[-1])
    assert alone != worker.pid
    with Stopwatch() as watch:
        worker.send(signal.SIGTERM)
        assert worker.ended(10) == 0
    assert watch.seconds < 5
    job = present(handle.id)
    assert (job.status, job.attempt, job.rescues) == (Status.PENDING, 0, 1)
    assert Worker.objects.filter(stopped_at=None).count() == 0


def test_many_signals_end_a_process_in_quarantine_too(workers: Workers) -> None:
    """X41."""
    handle = hold.enqueue(workers.ledger, "alone", str(workers.gate()), 60.0)
    Job.objects.filter(id=handle.id).update(rescues=1)
    worker = workers.start("--queue", "default=4", "--grace", "30")
    workers.noted("begin")
    with Stopwatch() as watch:
        worker.send(signal.SIGTERM, signal.SIGINT)  # two of a kind may arrive as one
        assert worker.ended(10) == 0
    assert watch.seconds < 6
    assert (present(handle.id).status, present(handle.id).attempt) == (Status.PENDING, 0)
