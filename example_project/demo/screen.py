"""What the user sees: lines, and a bar while work goes on (plain lines where there is no terminal)."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY: Final = 2.0
"""Seconds between two plain lines of progress."""

Show = Callable[[int], None]


def print_whatever_comes() -> None:
    """Make sure that a terminal that knows few characters ends nothing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """Print a line, at once."""
    print(text, flush=True)


def heading(text: str) -> None:
    """Print the title of what follows."""
    say(f"\n{text}\n{'-' * len(text)}")


@contextmanager
def progress(total: int, done: int) -> Iterator[Show]:
    """Show how many files are done, from `done` on; the body calls what it is given with each new number."""
    began, before = time.monotonic(), done

    def speed(now: int) -> str:
        passed = time.monotonic() - began
        return f"{(now - before) / passed:.0f} files/s" if passed > 0 else ""

    if not sys.stdout.isatty():
        said_at, said = began, before

        def plain(now: int) -> None:
            nonlocal said_at, said
            if time.monotonic() - said_at >= PLAIN_EVERY:
                say(f"  {now} of {total} files ({100 * now // total} %), {speed(now) if now > said else 'waiting'}")
                said_at, said = time.monotonic(), now

        yield plain
        return
    columns = [BarColumn(40), MofNCompleteColumn(), TextColumn("files"), TextColumn("{task.fields[speed]}")]
    with Progress(*columns, TimeElapsedColumn(), console=Console()) as bar:
        task = bar.add_task("", total=total, completed=done, speed="")
        yield lambda now: bar.update(task, completed=now, speed=speed(now))
