"""``manage.py runjobs``: options in, a worker or a supervisor out. What they do stands in ``worker/``."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import socket
import sys
from datetime import timedelta
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import autoreload

from ... import registry
from ...conf import get_settings, problems
from ...definitions import check_queue
from ...errors import OptionError, WorkerNameTaken
from ...worker.options import WorkerOptions
from ...worker.signals_os import on_stop
from ...worker.supervisor import Supervisor
from ...worker.worker import Worker

NAME = re.compile(r"[\x21-\x7e]{1,150}")
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
        raise argparse.ArgumentTypeError(str(error)) from None


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:80]!a}: 1 to 150 printable ASCII characters, no blanks")
    return text


class Command(BaseCommand):
    """Run a worker until it is stopped."""

    help = "Run durable jobs until stopped. SIGTERM or Ctrl-C stops cleanly; a second one stops at once."
    requires_system_checks = [Tags.models]  # noqa: RUF012 -- Django's interface; ours run below, with exit code 2
    suppressed_base_arguments = {"--version"}  # noqa: RUF012 -- as above

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options; each is checked when it is read."""
        parser.add_argument(
            "--queue",
            action="append",
            type=_queue,
            metavar="NAME[=N]",
            help="Serve this queue, N jobs at once (repeatable). Without it: every queue, also those that appear later.",
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
            "--poll", type=_seconds(0.01, 3600), metavar="SECONDS", help="Look for jobs this often (setting POLL_INTERVAL)."
        )
        parser.add_argument("--grace", type=_seconds(0, 86_400), metavar="SECONDS", help="Time for running jobs at a stop.")
        parser.add_argument("--autoreload", action="store_true", help="Restart when code changes; for development.")
        parser.add_argument(
            "--alone",
            action="store_true",
            help="Run only jobs that were lost with a worker, one at a time, and end; workers start this themselves.",
        )
        parser.add_argument("--parent-pid", type=_whole(1, 2**31), help=argparse.SUPPRESS)

    def handle(self, *_args: object, **given: Any) -> None:
        """Check the settings and run."""
        found = list(problems())
        if found:
            raise CommandError(f"{found[0][1]} {found[0][2]}", returncode=2)
        _log_to_stderr_unless_configured(int(given["verbosity"]))
        if given["autoreload"]:
            autoreload.run_with_reloader(self._run, **given)
        else:
            self._run(**given)

    def _run(self, **given: Any) -> None:
        options = self._options(given)
        runner: Worker | Supervisor
        if given["processes"] is not None:
            arguments = _arguments_for_children(given)
            runner = Supervisor(options.name, given["processes"], arguments, grace=options.grace)
        else:
            runner = Worker(options)
        on_stop(runner.stop)
        try:
            runner.run()
        except WorkerNameTaken as error:
            raise CommandError(str(error), returncode=2) from None
        # User code in a thread may never end; the process must.
        sys.stdout.flush()
        sys.stderr.flush()

    def _options(self, given: dict[str, Any]) -> WorkerOptions:
        settings = get_settings()
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
            name=given["worker_id"] or f"{socket.gethostname()}-{os.getpid()}",
            queues=queues,
            concurrency=concurrency,
            threads=given["threads"],
            drain=given["drain"] or given["alone"],
            max_jobs=given["max_jobs"],
            alone=given["alone"],
            parent_pid=given["parent_pid"],
            **overrides,
        )


def _arguments_for_children(given: dict[str, Any]) -> list[str]:
    arguments: list[str] = []
    for name, amount in given["queue"] or []:
        arguments += ["--queue", name if amount is None else f"{name}={amount}"]
    for option in ("concurrency", "threads", "max_jobs"):
        if given[option] is not None:
            arguments += [f"--{option.replace('_', '-')}", str(given[option])]
    for option in ("poll", "grace"):
        if given[option] is not None:
            arguments += [f"--{option}", str(given[option].total_seconds())]
    if given["drain"]:
        arguments.append("--drain")
    return arguments


def _log_to_stderr_unless_configured(verbosity: int) -> None:
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel({0: logging.ERROR, 1: logging.INFO}.get(verbosity, logging.DEBUG))
