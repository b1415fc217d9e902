"""``manage.py demo``: options in, one story out. Errors are one line, Ctrl-C ends every child."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from contextlib import ExitStack
from typing import Any

from config.databases import UnusableDatabase
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import connections
from stdlib_index.library import packages

from demo import place, waiting
from demo.children import Worker
from demo.errors import DemoError, Interrupted, first_line
from demo.screen import heading, print_whatever_comes, say
from demo.serving import USER, Web, make_superuser
from demo.story import Story

HIGHEST_PORT = 65535


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to {HIGHEST_PORT}")
    return int(text)


class Command(BaseCommand):
    """Show durable jobs at work on real input."""

    help = (
        "Index the source of Python's own standard library with durable jobs: one job per package, one durable call "
        "per file, run by a real worker process. Without options everything is kept in an SQLite file beside manage.py."
    )
    requires_system_checks = ()  # the database that counts is chosen below
    suppressed_base_arguments = {  # noqa: RUF012 -- Django's interface
        *(
            "--version",
            "-v",
            "--settings",
            "--pythonpath",
            "--traceback",
            "--no-color",
            "--force-color",
            "--skip-checks",
        )
    }

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Answer wrong options by one line, without the usage of all of them."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.print_usage = lambda *_args: None  # type: ignore[method-assign]  # argparse has no switch
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--kill",
            action="store_true",
            help="Kill the worker half-way, start another, and prove that no checkpointed call ran again.",
        )
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--postgres", action="store_true", help="Use a private PostgreSQL 18, started for this demo."
        )
        where.add_argument(
            "--database",
            metavar="URL",
            help="Use this database: sqlite:///file, postgresql://user:password@host/name, mariadb://... "
            "What an earlier demo left there is deleted; nothing else is touched.",
        )
        parser.add_argument("--serve", action="store_true", help="Then serve the admin, with the worker, until Ctrl-C.")
        parser.add_argument("--port", type=_port, metavar="N", help="Port for --serve (default: a free one from 8000).")
        parser.add_argument(
            "--packages", metavar="NAMES", help="Index only these packages, separated by commas: email,json,asyncio."
        )

    def handle(self, *_args: object, **given: Any) -> None:
        """Run the demo; every ending is an exit code."""
        waiting.listen_to_signals()
        print_whatever_comes()
        try:
            with ExitStack() as children:
                self._run(children, given)
        except Interrupted as stop:
            self._silence_if_closed()
            raise CommandError("Stopped; nothing of it runs any more.", returncode=128 + stop.number) from None
        except (DemoError, UnusableDatabase) as error:
            self._raise(error)
        except DatabaseError as error:
            self._raise(DemoError(f"The database failed: {first_line(error)}"))
        except BrokenPipeError:
            self._silence_if_closed()
            sys.exit(1)

    @staticmethod
    def _raise(error: Exception) -> None:
        # The same signal that stops us may have ended what we waited for, e.g. a server that was just starting.
        try:
            waiting.check()
        except Interrupted as stop:
            raise CommandError("Stopped; nothing of it runs any more.", returncode=128 + stop.number) from None
        raise CommandError(str(error)) from error

    @staticmethod
    def _silence_if_closed() -> None:
        """Keep Python from complaining at exit that nobody reads its output any more."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _run(self, children: ExitStack, given: dict[str, Any]) -> None:
        chosen = _chosen(given["packages"])
        log = children.enter_context(place.own_folder())
        if given["kill"]:
            os.environ["DEMO_SHORT_LEASES"] = "1"
        self._prepare(children, given)
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
    def _prepare(children: ExitStack, given: dict[str, Any]) -> None:
        url = given["database"] or os.environ.get("DEMO_DATABASE_URL")
        if given["postgres"]:
            say("Database   PostgreSQL 18, started for this demo in a temporary folder that is removed in the end ...")
            place.use_database(children.enter_context(place.embedded_postgres()))
            place.prepare_database()
        elif url:
            place.use_database(url)
            deleted = place.prepare_database()
            database = connections["default"]
            say(f"Database   {database.display_name} {database.settings_dict['NAME']}")
            say(f"           Reset: the tables of stdlib_index, and {deleted} jobs of an earlier demo; nothing else")
        else:
            removed = place.remove_sqlite_file()
            note = "new: that of the last demo was removed" if removed else "new: it stays until the next demo"
            say(f"Database   {connections['default'].settings_dict['NAME']} ({note})")
            place.prepare_database()

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
    say("  example_project/stdlib_index/jobs.py                     the code of these jobs; it is short")
    say("  docs/tutorial/                                           the same in a project of your own")
