"""A process that has imported what no guard is part of, and is forked for each trial of one.

Half of a trial would be such imports. What comes from the tree (the package, the tests) is imported in the fork, from
the copy that it is told.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import Final, NoReturn

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
IMPORTED: Final = (
    "asyncio",
    "django.core.management.commands.migrate",
    "django.db.backends.sqlite3.base",
    "django.test",
    "django.test.runner",
    "django.urls",
    "hypothesis",
    "msgspec",
    "psutil",
    "psycopg",
    "pytest_asyncio.plugin",
    "pytest_django.plugin",
    "xdist.plugin",
)
"""What most trials import, and what reads no settings while it is imported."""
GRACE_SECONDS: Final = 20
"""How long an interrupted pytest may take to tidy up."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of pytest."""

    tree: str
    """The folder that the package and its tests are imported from."""
    arguments: list[str]
    environment: dict[str, str]
    output: str
    """The file that takes what it prints."""


class WarmProcess:
    """Runs pytest in forks of a process that has the imports done, one at a time."""

    def __init__(self) -> None:
        """Start it; the imports go on while the caller does."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.guard_forks"],
            cwd=ROOT,
            # Forks write compiled files even if the machine is set not to: the first run leaves them in the snapshot
            # for all copies. Compiling again would double the time of a trial.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pid = 0

    def run(self, run: Run, *, seconds: float) -> int:
        """Run it and return the exit code; it is interrupted after so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(run)) + "\n")
        self._process.stdin.flush()
        self._pid = self._answer()
        # As Ctrl-C would, so that fixtures stop what they started.
        timers = [
            Timer(seconds, _send, [self._pid, signal.SIGINT]),
            Timer(seconds + GRACE_SECONDS, _send, [self._pid, signal.SIGKILL]),
        ]
        for timer in timers:
            timer.start()
        try:
            code = self._answer()
        finally:
            self._pid = 0
            for timer in timers:
                timer.cancel()
        return code

    def interrupt(self) -> None:
        """Interrupt what it runs."""
        if self._pid:
            _send(self._pid, signal.SIGINT)

    def end(self) -> None:
        """End it; it must not be running anything."""
        self._process.communicate()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that runs trials ended with {self._process.wait()}")
        return int(line)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _in_fork(run: Run) -> NoReturn:
    """Be the process that ``python -m pytest`` would have been."""
    output = os.open(run.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, stream)
    os.chdir(run.tree)
    os.environ.clear()
    os.environ.update(run.environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    here = str(ROOT)
    sys.path[:] = [run.tree, *(entry for entry in sys.path if entry != here)]
    for name in [name for name in sys.modules if name.partition(".")[0] in {"tests", "django_durable_jobs"}]:
        del sys.modules[name]
    sys.argv = ["pytest", *run.arguments]
    # Plugins that are imported already are not looked through for assertions; those of the tests are.
    sys.exit(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *run.arguments]))


def serve() -> None:
    """Fork for each line that comes; answer with the process id, and then with how it ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _in_fork(Run(**json.loads(line)))
        _say(pid)
        _, status = os.waitpid(pid, 0)
        _say(os.waitstatus_to_exitcode(status))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the process that only waits
    serve()
