"""Waiting for the decision of a person. Deciding is ``operations.approvals``' to do."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, cast

from ..conf import get_settings
from ..errors import OptionError
from ..operations.approvals import decision_at, expire, request
from ..operations.wake import APPROVAL, wait_at
from ..options import check_timeout
from ..rendering import safe_repr
from ..serialization import encode
from .points import Point, elsewhere, here
from .waits import Timeout, wait

LONGEST_TITLE: Final = 200


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided; true when it was approved."""

    approved: bool
    by: str
    comment: str
    at: datetime

    def __bool__(self) -> bool:
        """Whether it was approved."""
        return self.approved


def wait_for_approval(title: str, details: Any = None, timeout: Timeout = None) -> Decision:
    """Ask people for a decision and wait for it without a slot; ``approve`` and ``reject`` give it.

    ``title`` and ``details`` are for whoever decides; by the title the wait is recognised in a replay. Raises
    ``TimedOut`` when nobody decided within ``timeout`` (a timedelta or seconds, counted from the first attempt that
    came here): then nobody can any more. When this error has ended an attempt, the next one asks anew. Raises
    ``OptionError`` for a title or a timeout that is none and ``SerializationError`` for details that cannot be stored.
    """
    work = _work(title, details, timeout, "wait_for_approval")
    return work(here("wait_for_approval()", title, "approval"))


def await_for_approval(title: str, details: Any = None, timeout: Timeout = None) -> Awaitable[Decision]:
    """Do what ``wait_for_approval`` does in an ``async def`` job."""
    work = _work(title, details, timeout, "await_for_approval")
    return elsewhere("wait_for_approval()", title, "approval", work)


def _work(title: object, details: Any, timeout: Timeout, what: str) -> partial[Decision]:
    """Check what a user gave; return what asks and waits."""
    if not isinstance(title, str) or not 0 < len(title) <= LONGEST_TITLE or not title.isprintable():
        raise OptionError(
            f"{what}() needs a title of 1 to {LONGEST_TITLE} printable characters, not {safe_repr(title, 80)}."
        )
    length = check_timeout(timeout, f"{what}'s timeout")
    limit = get_settings().argument_limit
    text = "" if details is None else encode(details, limit=limit, what=f"details of approval {title!r}")
    return partial(_wait_for_approval, details=text, length=length)


def _wait_for_approval(point: Point, details: str, length: timedelta | None) -> Decision:
    job = point.job.row

    def begin(part: str) -> datetime | None:
        ask = partial(request, job, point.key, point.name, details, length, part=part)
        return cast("datetime | None", point.begun(ask, part))

    decided = wait(
        point,
        begin=begin,
        look=lambda: decision_at(job, point.key),
        give_up=lambda: expire(job, point.key),
        waiting_for=wait_at(APPROVAL, point.key, point.name),
        what=f"decision about {point.name!r}",
    )
    return Decision(*decided)
