"""Run the test suite once per database: ``python -m tests.lanes [lane ...] [-- pytest arguments]``.

Without names all lanes run: ``sqlite`` (a file), ``postgresql`` (an embedded PostgreSQL 18, made and removed here)
and ``mariadb`` (a server that must answer already). A lane that cannot run is said so in one line; with ``CI`` in
the environment it is a failure. The exit code is 0 only if every lane that ran passed, and at least one test did.

With several lanes, tests that say nothing about a database (marker ``once``) run in the first of them only.
``--processes N`` spreads each lane over so many processes (pytest-xdist, a file stays in one of them), each with a
database of its own. A lane keeps more than one core busy only if the tests of others fill its waits.

``DURABLE_JOBS_TEST_POSTGRESQL`` and ``DURABLE_JOBS_TEST_MARIADB`` take the URL of another server, whose user must be
allowed to create databases.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TextIO, cast
from urllib.parse import urlsplit

import pytest

from tests.databases import LANES, ROOT, RUN_VARIABLE, URL_VARIABLE, Lane, database_prefix
from tests.servers import EmbeddedPostgres, drop_mariadb_databases, drop_postgres_databases, mariadb_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

TITLES: Final[dict[Lane, str]] = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}

MARIADB_URL: Final = "mariadb://root@127.0.0.1:3306/"
"""Where a MariaDB is looked for if the environment names none."""

SERVER_VARIABLES: Final[dict[Lane, str]] = {
    "postgresql": "DURABLE_JOBS_TEST_POSTGRESQL",
    "mariadb": "DURABLE_JOBS_TEST_MARIADB",
}

ABSENT: Final = -1
"""The exit code of a lane that did not run."""

NOT_AGAIN: Final = ("-m", "not once")
"""Leaves out, after the first lane, what another database cannot change; ``-m`` on the command line goes before it."""

GRACE_SECONDS: Final = 20
"""How long an interrupted pytest may take to tidy up."""


class LaneAbsent(Exception):
    """The lane's server is not to be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one lane ended."""

    lane: Lane
    exit_code: int
    note: str = ""
    """Why it did not run, or what is wrong beyond failed tests."""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def acceptable(self) -> bool:
        """Whether this result may stand: everything passed, or the lane is absent where it need not be present."""
        return self.exit_code == 0 or (self.exit_code == ABSENT and not os.environ.get("CI"))


@contextmanager
def server_of(lane: Lane, folder: Path) -> Iterator[str]:
    """Give the URL of a server for the lane, and stop it if it was started here; `LaneAbsent` if there is none.

    SQLite needs no server: its URL is that of a file in `folder`.
    """
    given = os.environ.get(SERVER_VARIABLES.get(lane, ""))
    match lane:
        case "sqlite":
            yield f"sqlite:///{folder / 'outer.sqlite3'}"
        case "postgresql" if given:
            yield given
        case "postgresql":
            # What a vacuum frees of one test, rows of the next would fill in another order than that of their making.
            # No test cuts the power, and those that crash a server have one of their own: the disk is not waited for.
            with EmbeddedPostgres(autovacuum="off", fsync="off", full_page_writes="off") as server:
                yield server.url
        case "mariadb":
            url = given or MARIADB_URL
            if problem := mariadb_problem(url):
                place = urlsplit(url).netloc.rpartition("@")[2]
                raise LaneAbsent(f"no server at {place}: {problem} ({SERVER_VARIABLES['mariadb']} names another)")
            yield url


def remove_test_databases(lane: Lane, url: str, run: str) -> None:
    """Remove what the processes of a test run remove themselves unless they are killed."""
    match lane:
        case "sqlite":
            for file in Path(tempfile.gettempdir()).glob(f"{database_prefix(run)}*"):
                file.unlink(missing_ok=True)
        case "postgresql" if os.environ.get(SERVER_VARIABLES[lane]):
            drop_postgres_databases(url, database_prefix(run))
        case "mariadb":
            drop_mariadb_databases(url, database_prefix(run))


def run_lane(lane: Lane, arguments: Sequence[str], folder: Path) -> Result:
    """Run one lane from server start to server stop; its output is ours."""
    began = time.monotonic()
    report = folder / f"{lane}.xml"
    try:
        with server_of(lane, folder) as url:
            exit_code = _pytest(lane, url, [f"--junitxml={report}", *arguments])
    except LaneAbsent as absent:
        return Result(lane, ABSENT, note=str(absent))
    return _result(lane, report, exit_code, time.monotonic() - began)


def _pytest(lane: Lane, url: str, arguments: Sequence[str]) -> int:
    """Run pytest on the server and return its exit code."""
    run = f"{os.getpid()}_{lane}"
    environment = {**os.environ, URL_VARIABLE: url, RUN_VARIABLE: run}
    # Test databases are removed below, all at once, or with their server: to drop one takes PostgreSQL seconds.
    command = [sys.executable, "-m", "pytest", "--reuse-db", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            _interrupt(process)
        remove_test_databases(lane, url, run)


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """End pytest as Ctrl-C would: fixtures stop the servers and processes they started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _result(lane: Lane, report: Path, exit_code: int, seconds: float) -> Result:
    """Read the counts from pytest's report; without a report pytest did not get as far as running tests."""
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314 - pytest just wrote it
    except (FileNotFoundError, ET.ParseError):
        note = f"pytest ended with {exit_code} and no report"
        return Result(lane, exit_code or 1, note=note, seconds=seconds)
    total, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    passed = max(total - failed - skipped, 0)
    if not passed and not exit_code:
        return Result(lane, 1, note="no test passed", skipped=skipped, seconds=seconds)
    return Result(lane, exit_code, passed=passed, failed=failed, skipped=skipped, seconds=seconds)


def run_lanes(lanes: Sequence[Lane], arguments: Sequence[str], *, processes: int, out: TextIO) -> list[Result]:
    """Run one lane after the other, each spread over so many processes."""
    if processes > 1:
        # In the order of `tests/conftest.py`: a file that takes long must not be begun when the others are done.
        order = "--no-loadscope-reorder"
        arguments = [f"--numprocesses={processes}", "--dist=loadfile", order, *arguments]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="durable-jobs-lanes-", ignore_cleanup_errors=True) as folder:
        for lane in lanes:
            print(f"\n######## {TITLES[lane]} lane ########", file=out, flush=True)
            ran_before = any(result.passed for result in results)
            result = run_lane(lane, [*NOT_AGAIN, *arguments] if ran_before else arguments, Path(folder))
            if ran_before and result.exit_code == pytest.ExitCode.NO_TESTS_COLLECTED:
                result = replace(result, exit_code=0, note="its tests run once, and did in an earlier lane")
            results.append(result)
    return results


def print_summary(results: Sequence[Result], out: TextIO) -> None:
    """Print one line per lane and the sum of all."""
    print("\n######## Lanes ########", file=out)
    for result in results:
        title = TITLES[result.lane]
        if result.exit_code == ABSENT:
            print(f"{title} lane did not run: {result.note}", file=out)
            continue
        verdict = "passed" if result.acceptable else f"FAILED (exit code {result.exit_code})"
        counts = f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped in {result.seconds:.1f} s"
        note = f": {result.note}" if result.note else ""
        print(f"{title} lane {verdict}{note}: {counts}", file=out)
    passed, failed, skipped = (
        sum(getattr(result, name) for result in results) for name in ("passed", "failed", "skipped")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped", file=out, flush=True)


def main(words: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    own = list(words)
    arguments: list[str] = []
    if "--" in own:
        cut = own.index("--")
        own, arguments = own[:cut], own[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m tests.lanes",
        description="Run the test suite once per database.",
        epilog="Everything after -- goes to pytest, in every lane.",
    )
    parser.add_argument("lanes", nargs="*", metavar="lane", help=f"{', '.join(LANES)}; all if none is named")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes of each lane (default: 1)")
    options = parser.parse_args(own)
    if unknown := [name for name in options.lanes if name not in LANES]:
        parser.error(f"no lane is called {unknown[0]!r}; there are {', '.join(LANES)}")
    chosen = cast("list[Lane]", options.lanes) or list(LANES)
    results = run_lanes(chosen, arguments, processes=options.processes, out=sys.stdout)
    print_summary(results, sys.stdout)
    ran = any(result.exit_code != ABSENT for result in results)
    return 0 if ran and all(result.acceptable for result in results) else 1


def _stop_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception, so that servers are stopped and databases dropped."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop_on_signal)
    sys.exit(main(sys.argv[1:]))
