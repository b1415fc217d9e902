"""Every order that a person can give, once: what it is called, to what, who may, and what it does.

The admin, the HTTP API and ``manage.py jobs`` are made from this list, so none of them can lack an order, name it
otherwise, or forget to write down who gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from django.utils.translation import gettext_lazy as _

from ..errors import DurableJobsError, OptionError
from ..ids import parse_id
from ..models import AuditEntry, Queue, Worker
from ..rendering import safe_repr, safe_str
from ..states import OPEN, PAUSABLE, TRANSITIONS, Status
from .approvals import approve, reject
from .arrange import MOVABLE, change_priority, move_job
from .cancel import cancel
from .clearing import clear_queue, delete_queue, drain_queue, move_jobs
from .database import alias
from .delete import delete
from .limits import limit_queue, unlimit_queue
from .orders import LONGEST_BY, check_text
from .pause import pause, resume
from .queues import pause_queue, resume_queue
from .retry import requeue, retry
from .sayings import CHECKS, LONGEST_NAME, needed, why
from .workers import pause_worker, resume_worker, stop_worker

Target = Literal["job", "queue", "worker", "approval"]
Surface = Literal["admin", "api", "command", "python"]

LONGEST_ANSWER: Final = 2000
LONGEST_WAIT_OF_A_REQUEST: Final = 20
"""Seconds; a web server gives up on what takes much longer."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One order. ``run`` gets the target's id or name, who orders it, and what else was given."""

    target: Target
    name: str
    permission: str
    """The code name of Django's permission."""
    title: Any
    question: Any
    """What a surface asks back before it is done."""
    run: Callable[[Any, str, Mapping[str, Any]], object]
    takes: tuple[str, ...] = ("reason",)
    """What the order may say besides; see ``sayings.py``."""
    statuses: frozenset[Status] = frozenset()
    """Of jobs: the statuses in which it is offered. Whether it is done then is the operation's answer."""


VERBS: Final = (
    Verb(
        "job",
        "pause",
        "pause_job",
        _("Pause"),
        _("Hold these jobs? A running one is paused at its next durable call; it keeps its checkpoints."),
        lambda job, by, given: pause(job, by=by, **given),
        ("reason", "mode"),
        PAUSABLE | {Status.RUNNING},
    ),
    Verb(
        "job",
        "resume",
        "pause_job",
        _("Resume"),
        _("Let these jobs go on where they were?"),
        lambda job, by, given: resume(job, by=by, **given),
        statuses=frozenset({Status.PAUSED}),
    ),
    Verb(
        "job",
        "retry",
        "retry_job",
        _("Retry"),
        _("Put these jobs back into their queues? Their code runs again; calls that have a result do not."),
        lambda job, _by, _given: retry(job),
        statuses=TRANSITIONS["retry"].sources,
    ),
    Verb(
        "job",
        "requeue",
        "retry_job",
        _("Requeue"),
        _("Have these jobs run again from the start? Calls that have a result are made again, too."),
        lambda job, _by, _given: requeue(job),
        statuses=TRANSITIONS["retry"].sources,
    ),
    Verb(
        "job",
        "cancel",
        "cancel_job",
        _("Cancel"),
        _("Cancel these jobs and all their children? A running one is stopped at its next durable call."),
        lambda job, by, given: cancel(job, reason=why("cancelled", by, given), force=given.get("force", False)),
        ("reason", "force"),
        OPEN,
    ),
    Verb(
        "job",
        "move",
        "move_job",
        _("Move"),
        _("Put these jobs into another queue?"),
        lambda job, _by, given: move_job(job, needed(given, "queue")),
        ("queue", "reason"),
        MOVABLE,
    ),
    Verb(
        "job",
        "reprioritize",
        "move_job",
        _("Reprioritize"),
        _("Give these jobs another priority?"),
        lambda job, _by, given: change_priority(job, needed(given, "priority")),
        ("priority", "reason"),
        MOVABLE,
    ),
    Verb(
        "job",
        "delete",
        "delete_job",
        _("Delete"),
        _("Delete these jobs with their attempts and calls? Nothing brings them back."),
        lambda job, _by, _given: delete(job),
        statuses=frozenset(Status) - {Status.RUNNING},
    ),
    Verb(
        "queue",
        "pause",
        "pause_queue",
        _("Pause"),
        _("Hold these queues for the whole fleet? No worker claims from them until they are resumed."),
        lambda queue, by, given: pause_queue(queue, by=by, **given),
        ("reason", "mode", "resume_at"),
    ),
    Verb(
        "queue",
        "resume",
        "pause_queue",
        _("Resume"),
        _("Let workers claim from these queues again?"),
        lambda queue, by, given: resume_queue(queue, by=by, **given),
    ),
    Verb(
        "queue",
        "drain",
        "pause_queue",
        _("Drain"),
        _("Hold these queues until they are resumed, and let what runs come to its end?"),
        lambda queue, by, given: drain_queue(queue, by=by, **given),
        ("reason", "wait"),
    ),
    Verb(
        "queue",
        "clear",
        "clear_queue",
        _("Clear"),
        _("Cancel all jobs of these queues that nobody has begun? What has begun goes on."),
        lambda queue, by, given: clear_queue(queue, by=by, **given),
    ),
    Verb(
        "queue",
        "move",
        "move_job",
        _("Move the jobs of"),
        _("Put all jobs of these queues that no worker holds into another queue?"),
        lambda queue, _by, given: move_jobs(queue, needed(given, "queue")),
        ("queue", "reason"),
    ),
    Verb(
        "queue",
        "delete",
        "delete_queue",
        _("Delete"),
        _("Delete these queues with their pauses and limits? Jobs that have ended stay."),
        lambda queue, by, given: delete_queue(queue, by=by, **given),
        ("force", "reason"),
    ),
    Verb(
        "queue",
        "limit",
        "limit_queue",
        _("Limit"),
        _("Limit these queues for the whole fleet? What was limited before is replaced; what runs goes on."),
        lambda queue, by, given: limit_queue(queue, by=by, **given),
        ("concurrency", "rate", "per", "burst", "fair", "reason"),
    ),
    Verb(
        "queue",
        "unlimit",
        "limit_queue",
        _("Remove the limits of"),
        _("Take the limits of these queues back?"),
        lambda queue, _by, _given: unlimit_queue(queue),
    ),
    Verb(
        "worker",
        "pause",
        "pause_worker",
        _("Pause"),
        _("Hold these workers? They claim nothing until they are resumed; what they run goes on."),
        lambda worker, by, given: pause_worker(worker, by=by, **given),
        ("reason", "mode"),
    ),
    Verb(
        "worker",
        "resume",
        "pause_worker",
        _("Resume"),
        _("Let these workers claim again?"),
        lambda worker, by, given: resume_worker(worker, by=by, **given),
    ),
    Verb(
        "worker",
        "stop",
        "stop_worker",
        _("Stop"),
        _("Stop these workers? They wait for their jobs until their grace time is over. A supervisor replaces them."),
        lambda worker, by, given: stop_worker(worker, by=by, **given),
    ),
    Verb(
        "approval",
        "approve",
        "decide_approval",
        _("Approve"),
        _("Say yes to what these jobs ask?"),
        lambda approval, by, given: approve(approval, by=by, **given),
        ("comment",),
    ),
    Verb(
        "approval",
        "reject",
        "decide_approval",
        _("Reject"),
        _("Say no to what these jobs ask?"),
        lambda approval, by, given: reject(approval, by=by, **given),
        ("comment",),
    ),
)
"""All orders. A row here gives the order to every surface."""


def verbs_of(target: Target) -> list[Verb]:
    """Return the orders that can be given to one kind of thing."""
    return [verb for verb in VERBS if verb.target == target]


def verb_of(target: str, name: str) -> Verb:
    """Return one order; ``OptionError`` names those that there are."""
    for verb in VERBS:
        if (verb.target, verb.name) == (target, name):
            return verb
    known = ", ".join(verb.name for verb in VERBS if verb.target == target) or "none"
    raise OptionError(f"There is no order {safe_repr(name, 80)} to a {safe_str(target, 80)}. There are: {known}.")


def carry_out(verb: Verb, target: object, given: Mapping[str, Any], *, by: str, surface: Surface) -> object:
    """Carry out an order, write down who gave it, and return what its operation returns.

    What the order says is checked first; then it is written down, carried out, and what came of it is written beside
    it, also when the operation refuses. Raises ``OptionError`` for what the order cannot say, and what the operation
    raises.
    """
    check_text("by", by, LONGEST_BY)
    said = {name: _read(verb, name, value) for name, value in given.items() if value is not None and value != ""}
    if surface in {"admin", "api"} and said.get("wait", 0) > LONGEST_WAIT_OF_A_REQUEST:
        raise OptionError(
            f"wait can be at most {LONGEST_WAIT_OF_A_REQUEST} seconds here: ask again, or use the command."
        )
    entry = AuditEntry.objects.using(alias()).create(
        by=by,
        surface=surface,
        target=verb.target,
        verb=verb.name,
        name=_name_of(target),
        given={name: value.isoformat() if isinstance(value, datetime) else value for name, value in said.items()},
    )
    this = AuditEntry.objects.using(alias()).filter(id=entry.id)
    try:
        answer = verb.run(target, by, said)
    except DurableJobsError as refusal:
        this.update(outcome="refused", answer=safe_str(refusal, LONGEST_ANSWER))
        raise
    this.update(outcome="done")
    return answer


def _read(verb: Verb, name: str, value: Any) -> Any:
    if name not in verb.takes:
        raise OptionError(f"{verb.name} takes {', '.join(verb.takes)}, not {safe_repr(name, 80)}.")
    return CHECKS[name](name, value)


def _name_of(target: object) -> str:
    """Return what stands in the audit: a job's id in one spelling, another name as it is."""
    if isinstance(target, Queue | Worker):
        return target.name
    plain = getattr(target, "pk", target)
    return safe_str(parse_id(plain) or plain, LONGEST_NAME)
