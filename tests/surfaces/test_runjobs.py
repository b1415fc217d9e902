"""`manage.py runjobs` as a user meets it: options that are refused, queues that appear, reloading, output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_durable_jobs.models import Job, Queue, Worker
from django_durable_jobs.states import Status
from tests.databases import ROOT, child_environment, django_command
from tests.factories import make_worker, present
from tests.reliability.harness import Stopwatch, Workers
from tests.reliability.process_jobs import hold, remember, say, stepping_out
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--concurrency", "0"], "argument --concurrency: '0' is not a whole number from 1 to 1000"),
        (["--concurrency", "-1"], "'-1' is not a whole number from 1 to 1000"),
        (["--concurrency", "abc"], "'abc' is not a whole number from 1 to 1000"),
        (["--concurrency", "100000"], "'100000' is not a whole number from 1 to 1000"),
        (["--concurrency", "٣"], "is not a whole number from 1 to 1000"),
        (["--processes", "0"], "'0' is not a whole number from 1 to 64"),
        (["--threads", "1.5"], "'1.5' is not a whole number"),
        (["--max-jobs", "0"], "'0' is not a whole number"),
        (["--queue", "a,b"], "argument --queue: queue 'a,b' is not a usable name"),
        (["--queue", "a,b"], "Give --queue once for each; every queue is served when it is left out; known: default"),
        (["--queue", "a, b"], "Give --queue once for each; every queue is served when it is left out; known: default"),
        (["--queue", "*"], "Every queue is served when --queue is left out; known: default"),
        (["--queue", "default", "--queue", "*"], "Every queue is served when --queue is left out; known: default"),
        (["--queue", ""], "Known: default"),
        (["--queue", "a/b"], "argument --queue: "),
        (["--queue", "default=0"], "'0' is not a whole number from 1 to 1000"),
        (["--queue", "default=many"], "'many' is not a whole number from 1 to 1000"),
        (["--queue", "default", "--queue", "default=2"], "--queue names default twice"),
        (["--poll", "0"], "'0' is not a number of seconds from 0.01 to 3600"),
        (["--poll", "nan"], "'nan' is not a number of seconds from 0.01 to 3600"),
        (["--poll", "1e9"], "'1e9' is not a number of seconds from 0.01 to 3600"),
        (["--grace", "-1"], "'-1' is not a number of seconds from 0 to 86400"),
        (["--worker-id", "a\nb"], "'a\\nb': 1 to 150 printable ASCII characters, no blanks"),
        (["--worker-id", "\x1b[31m"], "'\\x1b[31m': 1 to 150 printable"),
        (["--worker-id", "x" * 151], "--worker-id is longer than 150 characters"),
        (["--health-file", "/no/folder/health"], "--health-file /no/folder/health cannot be written: No such file"),
        (["--health-file", "/"], "--health-file / cannot be written: it is there already, and is no empty file"),
        (["--health-file", ""], "--health-file . cannot be written"),
        (["--health-file", "a\0b"], "cannot be written: "),
        (["--health-file", "health", "--autoreload"], "--health-file and --autoreload do not go together"),
        (["--alone"], "--alone needs --queue"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_options_are_answered_by_one_line_and_exit_code_2(
    transactional_db: None,
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """N60–N63: nothing is stored. In this process, through the door that the command line uses."""
    from django.core.management import ManagementUtility  # noqa: PLC0415 -- beside its use: a test of that door

    # With threads of earlier tests alive the command would end this process at once, as it should elsewhere.
    monkeypatch.setattr("django_durable_jobs.management.commands.runjobs.leave", sys.exit)
    with pytest.raises(SystemExit) as end:
        ManagementUtility(["manage.py", "runjobs", *arguments]).execute()
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert expected in lines[0]
    assert Worker.objects.count() == 0


def test_a_file_that_holds_something_is_not_taken_for_a_health_file(transactional_db: None, tmp_path: Path) -> None:
    """It would be gone with the worker."""
    (mine := tmp_path / "settings.py").write_text("DEBUG = False\n")
    with pytest.raises(CommandError, match="is there already, and is no empty file"):
        call_command("runjobs", "--health-file", str(mine), "--queue", "default=1", "--drain")
    assert mine.read_text() == "DEBUG = False\n"


def test_a_real_process_answers_a_wrong_option_by_one_line(transactional_db: None) -> None:
    """N60: the same from outside."""
    ended = subprocess.run(
        django_command("runjobs", "--concurrency", "0"),
        env=child_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "'0' is not a whole number from 1 to 1000" in ended.stderr


def test_the_id_of_a_live_worker_is_refused(workers: Workers) -> None:
    """N63: exit code 2, one line, no row; the id of one that was lost is free."""
    make_worker(name="taken")
    refused = workers.start("--queue", "default=4", name="taken", ready=False)
    assert refused.ended(20) == 2
    assert refused.output.strip().splitlines() == [
        "CommandError: A live worker has the id 'taken'. Stop it, wait for its lease, or choose another id."
    ]
    assert Worker.objects.count() == 1
    Worker.objects.update(stopped_at="2020-01-01T00:00:00Z")
    workers.start("--queue", "default=4", name="taken")


def test_an_unknown_queue_is_a_warning_that_names_the_known_ones(workers: Workers) -> None:
    """N61: queues appear with their first job, so that an unknown one may still come."""
    worker = workers.start("--queue", "nobody-uses-this=1")
    assert "No definition uses the queue 'nobody-uses-this' by default (known: " in worker.output
    assert remember.using(queue="nobody-uses-this").enqueue(workers.ledger, "x").result(15) == "x"


def test_a_queue_that_appears_later_is_served_by_a_worker_of_all_queues(workers: Workers) -> None:
    worker = workers.start()
    assert remember.enqueue(workers.ledger, "x").result(15) == "x"
    assert not Queue.objects.filter(name="brand-new").exists()
    assert remember.using(queue="brand-new").enqueue(workers.ledger, "y").result(15) == "y"
    assert worker.process.poll() is None


def test_a_drained_worker_ends_with_exit_code_0(workers: Workers) -> None:
    """Also jobs that wait for a process of their own are done before the end."""
    handles = [remember.enqueue(workers.ledger, f"{number}") for number in range(20)]
    Job.objects.filter(id=handles[0].id).update(rescues=1)
    worker = workers.start("--queue", "default=4", "--drain", ready=False)
    assert worker.ended(30) == 0
    assert {present(handle.id).status for handle in handles} == {Status.COMPLETED}
    assert "Traceback" not in worker.output


def test_a_worker_of_all_queues_drains_them_all(workers: Workers) -> None:
    handles = [remember.using(queue=f"q{number}").enqueue(workers.ledger, f"{number}") for number in range(5)]
    worker = workers.start("--drain", ready=False)
    assert worker.ended(30) == 0
    assert {present(handle.id).status for handle in handles} == {Status.COMPLETED}


def test_a_worker_ends_after_its_number_of_jobs(workers: Workers) -> None:
    """`--max-jobs`: not one more is claimed, also of many that wait."""
    handles = [remember.enqueue(workers.ledger, f"{number}") for number in range(10)]
    worker = workers.start("--queue", "default=4", "--max-jobs", "3", ready=False)
    assert worker.ended(20) == 0
    jobs = [present(handle.id) for handle in handles]
    assert Counter((job.status, job.attempt) for job in jobs) == {("completed", 1): 3, ("pending", 0): 7}
    assert sum(job.token for job in jobs) == 3


def test_threads_bound_what_runs_at_once_over_all_queues(workers: Workers) -> None:
    """`--threads 2` with two queues of four each."""
    workers.start("--queue", "default=4", "--queue", "other=4", "--threads", "2")
    gate = workers.gate()
    for number in range(4):
        hold.enqueue(workers.ledger, f"d{number}", str(gate))
        hold.using(queue="other").enqueue(workers.ledger, f"o{number}", str(gate))
    workers.noted("begin", 2)
    # Jobs that find no thread go back to their queues within half a second: then two run, and no more have begun.
    eventually(lambda: Job.objects.running().count() == 2, seconds=10)
    assert len(workers.lines("begin")) == 2
    gate.touch()
    workers.noted("end", 8)


def test_what_a_job_prints_is_seen_at_once_although_nobody_reads_a_terminal(workers: Workers) -> None:
    """Output to a file, no controlling terminal, and the process is killed right after."""
    worker = workers.start("--queue", "default=4")
    say.enqueue("printed by a job").result(15)
    worker.says("printed by a job")
    worker.kill()
    assert "printed by a job" in worker.output


def test_a_worker_without_standard_input_and_terminal_stops_by_sigterm(workers: Workers) -> None:
    """As the first process of a container does; such a one gets no default action for signals."""
    worker = workers.start("--queue", "default=4", through=["sh", "-c", 'exec "$@" <&-', "sh"])
    with Stopwatch() as watch:
        worker.send(signal.SIGTERM)
        assert worker.ended(10) == 0
    assert watch.seconds < 5


def test_an_edited_file_restarts_the_worker_and_loses_no_job(workers: Workers) -> None:
    """`--autoreload`: the running job ends in the old process or goes back; the new one runs the new code."""
    module = workers.folder / "reloaded_by_test.py"
    module.write_text("VERSION = 1\n")
    path = {"DURABLE_JOBS_TEST_MODULE": str(module)}
    parent = workers.start("--queue", "default=4", "--autoreload", "--grace", "0.5", environment=path)
    (old,) = Worker.objects.alive().values_list("pid", flat=True)
    assert old != parent.pid
    handle = hold.enqueue(workers.ledger, "x", str(workers.gate()), 30.0)
    workers.noted("begin")
    module.write_text("VERSION = 2\n")
    _touch_until(module, lambda: "The code has changed" in parent.output)
    workers.noted("begin", 2)
    workers.gate().touch()
    assert handle.result(20) == "x"
    job = present(handle.id)
    assert (job.attempt, job.rescues) == (1, 0), "given back, not lost"
    assert parent.output.count("serves default") == 2
    assert not psutil.pid_exists(old)
    module.write_text("this is no Python\n")
    _touch_until(module, lambda: "it is started again when a file changes" in parent.output)
    assert "Traceback" in parent.output
    parent.send(signal.SIGTERM)
    assert parent.ended(15) == 0
    assert Worker.objects.alive().count() == 0


def _touch_until(file: Path, noticed: Callable[[], bool]) -> None:
    """Change the time of a file until that was noticed: the first look at the files may not have been made yet."""

    def touched() -> bool:
        later = file.stat().st_mtime + 10
        os.utime(file, (later, later))
        return noticed()

    eventually(touched, seconds=20)


def test_children_are_started_as_their_parent_was(workers: Workers, tmp_path: Path) -> None:
    """A `manage.py` of its own, settings by option, jobs that change folder and environment: nothing is passed on.

    A job that was rescued runs in a child; it must find the settings, and see the environment of the start.
    """
    script = tmp_path / "run.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        'os.environ.pop("DJANGO_SETTINGS_MODULE", None)\n'
        'os.environ["SET_BY_SCRIPT"] = "yes"\n'
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    environment = workers.environment()
    environment.pop("PYTHONPATH")
    command = [sys.executable, "run.py", "runjobs", "--settings", "tests.settings", "--queue", "default=4"]
    worker = workers.run(command, environment, folder=tmp_path)
    worker.says("Worker ")
    first = stepping_out.enqueue(["SET_BY_SCRIPT", "LEFT_BY_JOB", "PYTHONPATH"])
    assert first.result(15) == [str(worker.pid), "yes", None, None]
    second = stepping_out.enqueue(["SET_BY_SCRIPT", "LEFT_BY_JOB", "PYTHONPATH"])
    assert second.result(15)[2] == "here", "the same process: what the first job did is seen"
    Job.objects.filter(id=second.id).update(status="pending", rescues=1, finished_at=None)
    eventually(lambda: present(second.id).status == Status.COMPLETED, seconds=20)
    pid, *values = second.result()
    assert pid != str(worker.pid)
    assert values == ["yes", None, None]
