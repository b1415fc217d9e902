"""``manage.py demo``: options in, one story out."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from contextlib import ExitStack
from typing import Any

from django.core.management.base import CommandParser
from stdlib_index.library import packages

from demo import place, waiting
from demo.children import Worker
from demo.command import DemoCommand
from demo.errors import DemoError, Interrupted
from demo.screen import heading, say
from demo.serving import USER, Web, make_superuser
from demo.story import Story

HIGHEST_PORT = 65535


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to {HIGHEST_PORT}")
    return int(text)


class Command(DemoCommand):
    """Show durable jobs at work on real input."""

    help = (
        "Index the source of Python's own standard library with durable jobs: one job per package, one durable call "
        "per file, run by a real worker process. Without options everything is kept in an SQLite file beside manage.py."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        super().add_arguments(parser)
        parser.add_argument(
            "--kill",
            action="store_true",
            help="Kill the worker half-way, start another, and prove that no checkpointed call ran again.",
        )
        parser.add_argument("--serve", action="store_true", help="Then serve the admin, with the worker, until Ctrl-C.")
        parser.add_argument("--port", type=_port, metavar="N", help="Port for --serve (default: a free one from 8000).")
        parser.add_argument(
            "--packages", metavar="NAMES", help="Index only these packages, separated by commas: email,json,asyncio."
        )

    def run(self, children: ExitStack, given: dict[str, Any]) -> None:
        """Index the library."""
        chosen = _chosen(given["packages"])
        log = children.enter_context(place.own_folder())
        if given["kill"]:
            os.environ["DEMO_SHORT_LEASES"] = "1"
        self.prepare(children, given)
        waiting.check()
        say(f"Log        {log}")
        try:
            worker = Story(chosen, log, children).run(kill=given["kill"])
            if given["serve"]:
                web = Web(given["port"], log)
                children.callback(web.stop)
                self._serve(web, worker)
            else:
                _what_next(given)
        except Interrupted:
            say("\nStopping ...")
            raise

    @staticmethod
    def _serve(web: Web, worker: Worker) -> None:
        """Say where the admin is, and return when the user has seen enough."""
        heading("Admin")
        say(f"  Address   {web.address}")
        say(f"  User      {USER}")
        say(f"  Password  {make_superuser()}")
        say("  Web server and worker run until you press Ctrl-C.")
        try:
            while True:
                web.check()
                worker.check()
                waiting.pause(0.5)
        except Interrupted:
            say("\nStopping web server and worker ...")


def _chosen(names: str | None) -> dict[str, list[str]]:
    """Return the packages to index; `DemoError` for a name that the library does not have."""
    known = packages()
    if names is None:
        return known
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DemoError(f"The standard library of this Python has no package {name!r}.{hint}")
    if not wanted:
        raise DemoError("--packages names no package.")
    return {name: known[name] for name in sorted(set(wanted))}


def _what_next(given: dict[str, Any]) -> None:
    manage = f"python {os.path.relpath(sys.argv[0])}"
    heading("What to try next")
    if not given["kill"]:
        say(f"  {manage} demo --kill              kill the worker half-way; nothing is lost, see the proof")
    if not (given["postgres"] and given["kill"]):
        say(f"  {manage} demo --postgres --kill   the same on a PostgreSQL 18 that starts for it")
    say(f"  {manage} demo --serve             look at jobs, attempts and checkpoints in the admin")
    say(f"  {manage} control_room             pause, cancel and throttle a fleet under load, and see when it obeys")
    say("  example_project/stdlib_index/jobs.py                     the code of these jobs; it is short")
    say("  docs/tutorial/                                           the same in a project of your own")
