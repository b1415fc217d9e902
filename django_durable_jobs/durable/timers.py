"""Waiting for a time without holding a slot: the job parks, and goes on here when the time has come.

The moment is fixed when the code comes here first, by the database's clock; later attempts find it recorded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import cast

from ..errors import OptionError, _as_delay
from ..operations.wake import TIME
from ..options import check_run_at
from .context import JobContext
from .points import Point, elsewhere, here, stored_form

Moment = Callable[[JobContext], datetime]


def sleep(delay: timedelta | float) -> None:
    """Let the job wait for ``delay`` (a timedelta or seconds), across restarts, without a slot.

    It goes on a few hundredths of a second after the time where the database notifies, else within one poll. Raises
    ``OptionError`` for a delay that is negative, no number or longer than ten years.
    """
    length = _as_delay(delay, "sleep's delay")
    rest(here("sleep()", "sleep", "sleep"), partial(_after, length))


def asleep(delay: timedelta | float) -> Awaitable[None]:
    """Do what ``sleep`` does in an ``async def`` job."""
    length = _as_delay(delay, "asleep's delay")
    return elsewhere("sleep()", "sleep", "sleep", partial(rest, moment=partial(_after, length)))


def sleep_until(moment: datetime) -> None:
    """Let the job wait until an instant (a datetime with a time zone); one that is past does not wait."""
    instant = _instant(moment, "sleep_until")
    rest(here("sleep_until()", "sleep_until", "sleep"), lambda _job: instant)


def asleep_until(moment: datetime) -> Awaitable[None]:
    """Do what ``sleep_until`` does in an ``async def`` job."""
    instant = _instant(moment, "asleep_until")
    return elsewhere("sleep_until()", "sleep_until", "sleep", partial(rest, moment=lambda _job: instant))


def _after(length: timedelta, job: JobContext) -> datetime:
    return job.now() + length


def _instant(moment: object, what: str) -> datetime:
    if not isinstance(moment, datetime):
        raise OptionError(f"{what}() needs a datetime, not {type(moment).__name__}.")
    return cast("datetime", check_run_at(moment, what))


def rest(point: Point, moment: Moment) -> None:
    """Wait at this point until a moment, which is fixed when the code comes here first."""
    stored = point.recorded() or point.record(stored_form(moment(point.job)))
    deadline = cast("datetime", point.replayed(stored))
    # What comes after it is recorded already in most replays: then nobody need be asked what time it is. Async code
    # may make the next call beside this wait, which proves nothing.
    passed = point.frame.task is None and point.job.history.goes_on_after(point.key)
    if not passed and deadline > point.job.now():
        raise point.park(TIME, deadline)
