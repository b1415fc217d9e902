"""One trial of a guard: the tree copied, the guard removed, its test run there and the ending judged.

Which guards there are and how they are reported is `tests/guards.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import pytest

from tests.databases import RUN_VARIABLE, URL_VARIABLE, Lane
from tests.guard_forks import Run, WarmProcess
from tests.lanes import remove_test_databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COPIED: Final = ("django_durable_jobs", "tests", "pyproject.toml")
"""What a test needs of the tree."""
MOST_SECONDS: Final = 120
"""How long the one test of a guard may take before it is ended."""
BY_ASSERTION: Final = re.compile(r"assert |AssertionError|Failed: (?!Timeout)|TimeoutError: Job .* no result within")
"""How pytest reports a failed assertion, an expected exception that was not raised, or a job whose result the test
waited for in vain."""
NOTICED: Final = "noticed"
NOT_RUN: Final = "not run"


class BadGuards(Exception):
    """The file of guards cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One entry of the file."""

    name: str
    proves: list[str]
    file: str
    find: str
    replace: str
    test: str
    lane: Lane
    count: int = field(default=1)
    fails_with: str = field(default="")

    def remove_from(self, tree: Path) -> None:
        """Take the guard out of a copy of the tree; `BadGuards` if its text is not there as often as expected."""
        path = tree / self.file
        text = path.read_text() if path.is_file() else ""
        if (found := text.count(self.find)) != self.count:
            raise BadGuards(f"stale: the text to find is {found} times in {self.file}, not {self.count}")
        path.unlink()  # a new file, never a write through a link
        path.write_text(text.replace(self.find, self.replace))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one guard."""

    guard: Guard
    word: str
    note: str = ""
    seconds: float = 0.0

    @property
    def acceptable(self) -> bool:
        """Whether the run may pass with this."""
        return self.word == NOTICED or (self.word == NOT_RUN and not os.environ.get("CI"))


@dataclass(frozen=True, slots=True)
class Case:
    """How one test ended: passed, failed, error or skipped."""

    name: str
    ending: str
    message: str = ""


@dataclass(slots=True)
class Trial:
    """Runs tests in copies of one snapshot of the tree, so that edits meanwhile change nothing."""

    snapshot: Path
    servers: dict[Lane, str]
    together: int
    """How many tests may run at once."""
    _processes: list[WarmProcess] = field(init=False)
    _idle: SimpleQueue[WarmProcess] = field(init=False, default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        """Start the processes."""
        self._processes = [WarmProcess() for _ in range(self.together)]
        for process in self._processes:
            self._idle.put(process)

    def try_all_unpatched(self, lane: Lane, guards: Sequence[Guard]) -> list[Verdict]:
        """Run the tests of a lane in one go; return the guards whose tests do not pass as the tree is."""
        began = time.monotonic()
        exit_code, cases, output = self._pytest(
            self.snapshot, lane, sorted({guard.test for guard in guards}), seconds=MOST_SECONDS * 5
        )
        by_name: dict[str, list[Case]] = {}
        for case in cases:
            by_name.setdefault(case.name.partition("[")[0], []).append(case)
            by_name.setdefault(case.name, []).append(case)
        bad = []
        for guard in guards:
            mine = by_name.get(_case_name(guard.test), [])
            if not mine or any(case.ending != "passed" for case in mine):
                note = mine[0].message if mine else f"did not run (exit code {exit_code}): {_tail(output)}"
                bad.append(Verdict(guard, "its test does not pass as the code is", note, time.monotonic() - began))
        return bad

    def look_for_tests(self, lane: Lane, guards: Sequence[Guard]) -> list[Verdict]:
        """Collect the tests, which compiles the snapshot for all copies; return guards whose tests are not there."""
        tests = sorted({guard.test for guard in guards})
        exit_code, _cases, output = self._pytest(self.snapshot, lane, ["--collect-only", *tests], seconds=MOST_SECONDS)
        if exit_code == 0:
            return []
        return [Verdict(guard, "its test is not there", _tail(output)) for guard in guards if guard.test in output]

    def try_without(self, guard: Guard) -> Verdict:
        """Remove the guard in a copy, run its test there, and judge how it ended."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="durable-jobs-guard-", ignore_cleanup_errors=True) as folder:
            tree = Path(folder).resolve()
            copy_tree(self.snapshot, tree, os.link)  # nothing is written to a file of the tree but by replacing it
            try:
                guard.remove_from(tree)
            except BadGuards as stale:
                return Verdict(guard, "STALE", str(stale))
            exit_code, cases, output = self._pytest(tree, guard.lane, [guard.test], seconds=MOST_SECONDS)
        word, note = self._judge(guard, exit_code, cases, output)
        return Verdict(guard, word, note, time.monotonic() - began)

    @staticmethod
    def _judge(guard: Guard, exit_code: int, cases: Sequence[Case], output: str) -> tuple[str, str]:
        failures = [case.message for case in cases if case.ending == "failed"]
        proof = re.compile(rf"(\w+\.)*{re.escape(guard.fails_with)}\b") if guard.fails_with else BY_ASSERTION
        if any(proof.match(message) for message in failures):
            return NOTICED, ""
        if exit_code == 0:
            return "UNNOTICED", f"{guard.test} passes without it"
        if failures:
            return "BROKEN, not noticed", f"failed by {failures[0].splitlines()[0][:200]!r}"
        errors = [case.message for case in cases if case.ending == "error"]
        return "BROKEN, not noticed", f"exit code {exit_code}: {(errors or [''])[0][:200] or _tail(output)}"

    def _pytest(self, tree: Path, lane: Lane, tests: Sequence[str], *, seconds: float) -> tuple[int, list[Case], str]:
        with tempfile.TemporaryDirectory(prefix="durable-jobs-guard-", ignore_cleanup_errors=True) as folder:
            output, report = Path(folder) / "output", Path(folder) / "report.xml"
            name = Path(folder).name.rpartition("-")[2]
            url = self.servers.get(lane) or f"sqlite:///{folder}/outer.sqlite3"
            run = Run(
                tree=str(tree),
                arguments=["-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests],
                environment={**os.environ, URL_VARIABLE: url, RUN_VARIABLE: name, "PYTHONPATH": str(tree)},
                output=str(output),
            )
            process = self._idle.get()
            try:
                exit_code = process.run(run, seconds=seconds)
            finally:
                self._idle.put(process)
            if exit_code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
                remove_test_databases(lane, url, name)
            return exit_code, list(_cases(report)), output.read_text(errors="replace")

    def interrupt(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.interrupt()

    def end(self) -> None:
        """Let go of the processes, when nothing runs any more."""
        for process in self._processes:
            process.end()


def _cases(report: Path) -> Iterator[Case]:
    if not report.is_file():
        return
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest just wrote it
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        for ending, tag in (("error", "error"), ("failed", "failure"), ("skipped", "skipped")):
            if (found := case.find(tag)) is not None:
                yield Case(name, ending, found.get("message") or "")
                break
        else:
            yield Case(name, "passed")


def _case_name(test: str) -> str:
    """Return the name that pytest's report gives to a test."""
    file, _, rest = test.partition("::")
    return ".".join([*Path(file).with_suffix("").parts, *rest.split("::")])


def _tail(output: str) -> str:
    return " / ".join([line for line in output.splitlines() if line.strip()][-3:])[-300:]


def copy_tree(source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2) -> None:
    """Copy what tests need, compiled files included: they stay valid, and compiling again costs more than copying."""
    for name in COPIED:
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("benchmarks")
            shutil.copytree(source / name, target / name, ignore=ignored, copy_function=copy)
        else:
            copy(str(source / name), str(target / name))
