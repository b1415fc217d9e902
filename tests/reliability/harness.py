"""Real `runjobs` processes for tests: started on the test's database, signalled, watched, and ended by their ids.

The fixture `workers` (named in `tests/conftest.py`) gives a `Workers`. What a process wrote is in a file that a
failing test shows; when it is ready is told by its row.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil
import pytest
from django.db import connections

from django_durable_jobs.models import Worker
from tests.databases import ROOT, child_environment, django_command
from tests.reliability.orders import Order, in_environment
from tests.waiting import eventually

SETTINGS: Final[dict[str, Any]] = {
    # Short, so that a test of a lost lease is short; long enough for a machine that does other things too.
    "LEASE": 2.0,
    "HEARTBEAT": 0.3,
    "RESCUE_INTERVAL": 0.3,
    "POLL_INTERVAL": 0.05,
    "IDLE_POLL_INTERVAL": 0.5,
    "GRACE": 2.0,
}
# The tests may have been started by nohup, or in the background of a script, where Ctrl-C is ignored. A signal that is
# ignored stays so in children, one that is handled does not.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

START: Final = 20.0
"""Seconds that a worker may take to begin, on a loaded machine."""


class RunJobs:
    """One `runjobs` process."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path = ROOT
    ) -> None:
        """Start it, in a session of its own: no terminal, and no signal meant for the tests reaches it."""
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything it has written."""
        return self.log.read_text(errors="replace")

    def send(self, *signals: signal.Signals) -> None:
        """Send signals, one right after the other."""
        for one in signals:
            self.process.send_signal(one)

    def kill(self) -> None:
        """End it by SIGKILL and wait for that."""
        self.process.kill()
        self.process.wait(10)

    def ended(self, seconds: float = 15) -> int:
        """Wait for its end and return the exit code; negative is a signal's number."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds} s:\n{self.output}") from None

    def says(self, text: str, seconds: float = START) -> str:
        """Wait until it has written this text; return all it has written."""
        with suppress(AssertionError):
            eventually(lambda: text in self.output or self.process.poll() is not None, seconds=seconds)
        code = self.process.poll()
        assert text in self.output, f"{self.name} (exit code {code}) did not say {text!r}:\n{self.output}"
        return self.output

    def children(self) -> list[psutil.Process]:
        """The processes below it that live."""
        try:
            below = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in below if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


class Workers:
    """Starts workers and ends all that is left of them."""

    def __init__(self, folder: Path) -> None:
        """Keep ledgers, gates and logs in this folder."""
        self.folder = folder
        self.ledger = str(folder / "ledger")
        self._started: list[RunJobs] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Kill what still runs, by process id: what may hold locks before the database is asked for orphans."""
        for pids in (self._ours(), self._orphans()):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for one in self._started:
            one.process.wait(10)
            print(f"---- {one.name}\n{one.output}")  # noqa: T201 -- pytest shows it with a test that failed
        connections.close_all()

    def start(
        self,
        *arguments: str,
        name: str = "",
        orders: Sequence[Order] = (),
        settings: Mapping[str, Any] | None = None,
        ready: bool = True,
        environment: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> RunJobs:
        """Start ``runjobs`` with these arguments, ``through`` another program if given; return when it has begun."""
        name = name or f"one-{len(self._started) + 1}"
        command = [*through, *django_command("runjobs", "--worker-id", name, *arguments)]
        one = self.run(command, self.environment(settings, **in_environment(list(orders)), **(environment or {})), name)
        if ready:
            one.says("Worker ")
        return one

    def environment(self, settings: Mapping[str, Any] | None = None, **extra: str) -> dict[str, str]:
        """Return the environment of a worker on this test's database."""
        given = json.dumps({**SETTINGS, **(settings or {})})
        return child_environment(DURABLE_JOBS_TEST_SETTINGS=given, **extra)

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], name: str = "own", folder: Path = ROOT
    ) -> RunJobs:
        """Start a process by a command line of the test's own."""
        one = RunJobs(name, command, environment, self.folder / f"{len(self._started)}-{name}.log", folder)
        self._started.append(one)
        return one

    def beats(self, name: str, count: int = 2) -> None:
        """Wait until a worker has beaten so often: whatever it was told before that, it has done by then."""
        for _ in range(count):
            row = Worker.objects.filter(name=name)
            before = row.get().seen_at
            eventually(lambda: row.get().seen_at != before, what=f"a heartbeat of {name}")  # noqa: B023 -- ends here

    def gate(self, name: str = "gate") -> Path:
        """Return a file that jobs wait for."""
        return self.folder / name

    def lines(self, start: str = "") -> list[str]:
        """Return the lines of the ledger that begin so."""
        try:
            text = Path(self.ledger).read_text()
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.startswith(start)]

    def noted(self, start: str, count: int = 1, seconds: float = START) -> list[str]:
        """Wait until the ledger has ``count`` lines that begin so, and return them."""
        eventually(lambda: len(self.lines(start)) >= count, seconds=seconds, what=f"{start!r} in {self.lines()}")
        return self.lines(start)

    def _ours(self) -> set[int]:
        """Find what was started here and lives."""
        started = {one.pid for one in self._started if one.process.poll() is None}
        return started | {child.pid for one in self._started for child in one.children()}

    def _orphans(self) -> Iterator[int]:
        """Find what has lost its parent: it has a row in the database."""
        for pid in Worker.objects.values_list("pid", flat=True):
            with suppress(psutil.Error):
                if "runjobs" in psutil.Process(pid).cmdline():
                    yield pid


class Stopwatch:
    """Measures how long a block takes; ``seconds`` counts on until the block ends."""

    def __enter__(self) -> Self:
        """Begin."""
        self._began = time.monotonic()
        self._ended: float | None = None
        return self

    def __exit__(self, *_exception: object) -> None:
        """End."""
        self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """The length so far."""
        return (time.monotonic() if self._ended is None else self._ended) - self._began


@pytest.fixture
def workers(transactional_db: None, tmp_path: Path) -> Iterator[Workers]:
    """Real worker processes on this test's database; ended before its rows are."""
    with Workers(tmp_path) as started:
        yield started
