"""Run the contenders of a figure in turn, round after round, each measurement in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.figures import OURS, Contender, Figure
from tests.benchmarks.place import ROOT, Place, module_command
from tests.benchmarks.servers import fresh_database

SETUP_SECONDS = 60


@dataclass
class Result:
    """What the rounds of one contender gave: metrics of the good ones, the reason where there are none."""

    contender: Contender
    rounds: list[dict[str, float] | None] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True)
class Runner:
    """Measures figures on one server."""

    server: str
    redis: str
    rounds: int
    jobs: int | None
    say: Callable[[str], None]

    def measure(self, figure: Figure) -> list[Result]:
        """Return each contender's result; the contenders take turns, so that all see the same weather."""
        results = [Result(contender, reason=self.why_not(contender)) for contender in figure.contenders]
        running = [result for result in results if not result.reason]
        for number in range(1, self.rounds + 1):
            for result in running:
                if result.reason:
                    continue
                metrics, why = self.once(figure, result.contender)
                result.rounds.append(metrics)
                result.reason = why
                self.say(f"{figure.name} {number}/{self.rounds} · {result.contender.label}: {why or shown(metrics)}")
        return results

    def why_not(self, contender: Contender) -> str:
        """Return why a contender cannot take part, or nothing."""
        if contender.redis and not self.redis:
            return "no Redis given"
        if OURS in contender.needs and not importlib.util.find_spec(f"{OURS}.management.commands.runjobs"):
            return "no runjobs yet"
        missing = [name for name in contender.needs if name != OURS and not installed(name)]
        return f"not installed: {', '.join(missing)}" if missing else ""

    def once(self, figure: Figure, contender: Contender) -> tuple[dict[str, float] | None, str]:
        """Measure one contender once, at a fresh place; return its metrics, or the reason why there are none."""
        count = min(filter(None, (contender.count, self.jobs, figure.count)))
        if contender.count and not self.jobs:
            count = contender.count
        with self.place(figure) as place, tempfile.TemporaryDirectory(prefix="bench-") as folder:
            answer, log = Path(folder) / "answer.json", Path(folder) / "log"
            arguments = (
                figure.measure,
                contender.system,
                contender.variant,
                str(count),
                str(figure.seconds),
                str(answer),
            )
            with log.open("wb") as output:
                code = self.run_child(
                    module_command("tests.benchmarks.child", *arguments), place, figure.seconds, output.fileno()
                )
            if answer.exists():
                return json.loads(answer.read_text()), ""
            lines = log.read_text(errors="replace").strip().splitlines()
            if os.environ.get("BENCH_VERBOSE"):
                self.say("\n".join(lines))
            return None, "over its time" if code is None else last_error(lines) or f"ended with code {code}"

    def run_child(self, command: list[str], place: Place, seconds: float, output: int) -> int | None:
        """Run a measurement to its end; return its exit code, or nothing if its time was over."""
        child = subprocess.Popen(
            command, env=place.environ(), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            return child.wait(timeout=seconds + SETUP_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM if child.poll() is None else signal.SIGKILL)
            child.wait()

    @contextlib.contextmanager
    def place(self, figure: Figure) -> Iterator[Place]:
        """Yield a fresh database of the figure's kind, with an empty marks file beside it."""
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            marks = Path(folder) / "marks"
            if figure.database == "sqlite":
                yield Place(f"sqlite://{folder}/bench.sqlite3", marks, self.redis)
            else:
                with fresh_database(self.server) as url:
                    yield Place(url, marks, self.redis)


def installed(distribution: str) -> str:
    """Return the version of a distribution, or nothing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def last_error(lines: list[str]) -> str:
    """Return the last line of a log that reads like the end of a traceback."""
    return next((line for line in reversed(lines) if "Error: " in line and not line[0].isspace()), "")


def shown(metrics: dict[str, float] | None) -> str:
    """Return metrics in one line."""
    return ", ".join(f"{name} {value:,.1f}" for name, value in (metrics or {}).items())
