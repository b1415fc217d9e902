"""Waiting for what others send: messages to this job, and events for all. Sending is ``operations``' to do."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from ..operations.database import dialect
from ..operations.events import Channel, channel_of, end_wait, expect, take_event
from ..operations.messages import check_name, take_message
from ..operations.wake import EVENT, MESSAGE, wait_at
from ..options import check_timeout
from .points import Point, elsewhere, here
from .waits import Timeout, wait


def wait_for_message(name: str, timeout: Timeout = None) -> Any:
    """Return the payload of the next message of this name to this job, waiting for it without a slot.

    Messages are given out in the order in which they were stored, each once, also those that came before. Raises
    ``TimedOut`` when none came within ``timeout`` (a timedelta or seconds, counted from the first attempt that came
    here; anew when this error has ended an attempt), and ``OptionError`` for a name or a timeout that is none.
    """
    check_name(name, "message")
    length = check_timeout(timeout, "wait_for_message's timeout")
    return _wait_for_message(here("wait_for_message()", name, "message"), length=length)


def await_for_message(name: str, timeout: Timeout = None) -> Awaitable[Any]:
    """Do what ``wait_for_message`` does in an ``async def`` job."""
    check_name(name, "message")
    length = check_timeout(timeout, "await_for_message's timeout")
    return elsewhere("wait_for_message()", name, "message", partial(_wait_for_message, length=length))


def wait_for_event(name: str, key: str | None = None, timeout: Timeout = None) -> Any:
    """Return the payload of the next event of this name and key (see ``emit``), waiting for it without a slot.

    It is the first one that was emitted since the job was created and that this job has not had yet; other jobs get
    it as well. Raises as ``wait_for_message`` does.
    """
    channel = channel_of(name, key)
    length = check_timeout(timeout, "wait_for_event's timeout")
    return _wait_for_event(here("wait_for_event()", channel.label, "event"), channel=channel, length=length)


def await_for_event(name: str, key: str | None = None, timeout: Timeout = None) -> Awaitable[Any]:
    """Do what ``wait_for_event`` does in an ``async def`` job."""
    channel = channel_of(name, key)
    length = check_timeout(timeout, "await_for_event's timeout")
    work = partial(_wait_for_event, channel=channel, length=length)
    return elsewhere("wait_for_event()", channel.label, "event", work)


def _wait_for_message(point: Point, length: timedelta | None) -> Any:
    return wait(
        point,
        begin=lambda part: point.deadline(length, "timeout", part),
        look=lambda: take_message(point.job.row, point.name, point.key),
        waiting_for=MESSAGE + point.name,
        what=f"message {point.name!r}",
    )


def _wait_for_event(point: Point, channel: Channel, length: timedelta | None) -> Any:
    job = point.job.row

    def begin() -> datetime | None:
        expect(job, channel, point.key)
        return None if length is None else dialect().now() + length

    _number, payload = wait(
        point,
        begin=lambda part: cast("datetime | None", point.begun(begin, part)),
        look=lambda: take_event(job, channel, point.key),
        give_up=lambda: end_wait(job, point.key),
        waiting_for=wait_at(EVENT, point.key, channel.label),
        what=f"event {channel.label!r}",
    )
    return payload
