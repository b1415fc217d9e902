"""The main demo, run as a user runs it, on a small slice of the standard library.

What the demo claims is compared with the file system and with rows that are read here, not with its own words.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, ProxyHandler, build_opener
from uuid import uuid4

import psutil
import pymysql
import pytest

from tests.acceptance.example import SLICE, Example, Finished, files_of
from tests.databases import Lane, current_url, database_settings, lane_of, renamed
from tests.servers import drop_mariadb_databases

pytestmark = pytest.mark.timeout(240)


def only_in(lane: Lane) -> pytest.MarkDecorator:
    return pytest.mark.skipif(lane_of(current_url()) != lane, reason=f"the demo on this database: {lane} lane")


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return Example(tmp_path)


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def slice_of_the_library() -> str:
    return ",".join(SLICE)


OF_THE_PARENT = ("find_files", "gather begun", "gather", "write_report")
"""What the parent's checkpoints hold."""

TAMPERING = """
from demo.proof import Call, Work, judge
from stdlib_index.models import LedgerRow, Run
run = Run.objects.get()
first = LedgerRow.objects.filter(run=run).order_by("id")[0]
this = {"job": first.job, "number": first.number}
paths = {Call(row.job, row.number): row.path for row in LedgerRow.objects.filter(run=run)}
work = Work(run, paths, first.job)
claims = lambda: {text.split(":")[0]: true for true, text in judge(work, first.worker, {Call(**this)}, 4).claims}
print("as it was:", claims()["Checkpointed before the kill"], claims()["Ledger rows"])
first.id = None
first.save()
print("one row more:", claims()["Checkpointed before the kill"])
LedgerRow.objects.filter(**this).delete()
print("no row:", claims()["Ledger rows"])
"""


def check_proof(ended: Finished) -> None:
    """Compare the numbers of the printed proof with the number of files there are."""
    files = sum(len(files_of(package)) for package in SLICE)
    assert ended.exit_code == 0, ended.output
    assert "  NOT " not in ended.output
    before = ended.number(r"Checkpointed before the kill: (\d+)")
    in_flight = ended.number(r"In flight at the kill: (\d+)")
    after = ended.number(r"Begun after the kill: (\d+)")
    twice = ended.number(r"Ran twice: (\d+)")
    assert files // 2 <= before < files
    assert ended.number(r"Ran exactly once: (\d+) of them") == before
    assert twice <= in_flight <= 4
    assert before + in_flight + after == files
    assert ended.number(r"Ledger rows: (\d+)") == files + twice
    assert ended.number(r"modules +([\d,]+)") == files


@only_in("sqlite")
def test_demo_indexes_every_file_once_and_a_second_demo_begins_anew(example: Example) -> None:
    ended = example.run("demo", "--packages", "lib2to3,email,json")
    assert ended.exit_code == 0, ended.output
    files = [*files_of("email"), *files_of("json"), *files_of("lib2to3")]
    parsed = dict(rows(example.database, "SELECT path, lines FROM stdlib_index_module"))
    unparsable = rows(example.database, "SELECT path, reason FROM stdlib_index_unparsablefile")
    assert sorted([*parsed, *(path for path, _reason in unparsable)]) == sorted(files)
    assert "lib2to3/tests/data/py2_test_grammar.py" in {path for path, _reason in unparsable}
    assert all(reason.startswith("SyntaxError: ") for _path, reason in unparsable)
    assert sorted(rows(example.database, "SELECT path FROM stdlib_index_ledgerrow")) == sorted(
        (path,) for path in files
    )
    assert rows(example.database, "SELECT count(*) FROM django_durable_jobs_checkpoint") == [
        (len(files) + len(OF_THE_PARENT),)
    ]
    assert rows(example.database, "SELECT status, count(*) FROM django_durable_jobs_job GROUP BY 1") == [
        ("completed", 4)
    ]
    assert ended.number(r"lines +([\d,]+)") == sum(parsed.values())
    largest = sorted(parsed.items(), key=lambda row: (-row[1], row[0]))[:10]
    printed = [f"{lines:>10,}  {path}" for path, lines in largest]
    assert "\n  ".join(printed) in ended.output
    assert ended.number(r"(\d+) files/s, ") > 0

    assert "new: it stays until the next demo" in ended.output

    again = example.run("demo", "--packages", "json")
    assert again.exit_code == 0, again.output
    assert "that of the last demo was removed" in again.output
    assert rows(example.database, "SELECT count(*) FROM stdlib_index_run") == [(1,)]
    given = example.run("demo", "--packages", "json", "--database", f"sqlite:///{example.database}")
    assert given.exit_code == 0, given.output
    assert "2 jobs of an earlier demo; nothing else" in given.output
    assert rows(example.database, "SELECT count(*) FROM django_durable_jobs_job") == [(2,)]


@only_in("sqlite")
def test_killed_worker_loses_nothing_and_repeats_only_what_was_in_flight(example: Example) -> None:
    ended = example.run("demo", "--kill", "--packages", slice_of_the_library())
    check_proof(ended)
    runs = Counter(rows(example.database, "SELECT job, number FROM stdlib_index_ledgerrow"))
    ran_again = {call for call, times in runs.items() if times > 1}
    named = set(re.findall(r"\(call (\d+) of job ([0-9a-f-]+)\)", ended.output))
    assert ran_again <= {(job.replace("-", ""), int(number)) for number, job in named}
    assert max(runs.values()) <= 2
    assert rows(example.database, "SELECT count(DISTINCT worker) >= 2 FROM stdlib_index_ledgerrow") == [(1,)]
    # The proof must be able to fail: a call that was checkpointed by the dead worker "runs" once more.
    tampered = example.run("shell", "-c", TAMPERING)
    assert tampered.exit_code == 0, tampered.output
    assert "as it was: True True" in tampered.output
    assert "one row more: False" in tampered.output
    assert "no row: False" in tampered.output


@only_in("postgresql")
def test_the_same_holds_on_an_embedded_postgresql_that_is_gone_afterwards(example: Example) -> None:
    running = example.start("demo", "--postgres", "--kill", "--packages", slice_of_the_library())
    try:
        running.wait_for("Enqueued")
        servers = [process for process in running.processes() if process.name() == "postgres"]
        ended = running.finish()
    finally:
        running.end()
    check_proof(ended)
    assert "on PostgreSQL" in ended.output
    assert not any(server.is_running() for server in servers)


@pytest.fixture
def own_database() -> Iterator[str]:
    """A database of this test on the lane's server, as a user would name it."""
    name = f"demo_{uuid4().hex[:12]}"
    url = current_url()
    settings = database_settings(url)
    given = {"host": settings["HOST"], "user": settings["USER"], "password": settings["PASSWORD"]}
    socket = settings["OPTIONS"].get("unix_socket")
    with pymysql.connect(**given, port=int(settings["PORT"] or 3306), unix_socket=socket) as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")
    yield renamed(url, name)
    drop_mariadb_databases(url, name)


@only_in("mariadb")
def test_the_same_holds_on_a_database_given_by_its_url(example: Example, own_database: str) -> None:
    ended = example.run("demo", "--kill", "--packages", slice_of_the_library(), "--database", own_database)
    check_proof(ended)
    assert not example.database.exists()


def browser() -> OpenerDirector:
    """A browser with cookies that asks no proxy for this machine."""
    return build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))


@only_in("sqlite")
def test_serve_lets_the_user_into_the_admin_until_ctrl_c(example: Example) -> None:
    running = example.start("demo", "--serve", "--packages", "json")
    try:
        address = running.wait_for(r"Address +(http://127\.0\.0\.1:\d+/admin/)\n")
        password = running.wait_for(r"Password +(\S+)\n")
        running.wait_for("Ctrl-C")
        children = running.processes()
        assert len(children) >= 2
        opener = browser()
        login = opener.open(f"{address}login/", timeout=10).read().decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', login)
        assert token
        form = {"username": "demo", "password": password, "csrfmiddlewaretoken": token[1], "next": "/admin/"}
        page = opener.open(f"{address}login/", urlencode(form).encode(), timeout=10).read().decode()
        assert "Log out" in page
        jobs = opener.open(f"{address}django_durable_jobs/job/", timeout=10).read().decode()
        assert "stdlib_index.jobs.index_package" in jobs
        second = example.run("demo", "--packages", "json")
        assert second.exit_code == 1
        assert "Another demo runs" in second.output
        running.interrupt()
        ended = running.finish()
    finally:
        running.end()
    assert ended.exit_code == 0, ended.output
    assert "Traceback" not in ended.output
    assert not any(child.is_running() for child in children)


@only_in("sqlite")
def test_ctrl_c_in_the_middle_ends_the_worker_too(example: Example) -> None:
    running = example.start("demo", "--packages", "test")
    try:
        running.wait_for(r" of \d+ files")
        children = running.processes()
        assert [child for child in children if "runjobs" in child.cmdline()]
        running.interrupt()
        ended = running.finish()
    finally:
        running.end()
    assert ended.exit_code == 130
    assert ended.output.endswith("Stopped; nothing of it runs any more.\n")
    assert "Traceback" not in ended.output
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert gone
    assert not alive


@only_in("sqlite")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("--database", "sqlite:///:memory:"), 1, "the worker is another process"),
        (("--database", "sqlite:////no/such/folder/file"), 1, "unable to open database file"),
        (("--database", "postgresql://nobody@127.0.0.1:1/x"), 1, "The database cannot be used: "),
        (("--database", "mariadb://nobody@127.0.0.1:1/x"), 1, "The database cannot be used: "),
        (("--packages", "jsn"), 1, "has no package 'jsn'. Did you mean 'json'?"),
        (("--port", "0"), 2, "'0' is not a port from 1 to 65535"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_said_in_one_line(
    example: Example, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    ended = example.run("demo", *arguments)
    assert ended.exit_code == exit_code
    assert said in ended.output
    assert len(ended.output.splitlines()) == 1
    assert "Traceback" not in ended.output


@only_in("sqlite")
def test_an_unreadable_url_in_the_environment_is_said_in_one_line_too(example: Example) -> None:
    for url, said in {
        "oracle://x/y": "A database URL begins with one of sqlite://",
        "postgresql://host:port/x": "The database URL cannot be read: ",
        "postgresql://host": "names no database",
        "sqlite://file": "three slashes",
    }.items():
        ended = example.run("check", DEMO_DATABASE_URL=url)
        assert ended.exit_code == 1
        assert said in ended.output
        assert len(ended.output.splitlines()) == 1


@only_in("sqlite")
def test_the_control_room_shows_how_soon_a_fleet_obeys(example: Example) -> None:
    ended = example.run("control_room")
    assert ended.exit_code == 0, ended.output
    for order in (
        "pause mail",
        "resume mail",
        "cancel a workflow",
        "throttle reports",
        "throttle of reports taken back",
    ):
        assert re.search(rf"^ *[\d.]+ ms {order}", ended.output, re.MULTILINE), ended.output
    # The command itself compares this with the rows, and fails when it is more.
    assert ended.number(r"at most (\d+) jobs of it began in any second") <= 50
    assert ended.number(r"and (\d+) in four") >= 100
    kept = rows(example.database, "SELECT status, count(*) FROM django_durable_jobs_job GROUP BY status")
    assert dict(kept)["cancelled"] == 1
    assert "running" not in dict(kept)
