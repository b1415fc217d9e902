"""`runjobs --processes N`: real children that die, end, fail to start, and lose their parent."""

from __future__ import annotations

import signal
from collections import Counter

import psutil

from django_durable_jobs.models import Attempt, Worker
from django_durable_jobs.states import Status
from tests.factories import present
from tests.reliability.harness import RunJobs, Stopwatch, Workers
from tests.reliability.process_jobs import die, hold, remember
from tests.waiting import eventually

DEFAULTS = {"LEASE": 20, "HEARTBEAT": 5, "RESCUE_INTERVAL": 5, "POLL_INTERVAL": 1, "IDLE_POLL_INTERVAL": 5}
"""The times a project has unless it sets others: a death that only a lease tells of takes 20 s."""


def _pids(supervisor: RunJobs, count: int = 2) -> list[int]:
    """Wait until the supervisor has ``count`` workers that have begun; return their process ids."""
    names = [f"{supervisor.name}-{number + 1}" for number in range(count)]
    eventually(
        lambda: Worker.objects.alive().filter(name__in=names).count() == count, seconds=30, what=supervisor.output
    )
    return list(Worker.objects.alive().filter(name__in=names).order_by("name").values_list("pid", flat=True))


def _gone(*pids: int) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def _zombies(supervisor: RunJobs) -> list[int]:
    below = psutil.Process(supervisor.pid).children()
    return [one.pid for one in below if one.is_running() and one.status() == psutil.STATUS_ZOMBIE]


def test_the_jobs_of_a_dead_child_run_again_long_before_their_lease_ends(workers: Workers) -> None:
    """P9, F2, I11: with the default lease of 20 s, within 2 s of the death on a machine that has nothing else to do."""
    supervisor = workers.start("--processes", "2", "--queue", "default=4", settings=DEFAULTS, ready=False)
    _pids(supervisor)
    gate = workers.gate()
    handle = hold.enqueue(workers.ledger, "x", str(gate))
    doomed = int(workers.noted("begin")[0].split()[-1])
    with Stopwatch() as watch:
        psutil.Process(doomed).kill()
        second = int(workers.noted("begin", 2)[1].split()[-1])
    # The machine is shared with other tests; what is proved is that nobody waited for the lease.
    assert watch.seconds < 8
    assert second != doomed
    gate.touch()
    assert handle.result(10) == "x"
    assert present(handle.id).attempt == 2
    eventually(lambda: doomed not in _pids(supervisor), what="started again")
    assert f"{supervisor.name}-" in supervisor.says("ended with exit code -9")
    # One that has just ended is a zombie until the next look; none stays one.
    eventually(lambda: not _zombies(supervisor), seconds=5, what="every child that ended is reaped")


def test_a_supervisor_stops_its_children_in_order(workers: Workers) -> None:
    """I32, X40: two processes, one job each that outlasts the grace time; both go back, all ends with exit code 0."""
    supervisor = workers.start("--processes", "2", "--queue", "default=1", "--grace", "1", ready=False)
    pids = _pids(supervisor)
    handles = [hold.enqueue(workers.ledger, f"x{number}", str(workers.gate()), 60.0) for number in range(2)]
    workers.noted("begin", 2)
    supervisor.send(signal.SIGTERM)
    assert supervisor.ended(12) == 0
    assert _gone(*pids)
    for handle in handles:
        job = present(handle.id)
        assert (job.status, job.attempt, job.rescues) == (Status.PENDING, 0, 0)
    assert Worker.objects.filter(stopped_at=None).count() == 0
    assert "Traceback" not in supervisor.output


def test_a_signal_to_the_whole_group_leaves_the_grace_time_to_the_children(workers: Workers) -> None:
    """Ctrl-C reaches parent and children, and a service manager signals all: that is one wish, not two."""
    supervisor = workers.start("--processes", "1", "--queue", "default=4", "--grace", "20", ready=False)
    (pid,) = _pids(supervisor, 1)
    gate = workers.gate()
    handle = hold.enqueue(workers.ledger, "x", str(gate))
    workers.noted("begin")
    psutil.Process(pid).send_signal(signal.SIGTERM)
    supervisor.send(signal.SIGINT)
    supervisor.says("stops claiming")
    psutil.Process(pid).send_signal(signal.SIGINT)
    workers.beats(f"{supervisor.name}-1")
    assert present(handle.id).status == Status.RUNNING
    gate.touch()
    assert supervisor.ended(12) == 0
    assert present(handle.id).status == Status.COMPLETED


def test_a_second_signal_to_the_supervisor_ends_all_at_once(workers: Workers) -> None:
    """X41, also where a shell has started it in the background: it and its children begin with SIGQUIT ignored."""
    command = ["--processes", "2", "--queue", "default=4", "--grace", "30"]
    supervisor = workers.start(*command, ready=False, through=["sh", "-c", "trap '' QUIT; exec \"$@\"", "sh"])
    pids = _pids(supervisor)
    handle = hold.enqueue(workers.ledger, "x", str(workers.gate()), 60.0)
    workers.noted("begin")
    with Stopwatch() as watch:
        supervisor.send(signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
        assert supervisor.ended(12) == 0
    assert watch.seconds < 8
    assert _gone(*pids)
    assert (present(handle.id).status, present(handle.id).attempt) == (Status.PENDING, 0)


def test_children_notice_the_death_of_their_supervisor_and_stop_cleanly(workers: Workers) -> None:
    """X42: within a heartbeat (0.3 s here); a running job keeps its grace time and then goes back."""
    supervisor = workers.start("--processes", "2", "--queue", "default=4", "--grace", "1", ready=False)
    pids = _pids(supervisor)
    handle = hold.enqueue(workers.ledger, "x", str(workers.gate()), 60.0)
    workers.noted("begin")
    supervisor.kill()
    eventually(lambda: supervisor.output.count("The parent process is gone; this worker stops") == 2, seconds=10)
    eventually(lambda: _gone(*pids), seconds=10)
    job = present(handle.id)
    assert (job.status, job.attempt) == (Status.PENDING, 0)
    assert Worker.objects.filter(stopped_at=None).count() == 0


def test_a_drained_fleet_ends_and_leaves_nothing_behind(workers: Workers) -> None:
    """`--drain` with a job that kills its process: the others are done, it has failed, everything ends with 0."""
    good = [remember.enqueue(workers.ledger, f"good {number}") for number in range(30)]
    poison = die.using(retries=0).enqueue(workers.ledger, "poison", "os._exit(0)")
    supervisor = workers.start("--processes", "2", "--queue", "default=4", "--drain", ready=False)
    assert supervisor.ended(40) == 0
    assert {present(handle.id).status for handle in good} == {Status.COMPLETED}
    assert present(poison.id).status == Status.FAILED
    assert Attempt.objects.exclude(job_id=poison.id).count() == 0
    assert Worker.objects.alive().count() == 0


def test_each_child_ends_after_its_number_of_jobs_and_is_not_started_again(workers: Workers) -> None:
    """`--max-jobs` counts per process."""
    handles = [remember.enqueue(workers.ledger, f"{number}") for number in range(10)]
    supervisor = workers.start("--processes", "2", "--queue", "default=2", "--max-jobs", "3", ready=False)
    assert supervisor.ended(30) == 0
    jobs = [present(handle.id) for handle in handles]
    assert Counter((job.status, job.attempt) for job in jobs) == {("completed", 1): 6, ("pending", 0): 4}
    assert sum(job.token for job in jobs) == 6, "claimed, and not one more"


def test_a_child_that_somebody_stops_is_started_again(workers: Workers) -> None:
    """Exit code 0 of a child that was not drained means that it was told to stop: not by its parent."""
    supervisor = workers.start("--processes", "1", "--queue", "default=4", ready=False)
    (first,) = _pids(supervisor, 1)
    psutil.Process(first).terminate()
    eventually(lambda: Worker.objects.alive().exclude(pid=first).exists(), seconds=20)
    assert remember.enqueue(workers.ledger, "x").result(15) == "x"


def test_children_that_cannot_begin_are_tried_with_growing_pauses(workers: Workers) -> None:
    """A deploy that fails at import: a clear line each time, no storm of processes, and a clean stop."""
    supervisor = workers.start(
        "--processes", "1", "--queue", "default=4", ready=False, environment={"DURABLE_JOBS_TEST_BROKEN_CHILD": "1"}
    )
    supervisor.says("it is started again in 2.0 s")
    assert supervisor.output.count("ended with exit code 1") == 2
    assert "ImportError: broken on purpose" in supervisor.output
    supervisor.send(signal.SIGTERM)
    assert supervisor.ended(10) == 0


def test_two_supervisors_of_one_name_leave_each_other_their_jobs(workers: Workers) -> None:
    """N63: the children of the second are refused; that ends no lease of the first one's workers."""
    first = workers.start("--processes", "1", "--queue", "default=4", name="twin", ready=False)
    (pid,) = _pids(first, 1)
    gate = workers.gate()
    handle = hold.enqueue(workers.ledger, "x", str(gate))
    workers.noted("begin")
    second = workers.start("--processes", "1", "--queue", "default=4", name="twin", ready=False)
    second.says("A live worker has the id 'twin-1'")
    second.says("ended with exit code 2; it is started again in 2.0 s")
    gate.touch()
    assert handle.result(10) == "x"
    job = present(handle.id)
    assert (job.attempt, job.token) == (1, 1), "nobody took it away"
    assert psutil.pid_exists(pid)
