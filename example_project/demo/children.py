"""The processes that the demo starts: workers and the web server, as a user would start them by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from demo.errors import DemoError

MANAGE: Final = Path(__file__).resolve().parent.parent / "manage.py"
GRACE: Final = 2
"""Seconds that a worker gives its running jobs when it is asked to stop."""


class Child:
    """A ``manage.py`` command in a process of its own; its output goes to the log."""

    def __init__(self, title: str, arguments: list[str], log: Path) -> None:
        """Start it. It gets a session of its own: Ctrl-C reaches the demo alone, which then ends it in order."""
        self.title = title
        self.command = " ".join(arguments)
        self._log = log
        with log.open("a") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, str(MANAGE), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise `DemoError` if it ended by itself."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "nothing")
            raise DemoError(
                f"The {self.title} ended by itself (exit code {self._process.returncode}). Its last words: {said} "
                f"More in {self._log}"
            )

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order, by force if that does not help."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE + 5)
            except subprocess.TimeoutExpired:
                self.kill()


class Worker(Child):
    """A ``runjobs`` process."""

    def __init__(self, number: int, queues: Mapping[str, int], log: Path) -> None:
        """Start it, with so many slots for each queue; it ends when this process dies, however that happens."""
        self.name = f"demo-{os.getpid()}-{number}"
        named = [word for queue, slots in queues.items() for word in ("--queue", f"{queue}={slots}")]
        command = ["runjobs", *named]
        more = ["--worker-id", self.name, "--grace", str(GRACE), "--parent-pid", str(os.getpid())]
        super().__init__(f"worker {self.name}", [*command, *more], log)
        self.command = " ".join(command)
