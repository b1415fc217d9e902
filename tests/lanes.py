"""Run the test suite once per database: ``python -m tests.lanes [lane ...] [-- pytest arguments]``.

Without names all lanes run: ``sqlite`` (a file), ``postgresql`` (an embedded PostgreSQL 18, made and removed here)
and ``mariadb`` (a server that must answer already). A lane that cannot run is said so in one line; with ``CI`` in
the environment it is a failure. The exit code is 0 only if every lane that ran passed, and at least one test did.

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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TextIO, cast
from urllib.parse import urlsplit

from tests.databases import LANES, ROOT, URL_VARIABLE, Lane, database_of_test_process
from tests.servers import EmbeddedPostgres, drop_mariadb_database, drop_postgres_database, mariadb_problem

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
            with EmbeddedPostgres() as server:
                yield server.url
        case "mariadb":
            url = given or MARIADB_URL
            if problem := mariadb_problem(url):
                place = urlsplit(url).netloc.rpartition("@")[2]
                raise LaneAbsent(f"no server at {place}: {problem} ({SERVER_VARIABLES['mariadb']} names another)")
            yield url


def remove_test_database(lane: Lane, url: str, pid: int) -> None:
    """Remove what the pytest of this process id removes itself unless it was killed."""
    name = database_of_test_process(lane, pid)
    match lane:
        case "sqlite":
            for file in Path(name).parent.glob(f"{Path(name).name}*"):
                file.unlink(missing_ok=True)
        case "postgresql":
            drop_postgres_database(url, name)
        case "mariadb":
            drop_mariadb_database(url, name)


class LaneRun:
    """One lane: its server, its pytest process, and the file that its output goes to."""

    def __init__(self, lane: Lane, folder: Path, arguments: Sequence[str]) -> None:
        """Prepare to run pytest with `arguments`; files go into `folder`."""
        self.lane = lane
        self.output = folder / f"{lane}.log"
        self.output.touch()
        self._folder = folder
        self._report = folder / f"{lane}.xml"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Result:
        """Run the lane from server start to server stop."""
        began = time.monotonic()
        try:
            with server_of(self.lane, self._folder) as url:
                exit_code = self._pytest(url)
        except LaneAbsent as absent:
            return Result(self.lane, ABSENT, note=str(absent))
        return self._result(exit_code, time.monotonic() - began)

    def terminate(self) -> None:
        """End the pytest process if it runs, as Ctrl-C would: fixtures stop the servers and processes they started."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _pytest(self, url: str) -> int:
        """Run pytest on the server and return its exit code."""
        command = [sys.executable, "-m", "pytest", f"--junitxml={self._report}", *self._arguments]
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, URL_VARIABLE: url},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            exit_code = self._process.wait()
        remove_test_database(self.lane, url, self._process.pid)
        return exit_code

    def _result(self, exit_code: int, seconds: float) -> Result:
        """Read the counts from pytest's report; without a report pytest did not get as far as running tests."""
        try:
            suites = list(ET.parse(self._report).getroot().iter("testsuite"))  # noqa: S314 - pytest just wrote it
        except (FileNotFoundError, ET.ParseError):
            note = f"pytest ended with {exit_code} and no report"
            return Result(self.lane, exit_code or 1, note=note, seconds=seconds)
        total, failures, errors, skipped = (
            sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
        )
        failed = failures + errors
        passed = max(total - failed - skipped, 0)
        if not passed and not exit_code:
            return Result(self.lane, 1, note="no test passed", skipped=skipped, seconds=seconds)
        return Result(self.lane, exit_code, passed=passed, failed=failed, skipped=skipped, seconds=seconds)


def run_lanes(lanes: Sequence[Lane], arguments: Sequence[str], *, together: int, out: TextIO) -> list[Result]:
    """Run lanes, at most `together` at once, and show their output one lane after the other.

    The first lane's output is shown as it comes; what the others say meanwhile is kept until it is their turn.
    """
    with (
        tempfile.TemporaryDirectory(prefix="durable-jobs-lanes-", ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor(max_workers=together) as executor,
    ):
        runs = [LaneRun(lane, Path(folder), arguments) for lane in lanes]
        futures = [executor.submit(run.run) for run in runs]
        try:
            return [_follow(run, future, out) for run, future in zip(runs, futures, strict=True)]
        except BaseException:
            for run, future in zip(runs, futures, strict=True):
                future.cancel()
                run.terminate()
            raise


def _follow(run: LaneRun, future: Future[Result], out: TextIO) -> Result:
    """Copy a lane's output until the lane has ended."""
    print(f"\n######## {TITLES[run.lane]} lane ########", file=out, flush=True)
    with run.output.open(errors="replace") as output:
        while not future.done():
            _copy(output, out)
            with suppress(TimeoutError):
                future.exception(timeout=0.2)
        _copy(output, out)
    return future.result()


def _copy(source: TextIO, out: TextIO) -> None:
    out.write(source.read())
    out.flush()


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
    parser.add_argument("--together", type=int, default=1, metavar="N", help="lanes that run at once (default: 1)")
    options = parser.parse_args(own)
    if unknown := [name for name in options.lanes if name not in LANES]:
        parser.error(f"no lane is called {unknown[0]!r}; there are {', '.join(LANES)}")
    chosen = cast("list[Lane]", options.lanes) or list(LANES)
    results = run_lanes(chosen, arguments, together=max(options.together, 1), out=sys.stdout)
    print_summary(results, sys.stdout)
    ran = any(result.exit_code != ABSENT for result in results)
    return 0 if ran and all(result.acceptable for result in results) else 1


def _stop_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception, so that servers are stopped and databases dropped."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop_on_signal)
    sys.exit(main(sys.argv[1:]))
