"""Decisions of people that jobs wait for: asked for once, decided once, by whoever is first.

Deciding locks the job's row, as sending a message does; see ``messages.py``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NoReturn
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import F, Q, QuerySet

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..dialects.rows import Claimed
from ..errors import ApprovalDecided, ApprovalExpired, ApprovalNotFound, JobEnded
from ..ids import Identified, id_of
from ..models import Approval
from ..rendering import safe_repr
from ..serialization import encode
from ..states import FINAL, OPEN, Status
from .checkpoints import BEGINNING
from .database import alias, dialect, jobs
from .orders import LONGEST_BY, check_text
from .wake import APPROVAL, SEVERAL, _wake

APPROVED: Final = "approved"
REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
LONGEST_COMMENT: Final = 10_000
HIGHEST: Final = 2**63
LONGEST_NUMBER: Final = 20


def approve(approval: Approval | int | str, *, by: str = "", comment: str = "") -> None:
    """Say yes to what a job asks with ``wait_for_approval``, and let it go on.

    Of decisions at the same time exactly one counts; it is part of an open transaction. Raises ``ApprovalNotFound``,
    ``ApprovalDecided``, ``ApprovalExpired`` when the job does not wait for it any more, ``JobEnded``, and
    ``OptionError`` for texts that are too long; then nothing is changed.
    """
    _decide(approval, APPROVED, by, comment)


def reject(approval: Approval | int | str, *, by: str = "", comment: str = "") -> None:
    """Say no; otherwise as ``approve``."""
    _decide(approval, REJECTED, by, comment)


async def aapprove(approval: Approval | int | str, *, by: str = "", comment: str = "") -> None:
    """Do what ``approve`` does without blocking the event loop."""
    await sync_to_async(approve)(approval, by=by, comment=comment)


async def areject(approval: Approval | int | str, *, by: str = "", comment: str = "") -> None:
    """Do what ``reject`` does without blocking the event loop."""
    await sync_to_async(reject)(approval, by=by, comment=comment)


def pending_approvals(job: Identified | UUID | str | None = None) -> QuerySet[Approval]:
    """Return the approvals that can be decided now, oldest first; of one job or of all."""
    return (
        _approvals()
        .filter(_open(), job__status__in=[status.value for status in OPEN], generation=F("job__generation"))
        .filter(**({} if job is None else {"job_id": id_of(job)}))
        .order_by("requested_at", "id")
    )


def _approvals() -> QuerySet[Approval]:
    return Approval.objects.using(alias())


def _open() -> Q:
    return Q(decision=None) & (Q(expires_at=None) | Q(expires_at__gt=DatabaseNow()))


def _decide(approval: Approval | int | str, decision: str, by: str, comment: str) -> None:
    number = _number_of(approval)
    check_text("by", by, LONGEST_BY)
    check_text("comment", comment, LONGEST_COMMENT)
    dialect().in_own_transaction(lambda: _store_decision(number, decision, by, comment))


def _number_of(approval: object) -> int:
    number = approval.pk if isinstance(approval, Approval) else approval
    if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < LONGEST_NUMBER:
        number = int(number)
    if isinstance(number, int) and not isinstance(number, bool) and 0 < number < HIGHEST:
        return number
    raise ApprovalNotFound(f"There is no approval {safe_repr(number, 80)}.")


def _store_decision(number: int, decision: str, by: str, comment: str) -> None:
    this = _approvals().filter(id=number)
    asked = this.values_list("job_id", "generation", "key").first()
    job = None if asked is None else jobs().filter(id=asked[0])
    row = None if job is None else job.select_for_update().values_list("status", "waiting_for", "generation").first()
    if asked is None or job is None or row is None:
        raise ApprovalNotFound(f"There is no approval {number}.")
    status, waiting_for, generation = row
    job_id, asked_in, key = asked
    if Status(status) in FINAL:
        raise JobEnded(f"Job {job_id} is {status}: its approval {number} cannot be decided any more.")
    if generation != asked_in:
        raise ApprovalExpired(f"Job {job_id} was started anew since it asked for approval {number}.")
    if not this.filter(_open()).update(decision=decision, decided_by=by, comment=comment, decided_at=DatabaseNow()):
        _refuse(number)
    if waiting_for == SEVERAL or (waiting_for or "").startswith(f"{APPROVAL}{key} "):
        _wake(job)


def _refuse(number: int) -> NoReturn:
    decision, by, at, until = (
        _approvals().values_list("decision", "decided_by", "decided_at", "expires_at").get(id=number)
    )
    if decision in {None, EXPIRED}:
        raise ApprovalExpired(f"Approval {number} could be decided until {until:%Y-%m-%d %H:%M:%S} UTC.")
    whom = f" by {by}" if by else ""
    raise ApprovalDecided(f"Approval {number} was {decision}{whom} at {at:%Y-%m-%d %H:%M:%S} UTC.")


# The job's side ---------------------------------------------------------------------------------------------


def request(  # noqa: PLR0913 -- what a question is made of
    job: Claimed, key: str, title: str, details: str, timeout: timedelta | None, *, part: str
) -> datetime | None:
    """Store the question of the call at ``key``, and return until when it may be answered.

    ``part`` is given when the call asks anew: the question whose time is over makes room.
    """
    if part:
        _approvals().filter(job_id=job.id, generation=job.generation, key=key).update(key=f"{key}{BEGINNING}.{part}")
    until = None if timeout is None else dialect().now() + timeout
    _approvals().create(
        job_id=job.id,
        generation=job.generation,
        key=key,
        title=title,
        details=details,
        requested_at=DatabaseNow(),
        expires_at=until,
    )
    return until


def decision_at(job: Claimed, key: str) -> str | None:
    """Return what was decided as a stored list: yes or no, by whom, the comment, when; ``None`` if nothing was."""
    mine = _approvals().filter(job_id=job.id, generation=job.generation, key=key, decision__in=[APPROVED, REJECTED])
    row = mine.values_list("decision", "decided_by", "comment", "decided_at").first()
    if row is None:
        return None
    decision, by, comment, at = row
    return encode([decision == APPROVED, by, comment, at], limit=get_settings().result_limit, what="decision")


def expire(job: Claimed, key: str) -> None:
    """Take the question back: its time is over. Under the lock of the job's row, so that nobody decides meanwhile."""
    mine = _approvals().filter(job_id=job.id, generation=job.generation, key=key, decision=None)
    mine.update(decision=EXPIRED, decided_at=DatabaseNow())
