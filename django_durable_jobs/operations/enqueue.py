"""Storing new jobs: checked in the caller, inserted in the caller's transaction."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Final
from uuid import UUID

from django.db import DatabaseError, IntegrityError, connections, transaction

from ..backoff import Backoff
from ..clock import SYSTEM
from ..conf import Settings, get_settings
from ..definitions import Definition
from ..dialects import Dialect, dialect_of
from ..dialects.rows import NewJob
from ..errors import DurableJobsError, OptionError, SerializationError
from ..faults import fault
from ..ids import new_job_id
from ..keys import KEY_LENGTH, TENANT_LENGTH, key_of
from ..models import Job
from ..options import Options
from ..rendering import safe_str
from .facts import tell_enqueued
from .sequences import CONCURRENT, advance_after_commit, lined_up

NOTIFY_PAUSE: Final = 0.005
"""Seconds between two notifications of one queue by one process. A commit that notifies takes a lock of the whole
server; a worker that was woken looks again after 10 ms, so nothing waits for the notification that was left out."""
EXPIRE_AFTER: Final = "expire_after"
STORED_OPTIONS: Final = (
    "backoff",
    "call_retries",
    "call_backoff",
    "timeout",
    "hard_timeout",
    "determinism",
    "on_crash",
)
"""Options that the worker needs later; they are stored only where one enqueue differs from the definition.

``on_crash="fail"`` always is: whoever finds a lost job may not know its definition."""

_queues_with_row: set[tuple[str, str, str]] = set()
_notified: dict[tuple[str, str], float] = {}


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a definition that is to become a job."""

    definition: Definition
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options


def enqueue(requests: Sequence[Request]) -> list[UUID]:
    """Store the jobs and return their ids, in order: all or none.

    Runs in the caller's transaction if one is open on the jobs' database: then the jobs are there when it
    commits, and never were when it rolls back. Arguments are checked before any SQL; with several requests the
    error names the index of the bad one (counted from 0).
    """
    settings = get_settings()
    dialect = dialect_of(settings.database)
    jobs = _prepare(requests, settings)
    given = [job for job, request in zip(jobs, requests, strict=True) if request.options.id is not None]
    try:
        if given:
            return _store_with_given_ids(jobs, given, dialect, settings)
        _store(jobs, dialect, settings)
    except DatabaseError as error:
        if dialect.is_missing_table(error):
            error.add_note(_no_tables(settings.database))
        raise
    return [job.id for job in jobs]


def insert(jobs: list[NewJob]) -> None:
    """Store jobs that were prepared, in the transaction that is open."""
    settings = get_settings()
    _store(jobs, dialect_of(settings.database), settings)


def _no_tables(database: str) -> str:
    newest = max(module.name for module in iter_modules(import_module("django_durable_jobs.migrations").__path__))
    return (
        f"django_durable_jobs has no tables yet on database {database!r}: run `manage.py migrate`. A migration that "
        f'enqueues needs ("django_durable_jobs", "{newest}") among its dependencies; code that runs when Django '
        "starts, such as AppConfig.ready(), also runs before the first migrate: do not enqueue there."
    )


def prepare(requests: Sequence[Request], *, unique: bool = False) -> list[NewJob]:
    """Check requests as ``enqueue`` does, without any SQL, and return the jobs that they ask for.

    ``unique``: the caller looks after unique keys; nobody else may be given such jobs.
    """
    return _prepare(requests, get_settings(), unique=unique)


def _prepare(requests: Sequence[Request], settings: Settings, *, unique: bool = False) -> list[NewJob]:
    jobs = []
    for index, request in enumerate(requests):
        try:
            jobs.append(_new_job(request, settings, unique=unique))
        except DurableJobsError as error:
            if len(requests) > 1:
                error.args = (f"Job {index} of {len(requests)}: {error}", *error.args[1:])
            raise
    return jobs


def _new_job(request: Request, settings: Settings, *, unique: bool) -> NewJob:
    definition, options = request.definition, request.options
    if options.coalesces:
        raise OptionError(
            f"{definition.name}: debounce and throttle work with enqueue(), one job at a time. Together with others it "
            "would have to be said which of them the others are answered with."
        )
    if options.unique_key is not None and not unique:
        raise OptionError(
            f"{definition.name}: unique_key works with enqueue() and enqueue_many(). A child, a compensation, "
            "a member or a callback of a batch cannot be answered with a job of others: give it "
            ".using(unique_key=None)."
        )
    retries = settings.retries if options.retries is None else options.retries
    priority = settings.priority if options.priority is None else options.priority
    return NewJob(
        id=options.id or new_job_id(),
        definition=definition.name,
        queue=options.queue or settings.default_queue,
        rank=-priority,
        payload=definition.arguments.dump(request.args, request.kwargs, settings.argument_limit),
        max_attempts=retries + 1,
        options=None
        if options is definition.options and options.on_crash != "fail"
        else stored_options(options, definition.options),
        run_at=options.run_at,
        delay=options.delay,
        more=_more_of(request),
    )


def _more_of(request: Request) -> dict[str, Any] | None:
    """Return the columns that few jobs have."""
    options, more = request.options, _line_of(request)
    if options.tenant is not None:
        more["tenant"] = _key(request, "tenant", TENANT_LENGTH)
    if options.expires_at is not None:
        more["expires_at"] = options.expires_at
    if options.expire_after is not None:
        more[EXPIRE_AFTER] = options.expire_after
    if options.unique_key is not None:
        more["unique_key"] = _key(request, "unique_key", KEY_LENGTH)
    return more or None


def _line_of(request: Request) -> dict[str, Any]:
    """Return the columns of a job that waits for its turn, in a sequence or for one of several places."""
    options = request.options
    if options.concurrency is not None:
        given, longest = options.concurrency_key, KEY_LENGTH - len(CONCURRENT)
        key = request.definition.name[:longest] if given is None else _key(request, "concurrency_key", longest)
        return {"concurrency_key": key, "sequence_key": f"{CONCURRENT}{key}"}
    return {} if options.sequence_key is None else {"sequence_key": _key(request, "sequence_key", KEY_LENGTH)}


def _key(request: Request, name: str, longest: int) -> str:
    given, who = getattr(request.options, name), request.definition.name
    return key_of(given, name, who, request.args, request.kwargs, longest=longest)


def stored_options(options: Options, usual: Options) -> str | None:
    """Return the overrides that the worker needs as JSON, or ``None`` when the definition's own hold."""
    changed: dict[str, Any] = {}
    for name in STORED_OPTIONS:
        value = getattr(options, name)
        if value != getattr(usual, name) and value is not None:
            changed[name] = _form(value)
    if options.on_crash == "fail":
        changed["on_crash"] = "fail"
    return json.dumps(changed) if changed else None


@lru_cache(maxsize=1024)
def with_stored_options(definition: Definition, text: str | None) -> Options:
    """Return the definition's options with those that were stored; remembered, as few texts differ."""
    if text is None:
        return definition.options
    try:
        stored = json.loads(text)
        given = {
            name: Backoff.from_form(value) if name in {"backoff", "call_backoff"} else value
            for name, value in stored.items()
        }
        return definition.options.changed(given)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise SerializationError(f"The stored options of the job cannot be read: {safe_str(error, 200)}") from error


def fails_when_lost(text: str | None) -> bool:
    """Answer whether a job with these stored options has failed when its worker was lost with it."""
    try:
        return text is not None and json.loads(text).get("on_crash") == "fail"
    except (ValueError, AttributeError, RecursionError):
        return False  # it cannot run at all, which the next worker says


def _form(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.to_form() if isinstance(value, Backoff) else value


def _store(jobs: list[NewJob], dialect: Dialect, settings: Settings) -> None:
    if not jobs:
        return
    keys = {key for job in jobs if job.more is not None and (key := job.more.get("sequence_key")) is not None}
    if keys:
        jobs = lined_up(jobs)
    jobs = _with_their_ends(jobs, dialect)
    queues = {job.queue for job in jobs}
    _ensure_queues(queues, dialect)
    notify = _notifications(jobs, dialect) if settings.notify and dialect.has_notifications else []
    if dialect.connection.in_atomic_block:
        dialect.insert_jobs(jobs, notify)
    else:
        dialect.again_after_conflict(lambda: dialect.insert_jobs(jobs, notify))
    fault("enqueued")
    tell_enqueued(jobs)
    if keys:
        advance_after_commit(keys)


def _with_their_ends(jobs: list[NewJob], dialect: Dialect) -> list[NewJob]:
    """Return the jobs with the instant at which they expire, where a length was given: by the database's clock."""
    if all(job.more is None or EXPIRE_AFTER not in job.more for job in jobs):
        return jobs
    now = dialect.now()
    return [job._replace(more=_with_its_end(job.more, now)) for job in jobs]


def _with_its_end(more: dict[str, Any] | None, now: datetime) -> dict[str, Any] | None:
    if more is None or EXPIRE_AFTER not in more:
        return more
    rest = {name: value for name, value in more.items() if name != EXPIRE_AFTER}
    return {**rest, "expires_at": now + more[EXPIRE_AFTER]}


def _payloads(jobs: Iterable[NewJob]) -> list[str]:
    """Say what workers should look at: a queue that has pending jobs, or (empty) times that became due earlier."""
    return sorted({job.queue if job.run_at is None and job.delay is None else "" for job in jobs if not job.waits})


def _notifications(jobs: list[NewJob], dialect: Dialect) -> list[str]:
    """Return what to notify now, leaving out what this process said a moment ago."""
    payloads = _payloads(jobs)
    if connections[dialect.alias].in_atomic_block:
        # The moment of the commit is not known, so nothing may be left out; the server merges doubles.
        return payloads
    now = SYSTEM.monotonic()
    due = [payload for payload in payloads if now - _notified.get((dialect.alias, payload), -math.inf) >= NOTIFY_PAUSE]
    _notified.update({(dialect.alias, payload): now for payload in due})
    return due


def _ensure_queues(names: set[str], dialect: Dialect) -> None:
    """Give each queue its row with its first job; remembered once that is committed."""
    database = str(connections[dialect.alias].settings_dict["NAME"])
    new = {name for name in names if (dialect.alias, database, name) not in _queues_with_row}
    if new:
        # Missing tables show here; in a savepoint, since a broken transaction would hide why (a migration on SQLite).
        with transaction.atomic(using=dialect.alias):
            dialect.add_queues(new)
        known = {(dialect.alias, database, name) for name in new}
        transaction.on_commit(lambda: _queues_with_row.update(known), using=dialect.alias)


def forget_queue(name: str) -> None:
    """Let the next job of a queue give it a row again; other processes learn of a deletion by ``add_missing``."""
    _queues_with_row.difference_update([known for known in _queues_with_row if known[2] == name])


def _store_with_given_ids(jobs: list[NewJob], given: list[NewJob], dialect: Dialect, settings: Settings) -> list[UUID]:
    """Store jobs of which the caller chose ids: a repeated enqueue of the same job finds the first one."""
    if len({job.id for job in given}) < len(given):
        raise OptionError("The same id was given to two jobs of one call.")
    known = same_jobs(given, dialect)
    fresh = [job for job in jobs if job.id not in known]
    try:
        with transaction.atomic(using=dialect.alias):
            _store(fresh, dialect, settings)
    except IntegrityError:
        # Somebody stored one of them in between. If theirs are the same jobs, all is well.
        known = same_jobs(given, dialect)
        with transaction.atomic(using=dialect.alias):
            _store([job for job in jobs if job.id not in known], dialect, settings)
    return [job.id for job in jobs]


def same_jobs(given: list[NewJob], dialect: Dialect) -> set[UUID]:
    """Return which of these jobs are stored already; ``OptionError`` for an id that belongs to another job."""
    stored = Job.objects.using(dialect.alias).filter(id__in=[job.id for job in given])
    found = {row[0]: row[1:] for row in stored.values_list("id", "definition", "payload")}
    for job in given:
        if job.id in found and found[job.id] != (job.definition, job.payload):
            raise OptionError(f"The id {job.id} belongs to another job ({found[job.id][0]}): use a new one.")
    return set(found)
