"""``manage.py jobs``: a verb for each order and question. What a verb does is an operation; here it is asked for."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from ...clock import SYSTEM
from ...durable.history import replay_history
from ...errors import DurableJobsError, HistoryUnreadable
from ...operations.history import export_history, history_text
from ...rendering import safe_str, visible
from .. import enqueueing, ordering
from ..preflight import refuse_unusable_settings

QUIET: Final = 2.0
"""Seconds after which a verb that goes on says how far it has come."""
LONGEST: Final = 1000
REFUSED: Final = 1
UNUSABLE: Final = 2
"""Exit codes: the answer is no; an order that cannot be carried out as it is given."""
OK: Final = "ok"
FAILED: Final = "FAILED"
UNREADABLE: Final = "UNREADABLE"


class Command(BaseCommand):
    """Orders and questions about jobs."""

    help = "Orders and questions about durable jobs; `jobs VERB --help` says more."
    requires_system_checks = [Tags.models]  # noqa: RUF012 -- Django's interface; ours run below, with exit code 2
    suppressed_base_arguments = {"--version"}  # noqa: RUF012 -- as above

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Answer wrong options by one line, without the usage of all of them."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.print_usage = _nothing  # type: ignore[method-assign,assignment]  # argparse has no switch for it
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the verbs."""
        verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
        export = self._verb(verbs, "export-history", self._export, "Write the recorded calls of a job as JSON.")
        export.add_argument("job", metavar="JOB_ID")
        export.add_argument("--output", type=Path, metavar="FILE", help="Write to this file instead of the terminal.")
        check = self._verb(
            verbs, "replay-check", self._check, "Check that today's code makes the calls of recorded histories."
        )
        check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="What export-history wrote.")
        for module in (ordering, enqueueing):
            module.declare(lambda name, run, text: self._verb(verbs, name, run, text), self._line)

    def _line(self, text: str) -> None:
        self.stdout.write(text)

    def _verb(self, verbs: Any, name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
        parser.print_usage = _nothing  # type: ignore[method-assign,assignment]  # as above
        parser.set_defaults(run=run)
        return parser

    def handle(self, *_args: object, **given: Any) -> None:
        """Run the verb."""
        refuse_unusable_settings()
        try:
            given["run"](given)
        except DurableJobsError as error:
            raise CommandError(_line(error), returncode=REFUSED) from None
        except DatabaseError as error:
            raise CommandError(f"The jobs' database cannot be used: {_line(error)}", returncode=UNUSABLE) from None

    # Verbs --------------------------------------------------------------------------------------------------

    def _export(self, given: dict[str, Any]) -> None:
        text = history_text(export_history(given["job"]))
        if given["output"] is None:
            self.stdout.write(text, ending="")
            return
        try:
            given["output"].write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{given['output']} cannot be written: {error.strerror}", returncode=UNUSABLE) from None

    def _check(self, given: dict[str, Any]) -> None:
        files: list[Path] = given["files"]
        counts: Counter[str] = Counter()
        said = SYSTEM.monotonic()
        for number, file in enumerate(files):
            if SYSTEM.monotonic() - said > QUIET:
                said = SYSTEM.monotonic()
                self.stderr.write(f"{number} of {len(files)} histories are checked", self.style.NOTICE)
            word, text = _checked(file)
            counts[word] += 1
            self.stdout.write(f"{word}  {visible(str(file))}: {text}")
        if bad := [f"{count} {word.lower()}" for word, count in counts.items() if word != OK]:
            code = UNUSABLE if counts[UNREADABLE] else REFUSED
            raise CommandError(f"Of {len(files)} histories: {', '.join(bad)}.", returncode=code)


def _checked(file: Path) -> tuple[str, str]:
    """Return a word for what came of one file, and the reason."""
    try:
        replayed = replay_history(file.read_bytes())
    except OSError as error:
        return UNREADABLE, _line(error.strerror or error)
    except HistoryUnreadable as error:
        return UNREADABLE, _line(error)
    except DurableJobsError as error:
        return FAILED, f"{type(error).__name__}: {_line(error)}"
    note = f", {_line(replayed.note)}" if replayed.note else ""
    return OK, f"{replayed.made} of {replayed.recorded} calls{note}"


def _line(text: object) -> str:
    return visible(safe_str(text, LONGEST))


def _nothing(_file: object = None) -> None:
    """Print no usage."""
