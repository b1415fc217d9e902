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

from django_durable_jobs.clock import SystemClock
from django_durable_jobs.management.commands import jobs
from tests.durable import recorded  # noqa: F401 -- the jobs whose histories are checked
from tests.durable.test_histories import CHANGED, GOES_ON, HISTORIES
from tests.factories import make_checkpoint, make_job
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


def test_each_history_is_a_line() -> None:
    """No database mark: none is needed."""
    files = [HISTORIES / f"{name}.json" for name in GOES_ON]
    out, err = order("replay-check", *files)
    assert out.splitlines() == [
        f"ok  {file}: {made} of {total} calls" for file, (made, total) in zip(files, GOES_ON.values(), strict=True)
    ]
    assert err == ""


def test_histories_that_fail_are_named_with_the_reason_and_the_exit_code_is_1() -> None:
    files = [HISTORIES / f"{name}.json" for name in ("checkout", *CHANGED)]
    code, out, line = refused("replay-check", *files)
    assert (code, line) == (1, f"Of {len(files)} histories: {len(CHANGED)} failed.")
    lines = out.splitlines()
    assert [one.partition("  ")[0] for one in lines] == ["ok"] + ["FAILED"] * len(CHANGED)
    assert "inserted.json: NonDeterminism: Call 2 of job" in lines[1]
    assert "gone.json: UnknownDefinition: No durable job is registered" in out


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


@pytest.mark.parametrize(
    ("settings", "line"), [({"LEESE": 30}, "Did you mean 'LEASE'?"), ({"DETERMINISM": "lax"}, "DETERMINISM")]
)
def test_settings_that_cannot_be_used_are_one_line(settings: dict[str, Any], line: str) -> None:
    done = run("jobs", "replay-check", str(HISTORIES / "gone.json"), DURABLE_JOBS=settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_histories_are_checked_where_there_is_no_database(tmp_path: Path) -> None:
    document = json.loads((HISTORIES / "gone.json").read_text())
    document["job"] |= {"definition": "tests.jobs.add", "payload": {"a": 1, "b": 2}}
    file = tmp_path / "add.json"
    file.write_text(json.dumps(document))
    done = run("jobs", "replay-check", str(file), url="postgresql://nobody@127.0.0.1:1/none")
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (0, f"ok  {file}: 0 of 1 calls, 1 not made any more\n")
