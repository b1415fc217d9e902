"""``manage.py jobs enqueue``: a job by its registered name, with arguments in JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, Final

from ..errors import ArgumentError
from ..operations import describe
from ..operations.submit import OPTIONS, submit
from ..rendering import safe_repr
from .ordering import Write, add_output, as_json, who

HELP: Final = {
    "id": "A UUIDv7 that you keep: a repeated enqueue finds the first job.",
    "queue": "The queue to put it into.",
    "priority": "-100 to 100 (higher first), or critical, high, normal, low.",
    "retries": "Attempts after the first.",
    "delay": "Seconds until it may begin.",
    "run_at": "When it may begin, e.g. 2030-01-31T09:00:00+00:00.",
    "expire_after": "Seconds in which it has to begin.",
    "expires_at": "When it has to have begun.",
    "tenant": "For whom it is.",
    "unique_key": "Only one live job of this name with this key.",
}


def declare(add: Callable[[str, Callable[..., None], str], argparse.ArgumentParser], write: Write) -> None:
    """Declare the verb."""
    parser = add("enqueue", lambda given: _enqueue(given, write), "Enqueue a job by its registered name.")
    parser.add_argument("name", metavar="NAME")
    # Django takes what is called args for its own.
    for name, default, text in (("args", "[]", "A list of positional"), ("kwargs", "{}", "An object of named")):
        parser.add_argument(
            f"--{name}", dest=f"given_{name}", default=default, metavar="JSON", help=f"{text} arguments."
        )
    for name in OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"option_{name}", help=HELP[name])
    add_output(parser)


def _enqueue(given: dict[str, Any], write: Write) -> None:
    options = {name: given[f"option_{name}"] for name in OPTIONS if given[f"option_{name}"] is not None}
    args, kwargs = _read("args", given["given_args"]), _read("kwargs", given["given_kwargs"])
    job_id, existing = submit(given["name"], args, kwargs, options, by=who(), surface="command")
    if given["output"] == "json":
        write(
            as_json({"id": str(job_id), "existing": existing, "now": describe.find("job", str(job_id), values=False)})
        )
    else:
        write(f"{job_id}{' (was there already)' if existing else ''}")


def _read(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ArgumentError(f"--{name} must be JSON, not {safe_repr(text, 80)}.") from None
