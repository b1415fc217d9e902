"""The command: measure the figures side by side and print the table."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from tests.benchmarks import report, servers
from tests.benchmarks.figures import ALL, BY_NAME
from tests.benchmarks.runner import Runner


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="figure", help=f"which ones (default: all): {', '.join(BY_NAME)}")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each contender is measured (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, help="at most so many jobs for each contender (default: the figure's own number)"
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("BENCH_SERVER_URL", ""),
        help="URL of a PostgreSQL whose role may create databases (env BENCH_SERVER_URL; default: an embedded server)",
    )
    parser.add_argument(
        "--redis",
        default=os.environ.get("BENCH_REDIS_URL", ""),
        help="URL of a Redis for the queues that need one (env BENCH_REDIS_URL; default: they are left out)",
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="also write the table between the markers of this page"
    )
    chosen = parser.parse_args()
    unknown = [name for name in chosen.figures if name not in BY_NAME]
    if unknown:
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    if chosen.rounds < 1 or (chosen.jobs is not None and chosen.jobs < 10):
        parser.error("--rounds must be at least 1 and --jobs at least 10")
    return chosen


def say(line: str) -> None:
    """Report progress, apart from the table."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> None:
    """Measure, print, and write if asked."""
    chosen = options()
    figures = [BY_NAME[name] for name in chosen.figures] or list(ALL)
    with contextlib.ExitStack() as stack:
        server = chosen.database or stack.enter_context(servers.embedded())
        runner = Runner(server, chosen.redis, chosen.rounds, chosen.jobs, say)
        parts = [report.heading(servers.describe(server), chosen.rounds)]
        say(parts[0])
        for figure in figures:
            parts.append(report.table(figure, runner.measure(figure)))
            sys.stdout.write(f"\n{parts[-1]}\n")
            sys.stdout.flush()
        if chosen.write:
            report.write(chosen.write, "\n\n".join(parts))


if __name__ == "__main__":
    main()
