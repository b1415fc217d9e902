"""What the commands of the demo have in common: a database, children, one line for an error, and Ctrl-C."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Any

from config.databases import UnusableDatabase
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import connections

from demo import place, waiting
from demo.errors import DemoError, Interrupted, first_line
from demo.screen import print_whatever_comes, say


class DemoCommand(BaseCommand):
    """A command that shows something, with processes of its own that end with it."""

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
        """Declare where the database is."""
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

    def handle(self, *_args: object, **given: Any) -> None:
        """Run the demo; every ending is an exit code."""
        waiting.listen_to_signals()
        print_whatever_comes()
        try:
            with ExitStack() as children:
                self.run(children, given)
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

    def run(self, children: ExitStack, given: dict[str, Any]) -> None:
        """Show it; processes are remembered in ``children``."""
        raise NotImplementedError

    @staticmethod
    def prepare(children: ExitStack, given: dict[str, Any]) -> None:
        """Choose the database, and make it as new."""
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
