"""Events: facts that any number of jobs may wait for. Each is stored once, and no job's row is locked for it.

A job that is about to wait first stores that it will (``EventWait``), then looks for events, then parks. Whoever
emits stores the event, and calls the jobs that wait once that is committed. So either the job's look finds the event,
or the call finds the wait. A call locks the job's row as a message does: it finds the job parked and wakes it, or
leaves a mark that the job finds while it parks. ``announce_forgotten`` calls for those who died before they could.

A job gets each event once: the checkpoints of its waits hold the numbers of those that it had. That is no high-water
mark, since a transaction that began earlier may commit its event later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import BigIntegerField, Q, QuerySet, Value
from django.db.models.functions import Cast, StrIndex, Substr

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..dialects.rows import Claimed
from ..errors import OptionError
from ..faults import fault
from ..models import Checkpoint, EventWait, Message
from ..rendering import safe_repr
from ..serialization import encode
from .checkpoints import LONGEST_NAME
from .database import alias, dialect, jobs
from .messages import check_name
from .wake import EVENT, SEVERAL, _wake

BATCH: Final = 500
LONGEST_KEY: Final = 200
FORGOTTEN: Final = timedelta(seconds=5)
"""After this time nobody calls any more for an event that he has emitted."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Events of one name and key."""

    name: str
    key: str | None

    @property
    def columns(self) -> dict[str, Any]:
        """What rows of this channel have in common."""
        return {"name": self.name, "event_key": self.key}

    @property
    def label(self) -> str:
        """A text that no other channel has, for checkpoints."""
        text = self.name if self.key is None else f"{self.name} {self.key}"
        if len(text) <= LONGEST_NAME:
            return text
        # A name has no blank in it, and a key that is hashed is longer than what stands here.
        return f"{self.name} #{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def channel_of(name: object, key: object) -> Channel:
    """Return the channel, or raise ``OptionError``."""
    checked = check_name(name, "event")
    if key is None:
        return Channel(checked, None)
    # Printable: neither NUL nor a lone surrogate, which some databases refuse.
    if isinstance(key, str) and 0 < len(key) <= LONGEST_KEY and key.isprintable():
        return Channel(checked, str(key))
    raise OptionError(
        f"key of event {checked!r} must be a text of 1 to {LONGEST_KEY} printable characters, e.g. str(order.id), "
        f"not {safe_repr(key, 80)}."
    )


def emit(name: str, payload: Any = None, *, key: str | None = None) -> None:
    """Store an event for every job that waits for it: ``wait_for_event(name, key)``, now or later in its life.

    In an open transaction on the jobs' database the event is part of it; jobs are woken after the commit. Raises
    ``OptionError`` for a name or key that is none and ``SerializationError`` for a payload that cannot be stored.
    """
    channel = channel_of(name, key)
    text = encode(payload, limit=get_settings().result_limit, what=f"payload of event {name!r}")
    dialect().in_own_transaction(lambda: _emit(channel, text))


async def aemit(name: str, payload: Any = None, *, key: str | None = None) -> None:
    """Do what ``emit`` does without blocking the event loop."""
    await sync_to_async(emit)(name, payload, key=key)


def _emit(channel: Channel, text: str) -> None:
    event = _events(channel).create(**channel.columns, payload=text, created_at=DatabaseNow())
    # Robust: the event is stored; an error while others are told must not look as if it were not.
    # (No partial(): Django would stumble over its missing name while it logs that error.)
    transaction.on_commit(lambda: announce(channel, [event.pk]), using=alias(), robust=True)


def _events(channel: Channel) -> QuerySet[Message]:
    return Message.objects.using(alias()).filter(job=None, **channel.columns)


def _waits() -> QuerySet[EventWait]:
    return EventWait.objects.using(alias())


# Calling the jobs -------------------------------------------------------------------------------------------


def announce(channel: Channel, told: Sequence[int] = ()) -> int:
    """Call every job that waits for events of this channel, and note that of these all were told.

    Returns how many jobs were woken.
    """
    fault("before-announce")
    waiting = sorted(set(_waits().filter(**channel.columns).values_list("job_id", flat=True)))
    woken = 0
    for start in range(0, len(waiting), BATCH):
        woken += dialect().in_own_transaction(partial(_call, waiting[start : start + BATCH], channel))
    if told:
        Message.objects.using(alias()).filter(id__in=told).update(consumed_at=DatabaseNow())
    return woken


def _call(ids: Iterable[Any], channel: Channel) -> int:
    these = jobs().filter(id__in=ids)
    # First of all, as with messages: a job that is parking has its row locked until it has looked for calls.
    list(these.order_by("id").select_for_update().values_list("id", flat=True))
    _waits().filter(job_id__in=ids, **channel.columns).update(called=True)
    return _wake(these.filter(Q(waiting_for__startswith=EVENT) | Q(waiting_for=SEVERAL)))


def announce_forgotten() -> int:
    """Call for events whose emitter died between its commit and its calls; return how many jobs were woken."""
    forgotten = Message.objects.using(alias()).filter(
        job=None, consumed_at=None, created_at__lt=DatabaseNow() - FORGOTTEN
    )
    channels: dict[Channel, list[int]] = {}
    for number, name, key in forgotten.order_by("id").values_list("id", "name", "event_key")[:BATCH]:
        channels.setdefault(Channel(name, key), []).append(number)
    return sum(announce(channel, numbers) for channel, numbers in channels.items())


# Waiting ----------------------------------------------------------------------------------------------------


def expect(job: Claimed, channel: Channel, key: str) -> None:
    """Store that the call at ``key`` waits; the look that follows is in a later transaction."""
    end_wait(job, key)
    _waits().create(job_id=job.id, key=key, **channel.columns)


def take_event(job: Claimed, channel: Channel, key: str) -> str | None:
    """Return number and payload, as a stored list, of the first event of the channel that the job has not had.

    Only those count that were emitted since the job was created. To be called under the lock of the job's row.
    """
    had = Checkpoint.objects.using(alias()).filter(
        job_id=job.id, generation=job.generation, kind="event", name=channel.label, result__isnull=False
    )
    digits = Substr("result", 2, StrIndex("result", Value(",")) - 2)
    numbers = set(had.values_list(Cast(digits, BigIntegerField()), flat=True))
    created = jobs().filter(id=job.id).values_list("created_at", flat=True).get()
    since = _events(channel).filter(created_at__gte=created).order_by("created_at", "id")
    # Compared here: one reading of either list. A database may compare each event with each that the job has had.
    number = next((one for one in since.values_list("id", flat=True) if one not in numbers), None)
    first = since.filter(id=number).values_list("id", "payload").first() if number is not None else None
    if first is None:
        # Calls up to now have been heeded; without this the job would be woken by them for ever.
        _waits().filter(job_id=job.id, key=key).update(called=False)
        return None
    end_wait(job, key)
    return f"[{first[0]},{first[1]}]"


def end_wait(job: Claimed, key: str) -> None:
    """Forget that the call at ``key`` waits."""
    _waits().filter(job_id=job.id, key=key)._raw_delete(alias())
