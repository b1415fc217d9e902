"""Enqueueing for somebody outside of the project's code: by name, with JSON, over HTTP or by the command.

Over HTTP only definitions that say ``api=True`` can be enqueued; for all others it is as if there were none. The
command is for people with a shell, who may run any code of the project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from .. import registry
from ..definitions import Definition
from ..errors import ArgumentError, DurableJobsError, OptionError, UnknownDefinition
from ..ids import parse_id
from ..models import AuditEntry
from ..options import Options
from ..rendering import safe_repr, safe_str
from ..serialization import Codec
from .catalogue import LONGEST_ANSWER, Surface
from .coalesce import enqueue_once
from .database import alias, jobs
from .enqueue import Request, enqueue
from .orders import LONGEST_BY, check_text
from .sayings import CHECKS
from .unique import enqueue_unique


def _seconds(name: str, value: Any) -> Any:
    return CHECKS["per"](name, value)


def _id(name: str, value: Any) -> UUID:
    found = parse_id(value) if isinstance(value, str) else None
    if found is None:
        raise OptionError(f"{name} must be the text of a UUID of version 7, not {safe_repr(value, 80)}.")
    return found


def _as_it_is(_name: str, value: Any) -> Any:
    return value


OPTIONS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "id": _id,
    "queue": _as_it_is,
    "priority": CHECKS["priority"],
    "retries": CHECKS["concurrency"],
    "delay": _seconds,
    "run_at": CHECKS["resume_at"],
    "expire_after": _seconds,
    "expires_at": CHECKS["resume_at"],
    "tenant": _as_it_is,
    "unique_key": _as_it_is,
}
"""The options that can be said from outside, and how each is read; lengths of time are seconds."""


def submit(  # noqa: PLR0913 -- what such an enqueue says, by name
    name: object, args: object, kwargs: object, options: Mapping[str, Any], *, by: str, surface: Surface
) -> tuple[UUID, bool]:
    """Enqueue a job, write down who did, and return its id and whether it was there already.

    ``args`` and ``kwargs`` are JSON values, checked against the signature; types that JSON lacks are written as they
    are stored (``{"$date": "2030-01-31"}``). With an ``id`` a repeated call finds the job of the first one.

    Raises ``UnknownDefinition``, ``ArgumentError``, ``SerializationError``, ``OptionError`` and ``JobExists``; then
    nothing has been enqueued.
    """
    check_text("by", by, LONGEST_BY)
    request = _request(_definition(name, surface), args, kwargs, options)
    said = {key: value for key, value in options.items() if value is not None}
    entry = AuditEntry.objects.using(alias()).create(
        by=by, surface=surface, target="job", verb="enqueue", name=request.definition.name,
        given={key: value.isoformat() if isinstance(value, datetime) else value for key, value in said.items()},
    )  # fmt: skip
    this = AuditEntry.objects.using(alias()).filter(id=entry.id)
    try:
        job_id, existing = _store(request)
    except DurableJobsError as refusal:
        this.update(outcome="refused", answer=safe_str(refusal, LONGEST_ANSWER))
        raise
    this.update(outcome="done", name=str(job_id), answer=request.definition.name)
    return job_id, existing


def _definition(name: object, surface: Surface) -> Definition:
    if not isinstance(name, str):
        raise OptionError(f"definition must be the registered name of a durable job, not {safe_repr(name, 80)}.")
    if surface != "api":
        return registry.get(name)
    found = registry.get(name) if name in registry.names() else None
    if found is None or not found.api:
        # The same words for both: what cannot be enqueued here is not told either.
        raise UnknownDefinition(f"No durable job that HTTP may enqueue (api=True) is called {safe_repr(name, 80)}.")
    return found


def _request(definition: Definition, args: object, kwargs: object, options: Mapping[str, Any]) -> Request:
    if not isinstance(args, list):
        raise ArgumentError(f"args must be a list of positional arguments, not {safe_repr(args, 80)}.")
    if not isinstance(kwargs, dict):
        raise ArgumentError(f"kwargs must be an object of arguments by name, not {safe_repr(kwargs, 80)}.")
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise OptionError(f"There is no option {safe_repr(unknown[0], 80)} here. Known: {', '.join(sorted(OPTIONS))}.")
    given = {name: OPTIONS[name](name, value) for name, value in options.items() if value is not None}
    chosen: Options = definition.options.changed(given) if given else definition.options
    plain = Codec()
    values = tuple(plain.restore(value) for value in args)
    named = {name: plain.restore(value) for name, value in kwargs.items()}
    return Request(definition, values, named, chosen)


def _store(request: Request) -> tuple[UUID, bool]:
    options = request.options
    if options.coalesces:
        return enqueue_once(request)
    if options.unique_key is not None:
        (answer,) = enqueue_unique([request])
        return answer
    existing = options.id is not None and jobs().filter(id=options.id).exists()
    (job_id,) = enqueue([request])
    return job_id, existing
