"""Tables, columns, constraints and indexes, from the models."""

from __future__ import annotations

from typing import Any, Final

from django.db import models as django_models

from django_durable_jobs import models
from django_durable_jobs.models.indexes import PresentIndex, StatusIndex, TenantIndex
from tests.docs.facts.markdown_tables import code, first_line, listed, markdown_table

LATER: Final = "kept for what comes later; empty"
RESERVED: Final = ("occurrence_id", "tags")
COLUMNS: Final[dict[str, dict[str, str]]] = {
    "Job": {
        "id": "UUIDv7: sorts by creation",
        "created_at": "when it was enqueued",
        "run_at": "not before this time; empty for a job that never had to wait",
        "started_at": "time of the last claim",
        "finished_at": "when it ended; set exactly in the final statuses",
        "lease_expires_at": "end of the lease; set exactly while it runs",
        "worker_id": "who holds it; set exactly while it runs",
        "token": "fencing token: grows with every claim, is never reset",
        "rank": "minus the priority, so that claims read the index upwards",
        "attempt": "how many attempts have begun and count",
        "max_attempts": "how many it may have: `retries` + 1",
        "rescues": "how often a worker was lost with it; above 0 it is run alone",
        "generation": "of its checkpoints",
        "status": "see [statuses](statuses.md)",
        "queue": "name of its queue",
        "definition": "registered name of its function",
        "payload": "arguments as JSON text, see [stored values](serialization.md)",
        "result": "what the function returned, as JSON text; empty for `None`",
        "last_error": "class and message of the last failed attempt",
        "options": "back-off and retries of calls where the enqueue differs from the decorator, as JSON",
        "parent_id": "the job whose `gather()` made it",
        "parent_call": "which call of the parent waits for it",
        "batch_id": "the batch that it belongs to",
        "depth": "how many parents are above it; empty for none",
        "origin_id": "the job that it was forked from",
        "waiting_for": "what a waiting job waits for",
        "cancel_requested_at": "when an order to cancel came",
        "tenant": "for whom it is: tenants take turns in a fair queue",
        "sequence_key": "the line it is in: a sequence, or (beginning with a space) that of its concurrency key",
        "concurrency_key": "jobs of one key: so many at once as their definition says",
        "expires_at": "when it is over unless a worker has begun it; empty as soon as one has",
        "unique_key": "of the live jobs of a definition with this key there is one",
        "pause_requested_at": "when an order came to pause it while it ran",
        "paused_from": "the status to which `resume` leads back; set exactly while it is paused",
        "paused_by": "who had it paused last, until it is resumed",
        "pause_reason": "why",
        "progress": "what the job last said of its progress: current, total, message",
        **dict.fromkeys(RESERVED, LATER),
    },
    "Attempt": {
        "id": "number",
        "job_id": "the job",
        "number": "which attempt it was, from 1",
        "end": "`failed`, or `lost` with its worker",
        "error": "class and message",
        "traceback": "the traceback, without local variables",
        "worker_name": "on which worker",
        "started_at": "when it was claimed",
        "finished_at": "when it ended",
    },
    "Checkpoint": {
        "id": "number",
        "job_id": "the job",
        "generation": "which run of the code it belongs to",
        "key": "place of the call: `3` is the job's third call, `3.1` the first one inside it",
        "name": "name of the function that was called",
        "kind": "what it is: a call, a sleep, a message, …",
        "result": "what it returned, as JSON text",
        "error": "what it raised and the job's code caught, as JSON text",
        "created_at": "when it was stored",
    },
    "Message": {
        "id": "number; messages of one name are consumed in this order",
        "job_id": "to which job; empty for an event",
        "name": "its name",
        "event_key": "which one of the events of this name",
        "payload": "what was sent, as JSON text",
        "created_at": "when it was sent",
        "consumed_at": "when the job took it; of an event, when all jobs that waited for it had been told",
        "consumed_key": "which call of the job took it",
    },
    "EventWait": {
        "id": "number",
        "job_id": "the job that waits",
        "key": "which call of the job waits",
        "name": "for events of this name",
        "event_key": "for which one of them",
        "called": "an event came since the job looked last",
    },
    "JobBatch": {
        "id": "UUIDv7",
        "description": "for people",
        "created_at": "when it was opened",
        "closed_at": "when it was closed: from then on only members add to it",
        "finished_at": "when its last member had ended and its callbacks were enqueued",
        "callbacks": "the jobs that are to be enqueued, by the name of the callback, as JSON",
        "enqueued": "ids of those that were, as JSON",
        "awaits_discard": "whether the first member that fails for good has `on_discard` enqueued",
    },
    "Approval": {
        "id": "number",
        "job_id": "the job that asks",
        "generation": "of the job's checkpoints",
        "key": "which call of the job waits for it",
        "title": "the question",
        "details": "what a person needs to know, as JSON text",
        "requested_at": "when it was asked",
        "expires_at": "no answer is taken after this time",
        "decision": "`approved`, `rejected`, or `expired` when the job gave up waiting",
        "decided_by": "by whom",
        "decided_at": "when",
        "comment": "what they said",
    },
    "NamedValue": {
        "id": "number",
        "job_id": "the job",
        "name": "its name",
        "value": "the value, as JSON text",
        "saved_at": "when it was last written",
    },
    "ExecutionReport": {
        "job_id": "the run",
        "outcome": "what the run came to",
        "tasks": "each task with its attempts, as JSON text",
        "started_at": "when the run began",
        "finished_at": "when it ended",
    },
    "Sequence": {
        "key": "the sequence key",
        "job_id": "a job of it that is not lined up; in a sequence the only one",
        "others": "the others that are not lined up, of a line with several places: their ids",
        "places": "how many places the definition gives it; empty for one",
        "ordered": "how many an order gives it instead",
        "rate": "how many may begin in a window, by an order",
        "per": "seconds of the window",
        "let_go": "jobs that count under the rate, with their tokens when they were let go on",
        "opens_at": "when the next may go on",
        "ordered_at": "when that was ordered",
        "ordered_by": "by whom",
        "reason": "why",
    },
    "Coalescing": {
        "key": "`debounce`, `throttle` or `unique`, the definition, and the key if there is one",
        "job_id": "the job that answers for further enqueues",
        "until": "throttle: until when it answers; else when to look whether it still does",
    },
    "Limit": {
        "key": "`fleet`, or `queue` and its name",
        "concurrency": "how many jobs may run at once",
        "rate": "how many may begin in a window",
        "per": "seconds of the window",
        "burst": "how many may begin at one moment; empty for the rate",
        "fair": "whether its tenants take turns",
        "turn": "the tenant that was served last",
        "admitted": "what the rate has admitted lately",
        "admitted_at": "when jobs were last claimed under it",
        "ordered_at": "when it was ordered",
        "ordered_by": "by whom",
        "reason": "why",
    },
    "Queue": {
        "name": "the name, letter for letter",
        "created_at": "when its first job, or its first worker, came",
        "paused_at": "since when it is paused",
        "pause_mode": "`graceful` or `aggressive`; empty unless paused, as the next two",
        "pause_reason": "why, in the words of who paused it",
        "paused_by": "who paused it",
        "resume_at": "when workers resume it by themselves",
        "limited": "whether a limit holds for it",
    },
    "AuditEntry": {
        "id": "number, in the order in which they were ordered",
        "ordered_at": "when",
        "by": "who: the name of a user of the site, or of the machine",
        "surface": "`admin`, `api`, `command` or `python`",
        "target": "`job`, `queue`, `worker` or `approval`",
        "verb": "what was ordered",
        "name": "which of them: its id or name",
        "given": "what the order said besides, the reason among it",
        "outcome": "`begun`, `done` or `refused`",
        "answer": "why it was refused",
    },
    "Worker": {
        "id": "number; jobs that it holds point here",
        "name": "`--worker-id`, or host and process id",
        "host": "name of the machine",
        "pid": "process id",
        "queues": "concurrency by queue name",
        "started_at": "when it began",
        "seen_at": "time of the last heartbeat",
        "lease_expires_at": "after this time it counts as lost",
        "stopped_at": "when it ended in order",
        "lost_with": "how many jobs it held when it was found lost",
        "stop_requested_at": "when it was asked to stop; it stops within a second",
        "paused_at": "since when it is paused",
        "pause_mode": "`graceful` or `aggressive`; empty unless paused, as the next two",
        "pause_reason": "why, in the words of who paused it",
        "paused_by": "who paused it",
        "obeys": "the pauses that it has obeyed, by queue name; an empty name stands for the worker itself",
        "limited": "whether a limit of the fleet holds for it",
    },
}
"""What each column means. One that is missing here, or no longer exists, stops the generator."""


def all_models() -> list[type[django_models.Model]]:
    """Return our models, the job first."""
    return sorted(
        (getattr(models, name) for name in models.__all__), key=lambda model: list(COLUMNS).index(model.__name__)
    )


def _columns(model: type[django_models.Model]) -> list[Any]:
    return list(model._meta.concrete_fields)


def columns() -> str:
    """Return one section per table."""
    parts = []
    for model in all_models():
        meanings = COLUMNS[model.__name__]
        given = {field.column for field in _columns(model)}
        if wrong := given ^ meanings.keys():
            raise SystemExit(
                f"{model.__name__}: describe or drop {', '.join(sorted(wrong))} in tests/docs/facts/tables.py"
            )
        rows = [
            [code(field.column), _kind(field), "yes" if field.null else "", meanings[field.column]]
            for field in _columns(model)
            if meanings[field.column] != LATER
        ]
        text = f"## {code(model._meta.db_table)}\n\n{first_line(model)}\n\n"
        text += markdown_table(["column", "type", "may be empty", "meaning"], rows)
        if later := [name for name in meanings if meanings[name] == LATER]:
            text += f"\n\nKept for what comes later, and empty: {listed(later)}."
        parts.append(text)
    return "\n\n".join(parts)


def _kind(field: Any) -> str:
    kinds = {
        "BigAutoField": "number",
        "IntegerField": "number",
        "SmallIntegerField": "small number",
        "FloatField": "number, may be broken",
        "CharField": f"text, {field.max_length}",
        "TextField": "text",
        "DateTimeField": "instant",
        "UUIDField": "UUID",
        "JSONField": "JSON",
        "BooleanField": "yes or no",
        "ForeignKey": "reference",
        "OneToOneField": "reference",
    }
    return kinds[field.get_internal_type()]


def constraints() -> str:
    """Return the table of constraints."""
    rows = []
    for model in all_models():
        for constraint in model._meta.constraints:
            if isinstance(constraint, django_models.UniqueConstraint):
                rule = f"{listed(constraint.fields)} together are unique"
            else:
                rule = CONSTRAINTS[constraint.name]
            rows.append([code(constraint.name), rule])
    return markdown_table(["constraint", "rule"], rows)


CONSTRAINTS: Final = {
    "ddj_job_status": "the status is one of the ten",
    "ddj_job_lease_iff_running": "a job has a worker and a lease exactly while it is running",
    "ddj_job_finished_iff_final": "a job has `finished_at` exactly in a final status",
    "ddj_job_due_has_time": "a scheduled or retrying job has `run_at`",
    "ddj_job_paused_from": "a paused job, and no other, remembers where it came from",
    "ddj_job_attempt": "`attempt` lies between 0 and `max_attempts`",
    "ddj_approval_decided": "an approval has a time of its decision exactly if it has one",
    "ddj_checkpoint_result_or_error": "a checkpoint has either a result or an error",
}


def indexes() -> str:
    """Return the table of the job's indexes."""
    rows = [
        [code(index.name), listed(index.fields), listed(index.statuses)]
        for index in models.Job._meta.indexes
        if isinstance(index, StatusIndex)
    ]
    rows += [
        [code(index.name), listed(index.fields), f"have {code(index.fields[0])}"]
        for index in models.Job._meta.indexes
        if isinstance(index, PresentIndex)
    ]
    rows += [
        [code(index.name), listed(index.fields), "`pending` and have `tenant`; not on MariaDB and MySQL"]
        for index in models.Job._meta.indexes
        if isinstance(index, TenantIndex)
    ]
    return markdown_table(["index", "columns", "holds jobs that are"], rows)
