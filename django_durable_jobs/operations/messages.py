"""Messages to one job: stored under the lock of its row, read by the job in the order in which they were stored.

Sender and recipient meet at the row of the job. Whoever sends locks it first, and a job that parks holds it while it
looks for what has come: so a message finds the job waiting, or the job finds the message. What is sent to no job in
particular is in ``events.py``.
"""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from asgiref.sync import sync_to_async

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..dialects.rows import Claimed
from ..errors import JobEnded, JobNotFound, OptionError
from ..ids import Identified, id_of
from ..models import Message
from ..rendering import safe_repr
from ..serialization import encode
from ..states import FINAL, Status
from .database import alias, dialect, jobs
from .wake import MESSAGE, SEVERAL, _wake

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,149}")


def send_message(job: Identified | UUID | str, name: str, payload: Any = None) -> None:
    """Send a message to a job, which gets it from ``wait_for_message(name)``, now or whenever it asks.

    Messages of one name are given out in the order in which they were stored, each once. In an open transaction on
    the jobs' database the message is part of it, and the job's row is locked until it ends. Raises ``JobNotFound``,
    ``JobEnded``, ``OptionError`` for a name that is none and ``SerializationError`` for a payload that cannot be
    stored; then nothing is. Repeated after an error, it sends a second message.
    """
    job_id = id_of(job)
    check_name(name, "message")
    text = encode(payload, limit=get_settings().result_limit, what=f"payload of message {name!r}")
    dialect().in_own_transaction(lambda: _send(job_id, name, text))


async def asend_message(job: Identified | UUID | str, name: str, payload: Any = None) -> None:
    """Do what ``send_message`` does without blocking the event loop."""
    await sync_to_async(send_message)(job, name, payload)


def check_name(name: object, what: str) -> str:
    """Return the name of a message or an event, or raise ``OptionError``."""
    if isinstance(name, str) and NAME_PATTERN.fullmatch(name):
        return str(name)
    raise OptionError(
        f"{safe_repr(name, 80)} is not a usable name of a{'n' if what[0] in 'aeiou' else ''} {what}: letters, digits "
        f"and _ . : - only, at most 150 characters (pattern {NAME_PATTERN.pattern})."
    )


def _send(job_id: UUID, name: str, text: str) -> None:
    this = jobs().filter(id=job_id)
    # First of all: a job that is parking has its row locked until it has looked for messages.
    row = this.select_for_update().values_list("status", "waiting_for").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, waiting_for = row
    if Status(status) in FINAL:
        raise JobEnded(f"Job {job_id} is {status}: only a job that has not ended can be sent a message.")
    Message.objects.using(alias()).create(job_id=job_id, name=name, payload=text, created_at=DatabaseNow())
    if waiting_for in {MESSAGE + name, SEVERAL}:
        _wake(this)


def take_message(job: Claimed, name: str, key: str) -> str | None:
    """Mark the oldest message that call ``key`` may have as consumed and return its payload as stored.

    To be called in the transaction that stores the call's checkpoint, under the lock of the job's row.
    """
    inbox = Message.objects.using(alias()).filter(job_id=job.id, name=name, consumed_at=None)
    first = inbox.order_by("id").values_list("id", "payload").first()
    if first is None:
        return None
    inbox.filter(id=first[0]).update(consumed_at=DatabaseNow(), consumed_key=key)
    return first[1]
