"""``manage.py runjobs``: options in, a worker or a supervisor out. What they do stands in ``worker/``."""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import re
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from ... import registry
from ...conf import get_settings
from ...errors import OptionError, WorkerNameTaken
from ...operations.database import dialect
from ...options import check_queue
from ...rendering import visible
from ...worker.liveness import ServiceLost
from ...worker.options import WorkerOptions
from ...worker.probes import Probes
from ...worker.processes import remember_start
from ...worker.registering import WAIT_FOR_DATABASE
from ...worker.signals_os import leave, on_stop
from ...worker.supervisor import DONE, RECYCLED, Supervisor
from ...worker.worker import Worker
from ..preflight import (
    log_to_stderr_unless_configured,
    refuse_missing_tables,
    refuse_unusable_settings,
    warn_of_shortages,
)
from ..reloading import CHANGED, Reloader, Watch

NAME = re.compile(r"[\x21-\x7e]+")
LONGEST_NAME = 150
"""Characters of a worker id; those of children have a little more."""
logger = logging.getLogger("django_durable_jobs")


def _whole(low: int, high: int) -> Any:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def _seconds(low: float, high: float) -> Any:
    def read(text: str) -> timedelta:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {low:g} to {high:g}")
        return timedelta(seconds=value)

    return read


def _queue(text: str) -> tuple[str, int | None]:
    name, equals, amount = text.partition("=")
    try:
        return check_queue(name), _whole(1, 1000)(amount) if equals else None
    except OptionError as error:
        raise argparse.ArgumentTypeError(f"{error} {_known_queues(text)}") from None


def _known_queues(text: str) -> str:
    """Say which queues there are, and what to write for a pattern or a list of them."""
    known = ", ".join(registry.queues())
    if "*" in text:
        return f"Every queue is served when --queue is left out; known: {known}."
    if "," in text or " " in text:
        return f"Give --queue once for each; every queue is served when it is left out; known: {known}."
    return f"Known: {known}."


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:80]!a}: 1 to {LONGEST_NAME} printable ASCII characters, no blanks")
    return text


class Command(BaseCommand):
    """Run a worker until it is stopped."""

    help = "Run durable jobs until stopped. SIGTERM or Ctrl-C stops cleanly; a second one stops at once."
    requires_system_checks = [Tags.models]  # noqa: RUF012 -- Django's interface; ours run below, with exit code 2
    suppressed_base_arguments = {"--version"}  # noqa: RUF012 -- as above
    _argv: list[str] | None = None
    """The command line, when the command was started by one."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Answer wrong options by one line, without the usage of all of them."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.print_usage = _nothing  # type: ignore[method-assign,assignment]  # argparse has no switch for it
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a process of its own: the end of this is the end of the process."""
        self._argv = argv
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        leave(0)

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options; each is checked when it is read."""
        parser.add_argument(
            "--queue",
            action="append",
            type=_queue,
            metavar="NAME[=N]",
            help="Serve this queue, N jobs at once (repeatable). Without it: every queue, also one that appears later.",
        )
        parser.add_argument(
            "--concurrency",
            type=_whole(1, 1000),
            metavar="N",
            help="Jobs at once for each queue that has no =N (setting CONCURRENCY).",
        )
        parser.add_argument("--processes", type=_whole(1, 64), metavar="N", help="Supervise N worker processes.")
        parser.add_argument(
            "--threads",
            type=_whole(1, 1000),
            metavar="N",
            help="Threads for sync jobs in one process, over all queues (default: the sum of the queues' numbers).",
        )
        parser.add_argument("--drain", action="store_true", help="End when no job is pending or running.")
        parser.add_argument("--max-jobs", type=_whole(1, 10**9), metavar="N", help="End after N jobs (per process).")
        parser.add_argument("--worker-id", type=_name, metavar="ID", help="Name of this worker (default: host-pid).")
        parser.add_argument(
            "--poll",
            type=_seconds(0.01, 3600),
            metavar="SECONDS",
            help="Look for jobs this often (setting POLL_INTERVAL).",
        )
        parser.add_argument(
            "--grace", type=_seconds(0, 86_400), metavar="SECONDS", help="Time for running jobs at a stop."
        )
        parser.add_argument(
            "--health-file",
            type=Path,
            metavar="PATH",
            help="Touch this file once a second while the worker is well, for probes; it is removed at the end.",
        )
        parser.add_argument("--autoreload", action="store_true", help="Restart when code changes; for development.")
        parser.add_argument(
            "--alone",
            action="store_true",
            help="Run only jobs that were lost with a worker, one at a time, and end; workers start this themselves.",
        )
        parser.add_argument("--parent-pid", type=_whole(1, 2**31), help=argparse.SUPPRESS)
        parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)

    def handle(self, *_args: object, **given: Any) -> None:
        """Check the settings and run."""
        refuse_unusable_settings()
        log_to_stderr_unless_configured(int(given["verbosity"]), worker=_worker_name(given))
        _write_lines_at_once()
        options = self._options(given)
        if self._argv is not None:
            remember_start(self._argv, _common_arguments(given))
        watch: Watch | None = None
        runner: Worker | Supervisor | Reloader
        is_child = given["parent_pid"] is not None
        if not is_child:  # a child starts on what its parent has looked at
            refuse_missing_tables()
            warn_of_shortages(options.threads_at_most, given["processes"] or 1)
        if given["autoreload"] and not is_child:
            runner = Reloader(options.name, _arguments_for_children(given), grace=options.grace)
        elif given["processes"] is not None:
            arguments = _arguments_for_children(given, processes=False)
            runner = Supervisor(options, given["processes"], arguments, probes=_probes(given))
        else:
            runner = Worker(options, probes=_probes(given))
        restore = on_stop(runner, child=is_child)
        if given["autoreload"] and is_child:
            watch = Watch(runner)
            watch.start()
        try:
            self._run(runner)
        finally:
            if self._argv is None:
                restore()  # somebody called the command, and goes on
        if watch is not None and watch.changed:
            sys.exit(CHANGED)
        if isinstance(runner, Worker) and options.supervised and (runner.drained or runner.recycles):
            sys.exit(DONE if runner.drained else RECYCLED)

    def _run(self, runner: Worker | Supervisor | Reloader) -> None:
        try:
            runner.run()
        except WorkerNameTaken as error:
            raise CommandError(str(error), returncode=2) from None
        except ServiceLost as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            text = " ".join(str(error).split())  # one line; drivers write several
            if dialect().is_disconnect(error):
                raise CommandError(f"The jobs' database did not answer for {WAIT_FOR_DATABASE:g} s: {text}") from error
            raise CommandError(f"The jobs' database cannot be used: {text}. Was manage.py migrate run?") from error

    def _options(self, given: dict[str, Any]) -> WorkerOptions:
        settings = get_settings()
        if given["parent_pid"] is None and len(given["worker_id"] or "") > LONGEST_NAME:
            raise CommandError(f"--worker-id is longer than {LONGEST_NAME} characters.", returncode=2)
        if given["alone"] and not given["queue"]:
            raise CommandError("--alone needs --queue. Workers start this themselves.", returncode=2)
        if given["health_file"] is not None:
            _refuse_unusable(given["health_file"], autoreload=given["autoreload"])
        concurrency = given["concurrency"] or settings.concurrency
        queues: dict[str, int] | None = None
        if given["queue"]:
            names = [name for name, _amount in given["queue"]]
            if doubles := sorted({name for name in names if names.count(name) > 1}):
                raise CommandError(f"--queue names {', '.join(doubles)} twice.", returncode=2)
            queues = {name: amount or concurrency for name, amount in given["queue"]}
            known = registry.queues()
            for name in names:
                if name not in known:
                    logger.warning("No definition uses the queue %r by default (known: %s)", name, ", ".join(known))
        overrides = {
            key: given[option]
            for key, option in (("grace", "grace"), ("poll_interval", "poll"))
            if given[option] is not None
        }
        if given["poll"] is not None:
            overrides["idle_poll_interval"] = max(given["poll"], settings.idle_poll_interval)
        return WorkerOptions(
            name=_worker_name(given),
            queues=queues,
            concurrency=concurrency,
            threads=given["threads"],
            drain=given["drain"] or given["alone"],
            max_jobs=given["max_jobs"],
            alone=given["alone"],
            supervised=given["supervised"],
            parent_pid=given["parent_pid"],
            **overrides,
        )


def _refuse_unusable(health_file: Path, *, autoreload: bool) -> None:
    """Refuse a health file that cannot be touched, before anything looks at it; an old one is no sign of life."""
    if autoreload:
        raise CommandError("--health-file and --autoreload do not go together: leave one of them out.", returncode=2)
    try:
        if health_file.exists() and not (health_file.is_file() and health_file.stat().st_size == 0):
            raise OSError("it is there already, and is no empty file")  # noqa: TRY301 -- it would be removed
        health_file.touch()
        health_file.unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CommandError(
            f"--health-file {visible(str(health_file))} cannot be written: {why}. Its folder must exist, and the user "
            "of the worker may make files there.",
            returncode=2,
        ) from None


def _probes(given: dict[str, Any]) -> Probes:
    """Return who is told that the process lives; its parent speaks for a child."""
    return Probes() if given["parent_pid"] is not None else Probes(given["health_file"], os.environ)


def _worker_name(given: dict[str, Any]) -> str:
    return given["worker_id"] or f"{socket.gethostname()}-{os.getpid()}"


def _common_arguments(given: dict[str, Any]) -> list[str]:
    """Return the options of Django that every process that this one starts gets too."""
    arguments = ["--verbosity", str(given["verbosity"])]
    for option in ("settings", "pythonpath"):
        if given.get(option):
            arguments += [f"--{option}", given[option]]
    return arguments


def _arguments_for_children(given: dict[str, Any], *, processes: bool = True) -> list[str]:
    arguments: list[str] = []
    for name, amount in given["queue"] or []:
        arguments += ["--queue", name if amount is None else f"{name}={amount}"]
    for option in ("concurrency", "threads", "max_jobs", *(("processes",) if processes else ())):
        if given[option] is not None:
            arguments += [f"--{option.replace('_', '-')}", str(given[option])]
    for option in ("poll", "grace"):
        if given[option] is not None:
            arguments += [f"--{option}", str(given[option].total_seconds())]
    if given["drain"]:
        arguments.append("--drain")
    return arguments


def _nothing(_file: object = None) -> None:
    """Print no usage."""


def _write_lines_at_once() -> None:
    """Let what jobs print appear when they print it, also in a file or a pipe, and survive a kill."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
