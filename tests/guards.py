"""Take each guard away in turn and see that its test notices: ``python -m tests.guards [name ...] [--list]``.

A guard is a piece of code that some promise rests on: a token in a WHERE, a lock before an insert. Each entry of
``tests/guards.toml`` names one, with the text that is the guard, what stands there without it, and the test that
must then fail. All tests are first run once with every guard in place; with ``--tests-have-passed``, after the suite,
they are only looked for. Then, for each guard, the tree is copied, the text replaced, and the one test run in its lane.
It has to fail by its own assertion: a broken import or broken SQL would prove nothing, so such an ending is reported
like a guard that nobody missed. An entry whose test fails by another error on purpose says so with
``fails_with = "IntegrityError"``.

The exit code is 0 only if every guard was missed. Without a MariaDB its guards are not tried, and said so in one
line; with ``CI`` in the environment that is a failure, as in `tests.lanes`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from tests.databases import LANES, ROOT, Lane
from tests.guard_trials import NOT_RUN, NOTICED, BadGuards, Guard, Trial, Verdict, copy_tree
from tests.lanes import LaneAbsent, server_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

GUARDS: Final = ROOT / "tests" / "guards.toml"


def read_guards(file: Path) -> list[Guard]:
    """Read the file; `BadGuards` says which entry is wrong and how."""
    entries = tomllib.loads(file.read_text()).get("guard", [])
    if not entries:
        raise BadGuards(f"{file} holds no guard: then nothing shows that the tests can fail")
    known = {entry.name for entry in fields(Guard)}
    needed = known - {"count", "fails_with"}
    guards: dict[str, Guard] = {}
    for entry in entries:
        name = entry.get("name", "(without name)")
        if wrong := (entry.keys() - known) | (needed - entry.keys()):
            raise BadGuards(f"guard {name!r}: {', '.join(sorted(wrong))} unknown or missing")
        if name in guards or entry["lane"] not in LANES or not entry["find"] or entry["find"] == entry["replace"]:
            raise BadGuards(f"guard {name!r}: name taken, lane unknown, or nothing to take away")
        guards[name] = Guard(**entry)
    return list(guards.values())


def try_guards(guards: Sequence[Guard], *, together: int, tests_have_passed: bool, out: TextIO) -> list[Verdict]:
    """Try the guards, `together` at once, and return one verdict each.

    `tests_have_passed`: their tests need not be run with every guard in place, as the suite has just done so.
    """
    verdicts: dict[str, Verdict] = {}

    def note(verdict: Verdict) -> None:
        verdicts[verdict.guard.name] = verdict
        print(f"{verdict.word:<10} {verdict.guard.name} ({verdict.guard.lane}, {verdict.seconds:.1f} s)", file=out)
        out.flush()

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-jobs-guards-"))).resolve()
        snapshot = folder / "snapshot"
        snapshot.mkdir()
        copy_tree(ROOT, snapshot)
        trial = Trial(snapshot, {}, together)
        stack.callback(trial.end)
        lanes: dict[Lane, list[Guard]] = {}
        for guard in guards:
            lanes.setdefault(guard.lane, []).append(guard)
        for lane in list(lanes):
            try:
                trial.servers[lane] = stack.enter_context(server_of(lane, folder))
            except LaneAbsent as absent:
                for guard in lanes.pop(lane):
                    note(Verdict(guard, NOT_RUN, str(absent)))
        with ThreadPoolExecutor(together) as executor:
            try:
                first_run = trial.look_for_tests if tests_have_passed else trial.try_all_unpatched
                for bad in executor.map(lambda item: first_run(*item), lanes.items()):
                    for verdict in bad:
                        note(verdict)
                for verdict in executor.map(trial.try_without, [one for one in guards if one.name not in verdicts]):
                    note(verdict)
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                trial.interrupt()
                raise
    return [verdicts[guard.name] for guard in guards]


def print_table(verdicts: Sequence[Verdict], out: TextIO) -> None:
    """Print one line per guard, what went wrong below it, and the sums."""
    width = max(len(verdict.guard.name) for verdict in verdicts)
    print("\n######## Guards ########", file=out)
    for verdict in verdicts:
        guard = verdict.guard
        print(f"{guard.name:<{width}}  {guard.lane:<10}  {', '.join(guard.proves):<12}  {verdict.word}", file=out)
        if verdict.note:
            print(f"    {verdict.note}", file=out)
    noticed = sum(verdict.word == NOTICED for verdict in verdicts)
    absent = sum(verdict.word == NOT_RUN for verdict in verdicts)
    wrong = len(verdicts) - noticed - absent
    print(f"{noticed} guards noticed, {wrong} wrong, {absent} not run", file=out, flush=True)


def main(words: Sequence[str], out: TextIO = sys.stdout) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description="Remove each guard; see a test notice.")
    parser.add_argument("names", nargs="*", metavar="name", help="guards to try; all if none is named")
    parser.add_argument("--list", action="store_true", help="print the guards and end")
    parser.add_argument("--together", type=int, default=2, metavar="N", help="tests that run at once (default: 2)")
    parser.add_argument(
        "--tests-have-passed", action="store_true", help="the whole suite has just passed: do not run the tests first"
    )
    parser.add_argument("--file", type=Path, default=GUARDS, help="the guards (default: tests/guards.toml)")
    options = parser.parse_args(words)
    try:
        guards = read_guards(options.file)
    except (BadGuards, OSError, tomllib.TOMLDecodeError) as error:
        print(error, file=out)
        return 1
    if unknown := set(options.names) - {guard.name for guard in guards}:
        parser.error(f"no guard is called {min(unknown)!r}; --list shows them")
    chosen = [guard for guard in guards if not options.names or guard.name in options.names]
    if options.list:
        for guard in chosen:
            print(f"{guard.name} ({', '.join(guard.proves)}): {guard.lane} {guard.test}", file=out)
        return 0
    began = time.monotonic()
    verdicts = try_guards(
        chosen, together=max(options.together, 1), tests_have_passed=options.tests_have_passed, out=out
    )
    print_table(verdicts, out)
    print(f"{time.monotonic() - began:.0f} s", file=out)
    ran = any(verdict.word != NOT_RUN for verdict in verdicts)
    return 0 if ran and all(verdict.acceptable for verdict in verdicts) else 1


def _stop_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception, so that servers are stopped and databases dropped."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop_on_signal)
    sys.exit(main(sys.argv[1:]))
