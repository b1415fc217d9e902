"""Worker processes as children of another one: how they are started, and what their death means."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import ENVIRONMENT_VARIABLE, settings

from ..operations.leases import expire_leases_of


@dataclass(frozen=True)
class _Start:
    """How a process of ours is started."""

    command: list[str]
    environment: dict[str, str]
    folder: Path | None


_start: _Start | None = None


def remember_start(argv: Sequence[str], common: Sequence[str] = ()) -> None:
    """Note how this process was started: its children are started the same way, with other options.

    So a ``manage.py`` that does more than usual does so in them too. Called before any job runs: what jobs do to
    folder and environment is not handed on. ``argv`` is what Django got (program, command, options), ``common``
    the options that every child gets.
    """
    global _start  # noqa: PLW0603 -- one process was started in one way
    given, line = list(argv[1:]), list(sys.orig_argv)
    if given and line[-len(given) :] == given:
        command = [sys.executable, *line[1 : len(line) - len(given) + 1]]
        _start = _Start([*command, *common], dict(os.environ), _folder())
    else:
        _start = _Start([*_by_module(), *common], _with_import_path(dict(os.environ)), _folder())


def _by_module() -> list[str]:
    return [sys.executable, "-m", "django", "runjobs"]


def _with_import_path(environment: dict[str, str]) -> dict[str, str]:
    """Add what a process needs that is not started as this one was: the import path and the settings."""
    module = environment.get(ENVIRONMENT_VARIABLE) or getattr(settings, "SETTINGS_MODULE", None)
    if not module:
        raise RuntimeError(
            f"A child process needs to know the settings module: set {ENVIRONMENT_VARIABLE}, or start the worker by "
            "manage.py."
        )
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**environment, ENVIRONMENT_VARIABLE: module, "PYTHONPATH": paths}


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


class Child:
    """A ``runjobs`` process that this process started."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        """Start it as this process was started. Arguments hold no secrets."""
        self.name = name
        start = _start or _Start(_by_module(), _with_import_path(dict(os.environ)), None)
        self._process = subprocess.Popen(  # noqa: S603 -- our own command
            [*start.command, "--worker-id", name, *arguments, "--parent-pid", str(os.getpid())],
            env=start.environment,
            cwd=start.folder,
            stdin=subprocess.DEVNULL,
            # Ctrl-C at a terminal goes to its whole foreground group: only the parent shall hear it, and stop us.
            process_group=0,
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
        self._process.terminate()

    def terminate_at_once(self) -> None:
        """Ask it to stop without grace time."""
        self._process.send_signal(signal.SIGQUIT)

    def kill(self) -> None:
        """End it at once, from outside."""
        self._process.kill()
        self.wait(1.0)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; answer whether it ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def free_its_jobs(self) -> int:
        """End the leases that it held if it died, so that nobody waits for them to run out; return their number."""
        return expire_leases_of(self.name, host=socket.gethostname(), pid=self.pid)
