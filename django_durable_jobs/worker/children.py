"""Worker processes as children of another one: how they are started, and what their death means."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..operations.leases import expire_leases_of


class Child:
    """A ``runjobs`` process that this process started."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it with the same Python, settings and import path. Arguments hold no secrets."""
        self.name = name
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "django", "runjobs", "--worker-id", name, *arguments]
        self._process = subprocess.Popen(  # noqa: S603 -- our own command
            [*command, "--parent-pid", str(os.getpid())],
            env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
            stdin=subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, or ``None`` while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to stop cleanly."""
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self.exit_code is None:
            self._process.kill()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; answer whether it ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def free_its_jobs(self) -> int:
        """End the leases of a child that died, so that nobody waits for them to run out."""
        return expire_leases_of(self.name)
