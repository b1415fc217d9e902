"""Orders and looks of ``manage.py jobs``: one verb for each order of the catalogue, one for each kind of thing."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from django.core.management.base import CommandError

from ..errors import JobNotFound, OptionError
from ..models import Queue, Worker
from ..operations import describe
from ..operations.approvals import pending_approvals
from ..operations.batches import batches
from ..operations.catalogue import VERBS, Verb, carry_out
from ..operations.database import alias, jobs
from ..operations.explain import explain
from ..operations.orders import LONGEST_BY
from ..rendering import safe_repr, visible
from ..states import Status

SHOWN: Final = 100
REFUSED: Final = 1
OPTIONS: Final = {
    "reason": "Why; kept in the audit.",
    "comment": "What the job is told besides.",
    "mode": "What becomes of running jobs: graceful (default) or aggressive.",
    "force": "A job: take it from its worker at once, without waiting for its code. A queue: clear it first.",
    "wait": "Wait at most so many seconds until nothing of it runs.",
    "queue": "The queue to put it, or its jobs, into.",
    "priority": "-100 to 100 (higher first), or critical, high, normal, low.",
    "concurrency": "How many jobs may run at once over the whole fleet.",
    "rate": "How many jobs may begin in each window.",
    "per": "The window in seconds (default: 1).",
    "burst": "How many of them may begin at one moment (default: the rate).",
    "fair": "Whether its tenants take turns (yes or no).",
    "resume_at": "When workers resume it, e.g. 2030-01-31T09:00:00+00:00.",
}
FLAGS: Final = frozenset({"force"})
"""Options that are said without a value."""
ASKED: Final = frozenset({"delete", "clear"})
"""Orders that nothing takes back, or not as a whole."""
KEYS: Final = {"job": "JOB_ID", "queue": "QUEUE", "worker": "WORKER_ID", "approval": "NUMBER"}

Write = Callable[[str], object]


def word_of(verb: Verb) -> str:
    """Return what an order is called here: ``pause``, ``pause-queue``, ``approve``."""
    alone = sum(other.name == verb.name for other in VERBS) == 1
    return verb.name if verb.target == "job" or alone else f"{verb.name}-{verb.target}"


def declare(add: Callable[[str, Callable[..., None], str], argparse.ArgumentParser], write: Write) -> None:
    """Declare all of them; ``add`` makes the parser of a verb."""
    for verb in VERBS:
        text = f"{verb.title} a{'n' if verb.target == 'approval' else ''} {verb.target}."
        parser = add(word_of(verb), lambda given, verb=verb: _order(verb, given, write), text)
        parser.add_argument("key", metavar=KEYS[verb.target])
        for name in verb.takes:
            kind: dict[str, Any] = {"action": "store_const", "const": True} if name in FLAGS else {}
            parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=OPTIONS[name], **kind)
        if verb.name in ASKED:
            parser.add_argument("--yes", action="store_true", help="Do not ask back.")
        add_output(parser)
    looks: dict[str, tuple[Callable[[dict[str, Any]], list[dict[str, Any]]], str]] = {
        "list": (_jobs, "Show jobs, the newest first."),
        "queues": (lambda _given: describe.queues(Queue.objects.using(alias()).order_by("name")), "Show the queues."),
        "workers": (_workers, "Show the workers."),
        "batches": (_batches, "Show the batches, the newest first."),
        "approvals": (_approvals, "Show what jobs ask people."),
    }
    for name, (find, text) in looks.items():
        parser = add(name, lambda given, find=find: _show(find(given), given, write), text)
        add_output(parser)
        if name == "list":
            parser.add_argument("--status", help="Statuses, with commas between them.")
            parser.add_argument("--queue", help="Name of a queue.")
            parser.add_argument("--limit", type=int, default=SHOWN, help="How many at most (default: %(default)s).")
    reason = add("explain", lambda given: _explain(given, write), "Say why a job is not running.")
    reason.add_argument("key", metavar="JOB_ID")
    add_output(reason)
    inspect = add("inspect", lambda given: _inspect(given, write), "Show a job with its unsuccessful attempts.")
    inspect.add_argument("key", metavar="JOB_ID")
    add_output(inspect)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Let a verb print text or JSON."""
    parser.add_argument("--output", choices=("text", "json"), default="text", help="How to print (default: text).")


def _order(verb: Verb, given: dict[str, Any], write: Write) -> None:
    if verb.name in ASKED and not given["yes"] and not _agreed(verb, given["key"]):
        raise CommandError("Nothing was done: say --yes, or answer yes at a terminal.", returncode=REFUSED)
    said = {name: given[name] for name in verb.takes}
    carry_out(verb, given["key"], said, by=who(), surface="command")
    now = describe.find(verb.target, given["key"], values=False)
    if given["output"] == "json":
        write(as_json({"done": f"{verb.name} {verb.target}", "now": now}))
        return
    state = now and (now.get("status") or now.get("decision") or ("paused" if now.get("paused") else "open"))
    write(f"{verb.name} {verb.target} {visible(given['key'])}: done{f', now {state}' if state else ''}")


def _agreed(verb: Verb, key: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{verb.target} {visible(key)}: {verb.question} [yes/no] ").strip() == "yes"


def who() -> str:
    """Return the name of the machine's user, for the audit."""
    try:
        return getpass.getuser()[:LONGEST_BY]
    except (OSError, KeyError):
        return "command"  # a container may have no names for its users


def _jobs(given: dict[str, Any]) -> list[dict[str, Any]]:
    rows = jobs().light().select_related("worker").order_by("-id")
    if given["status"] is not None:
        known = [status.value for status in Status]
        for name in given["status"].split(","):
            if name not in known:
                raise OptionError(f"There is no status {safe_repr(name, 80)}. Known: {', '.join(known)}.")
        rows = rows.filter(status__in=given["status"].split(","))
    if given["queue"] is not None:
        rows = rows.filter(queue=given["queue"])
    if not 0 < given["limit"] <= 10 * SHOWN:
        raise OptionError(f"--limit must be a whole number from 1 to {10 * SHOWN}.")
    return [describe.job(row, values=True) for row in rows[: given["limit"]]]


def _workers(_given: dict[str, Any]) -> list[dict[str, Any]]:
    return [describe.worker(row) for row in Worker.objects.using(alias()).with_state().order_by("-id")[:SHOWN]]


def _batches(_given: dict[str, Any]) -> list[dict[str, Any]]:
    return [describe.batch(row) for row in batches().order_by("-id")[:SHOWN]]


def _approvals(_given: dict[str, Any]) -> list[dict[str, Any]]:
    return [describe.approval(row, values=True) for row in pending_approvals()[:SHOWN]]


def _explain(given: dict[str, Any], write: Write) -> None:
    found = explain(given["key"])
    write(as_json(asdict(found)) if given["output"] == "json" else f"{found.code}: {found.text}")


def _inspect(given: dict[str, Any], write: Write) -> None:
    found = describe.find("job", given["key"], values=True)
    if found is None:
        raise JobNotFound(f"There is no job {safe_repr(given['key'], 80)}.")
    if given["output"] == "json":
        write(as_json(found))
        return
    for name, value in found.items():
        if name == "attempts":
            for attempt in value:
                write(f"attempt {attempt['number']}: {attempt['end']}, {visible(attempt['error'])}")
        elif value not in {None, ""} if isinstance(value, str | None) else value is not None:
            write(f"{name}: {visible(str(value))}")


COLUMNS: Final = (
    *("id", "name", "title", "definition", "queue", "status", "state", "paused", "pending", "running", "job"),
)
"""What a line of text shows, of what there is."""


def _show(rows: list[dict[str, Any]], given: dict[str, Any], write: Write) -> None:
    if given["output"] == "json":
        write(as_json(rows))
        return
    for row in rows:
        write("  ".join(f"{name}={visible(str(row[name]))}" for name in COLUMNS if row.get(name) is not None))
    if not rows:
        write("none")


def as_json(value: object) -> str:
    """Return what ``--output json`` prints."""
    return json.dumps(value, indent=2, default=str)
