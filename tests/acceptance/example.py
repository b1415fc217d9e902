"""The example project's command line as a user starts it: a process, its output, its exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.databases import ROOT
from tests.waiting import eventually

MANAGE = ROOT / "example_project" / "manage.py"
LONGEST = 100
"""Seconds that a demo on a slice of the library may take on a busy machine."""

SLICE = ("asyncio", "email", "json", "unittest", "xml")
"""Packages that take a few seconds: long enough to kill a worker half-way."""


def files_of(package: str) -> list[str]:
    """Return the source files of a package of the standard library, as the file system has them."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(path.relative_to(root).as_posix() for path in (root / package).rglob("*.py"))


@dataclass
class Example:
    """The example project, with its files in a folder of the test's own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a fresh shell, in which the package is installed."""
        own = {"PYTHONPATH": str(ROOT), "DEMO_FOLDER": str(self.folder)}
        foreign = ("DJANGO_", "DURABLE_JOBS_", "DEMO_")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | own

    @property
    def database(self) -> Path:
        """The SQLite file that the demo makes unless told otherwise."""
        return self.folder / "demo.sqlite3"

    def start(self, *arguments: str, **variables: str) -> Running:
        """Start a management command, with more variables in its environment, and return at once."""
        output = self.folder / f"output-{len(list(self.folder.glob('output-*')))}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(MANAGE), *arguments],
                cwd=self.folder,
                env={**self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Running(process, output)

    def run(self, *arguments: str, **variables: str) -> Finished:
        """Run a management command to its end."""
        return self.start(*arguments, **variables).finish()


@dataclass
class Finished:
    """How a command ended."""

    exit_code: int
    output: str

    def number(self, pattern: str) -> int:
        """Return the number that stands in the output where `pattern` has its group."""
        found = re.search(pattern, self.output)
        assert found, f"nothing like {pattern!r} in:\n{self.output}"
        return int(found[1].replace(",", ""))


class Running:
    """A command that runs. Whatever the test does, `end` leaves nothing behind."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def wait_for(self, pattern: str) -> str:
        """Wait until a text appears in the output; return its group, or the whole."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.output)
            assert found or self._process.poll() is None, f"it ended without {pattern!r}:\n{self.output}"
            return found

        found = eventually(look, seconds=LONGEST, what=pattern)
        return found[found.lastindex or 0]

    def processes(self) -> list[psutil.Process]:
        """Return the processes that it has started, and those that they have."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> Finished:
        """Wait for its end."""
        try:
            self._process.wait(LONGEST)
        finally:
            self.end()
        return Finished(self._process.returncode, self.output)

    def end(self) -> None:
        """End it and all that it started, by force."""
        if self._process.poll() is None:
            for process in self.processes():
                process.kill()
            self._process.kill()
            self._process.wait()
