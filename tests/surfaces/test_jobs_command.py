"""``manage.py jobs``: what the verbs print, and how they end."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_durable_jobs import Batch
from django_durable_jobs.clock import SystemClock
from django_durable_jobs.management.commands import jobs
from django_durable_jobs.models import AuditEntry, Job, Queue
from tests.durable import recorded  # noqa: F401 -- the jobs whose histories are checked
from tests.durable.test_histories import CHANGED, GOES_ON, HISTORIES
from tests.factories import make_checkpoint, make_job, make_worker
from tests.surfaces.checking import run


def order(*words: object) -> tuple[str, str]:
    """Run the command and return what it printed to both streams."""
    out, err = io.StringIO(), io.StringIO()
    call_command("jobs", *map(str, words), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def refused(*words: object) -> tuple[int, str, str]:
    """Run an order that fails; return its exit code, what it printed and the line that it ends with."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("jobs", *map(str, words), stdout=out)
    return caught.value.returncode, out.getvalue(), str(caught.value)


# export-history -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_history_is_printed_or_written_to_a_file(tmp_path: Path) -> None:
    job = make_job("failed", payload='{"n":1}')
    make_checkpoint(job, "1")
    printed, _err = order("export-history", job.id)
    assert json.loads(printed)["job"]["id"] == str(job.id)
    file = tmp_path / "history.json"
    assert order("export-history", job.id, "--output", file) == ("", "")
    assert file.read_text() == printed


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", ["00000000-0000-4000-8000-000000000000", "17", "x'\nOR 1=1"])
def test_a_job_that_is_not_there_is_one_line(wrong: str) -> None:
    code, out, line = refused("export-history", wrong)
    assert (code, out) == (1, "")
    assert line.startswith("There is no job")
    assert len(line.splitlines()) == 1


@pytest.mark.django_db
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    job = make_job("failed")
    code, _out, line = refused("export-history", job.id, "--output", tmp_path / "none" / "x.json")
    assert (code, line) == (2, f"{tmp_path}/none/x.json cannot be written: No such file or directory")


# replay-check -------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_each_history_is_a_line() -> None:
    """No database mark: none is needed."""
    files = [HISTORIES / f"{name}.json" for name in GOES_ON]
    out, err = order("replay-check", *files)
    assert out.splitlines() == [
        f"ok  {file}: {made} of {total} calls" for file, (made, total) in zip(files, GOES_ON.values(), strict=True)
    ]
    assert err == ""


@pytest.mark.once
def test_histories_that_fail_are_named_with_the_reason_and_the_exit_code_is_1() -> None:
    files = [HISTORIES / f"{name}.json" for name in ("checkout", *CHANGED)]
    code, out, line = refused("replay-check", *files)
    assert (code, line) == (1, f"Of {len(files)} histories: {len(CHANGED)} failed.")
    lines = out.splitlines()
    assert [one.partition("  ")[0] for one in lines] == ["ok"] + ["FAILED"] * len(CHANGED)
    assert "inserted.json: NonDeterminism: Call 2 of job" in lines[1]
    assert "gone.json: UnknownDefinition: No durable job is registered" in out


@pytest.mark.once
def test_what_cannot_be_read_is_a_line_each_and_the_exit_code_is_2(tmp_path: Path) -> None:
    binary, foreign = tmp_path / "binary", tmp_path / "package.json"
    binary.write_bytes(os.urandom(100))
    foreign.write_text('{"name": "left-pad"}')
    files = [tmp_path / "none.json", tmp_path, binary, foreign, HISTORIES / "inserted.json", HISTORIES / "crawl.json"]
    code, out, line = refused("replay-check", *files)
    assert (code, line) == (2, "Of 6 histories: 4 unreadable, 1 failed.")
    lines = out.splitlines()
    assert len(lines) == 6
    assert lines[0] == f"UNREADABLE  {tmp_path}/none.json: No such file or directory"
    assert lines[1] == f"UNREADABLE  {tmp_path}: Is a directory"
    assert "binary: This is no JSON" in lines[2]
    assert "package.json: This is not the recorded history of a job" in lines[3]
    assert lines[5].startswith("ok  ")


def test_a_file_s_name_stays_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a\n{}\x1b[31m.json"
    file.write_text("{}")
    _code, out, _line = refused("replay-check", file)
    (line,) = out.splitlines()
    assert "a\\n{}\\x1b[31m.json: This is not" in line


def test_a_check_that_takes_longer_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 100, 3))
    monkeypatch.setattr(SystemClock, "monotonic", lambda _clock: float(next(seconds)))
    monkeypatch.setattr(jobs, "_checked", lambda _file: (jobs.OK, ""))
    _out, err = order("replay-check", "a", "b", "c")
    assert "1 of 3 histories are checked" in err
    assert "2 of 3 histories are checked" in err


# As a process -------------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "the following arguments are required: VERB"),
        (["chek"], "argument VERB: invalid choice: 'chek' (choose from"),
        (["replay-check"], "the following arguments are required: FILE"),
        (["export-history"], "the following arguments are required: JOB_ID"),
        (["export-history", "--colour", "x"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], line: str) -> None:
    done = run("jobs", *words)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.once
@pytest.mark.parametrize(
    ("settings", "line"), [({"LEESE": 30}, "Did you mean 'LEASE'?"), ({"DETERMINISM": "lax"}, "DETERMINISM")]
)
def test_settings_that_cannot_be_used_are_one_line(settings: dict[str, Any], line: str) -> None:
    done = run("jobs", "replay-check", str(HISTORIES / "gone.json"), DURABLE_JOBS=settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.once
def test_histories_are_checked_where_there_is_no_database(tmp_path: Path) -> None:
    document = json.loads((HISTORIES / "gone.json").read_text())
    document["job"] |= {"definition": "tests.jobs.add", "payload": {"a": 1, "b": 2}}
    file = tmp_path / "add.json"
    file.write_text(json.dumps(document))
    done = run("jobs", "replay-check", str(file), url="postgresql://nobody@127.0.0.1:1/none")
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (0, f"ok  {file}: 0 of 1 calls, 1 not made any more\n")


# Orders and looks ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_job_is_paused_resumed_and_cancelled_and_the_audit_says_by_whom() -> None:
    job = make_job("pending")
    assert order("pause", job.id, "--reason", "wait")[0].strip() == f"pause job {job.id}: done, now paused"
    assert order("resume", job.id)[0].strip() == f"resume job {job.id}: done, now pending"
    assert order("cancel", job.id)[0].strip() == f"cancel job {job.id}: done, now cancelled"
    entries = AuditEntry.objects.order_by("id").values_list("verb", "surface", "outcome")
    assert list(entries) == [(verb, "command", "done") for verb in ("pause", "resume", "cancel")]
    assert AuditEntry.objects.order_by("id")[0].given == {"reason": "wait"}
    assert AuditEntry.objects.exclude(by="").count() == 3


@pytest.mark.django_db
def test_a_queue_and_a_worker_are_paused() -> None:
    Queue.objects.create(name="mail")
    worker = make_worker()
    assert order("pause-queue", "mail", "--mode", "aggressive")[0].strip() == "pause queue mail: done, now paused"
    assert order("pause-worker", worker.name)[0].strip() == f"pause worker {worker.name}: done, now paused"
    shown = json.loads(order("queues", "--output", "json")[0])
    assert [(queue["name"], queue["paused"], queue["pause_mode"]) for queue in shown] == [("mail", True, "aggressive")]
    assert "paused=True" in order("workers")[0]


@pytest.mark.django_db
def test_a_refusal_is_one_line_in_the_operations_words_and_exit_code_1() -> None:
    job = make_job("completed")
    code, out, line = refused("pause", job.id)
    assert (code, out) == (1, "")
    assert line.startswith(f"Job {job.id} is completed: only a job that is")
    for words, said in (
        (("pause", "17"), "There is no job"),
        (("pause-queue", "nothing"), "There is no queue"),
        (("pause", job.id, "--mode", "gentle"), "mode must be"),
        (("list", "--status", "odd"), "There is no status"),
        (("list", "--limit", "0"), "--limit must be"),
        (("inspect", "17"), "There is no job"),
    ):
        code, _out, line = refused(*words)
        assert (code, line.startswith(said), len(line.splitlines())) == (1, True, 1), line


@pytest.mark.django_db
def test_n65_deleting_without_a_terminal_needs_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job("failed")
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert refused("delete", job.id)[0] == 1
    assert Job.objects.filter(id=job.id).exists()
    assert order("delete", job.id, "--yes")[0].strip() == f"delete job {job.id}: done"
    assert not Job.objects.exists()


@pytest.mark.django_db
def test_jobs_are_listed_and_one_is_inspected() -> None:
    job = make_job("failed", queue="mail", last_error="ValueError: \x1b[2Jno")
    make_job("completed")
    text = order("list", "--status", "failed,cancelled", "--queue", "mail")[0]
    assert str(job.id) in text
    assert len(text.splitlines()) == 1
    shown = order("inspect", job.id)[0]
    assert "status: failed" in shown
    assert "\x1b" not in shown
    assert json.loads(order("inspect", job.id, "--output", "json")[0])["queue"] == "mail"
    assert order("approvals")[0].strip() == "none"
    assert order("batches")[0].strip() == "none"
    batch = Batch.open("newsletter")
    assert str(batch.id) in order("batches")[0]
    assert order("explain", job.id)[0].strip() == "ENDED: It has ended: it is failed."
    assert json.loads(order("explain", job.id, "--output", "json")[0])["code"] == "ENDED"
