"""Rates of concurrency keys: how many jobs of a line may be let go on now, so that no window sees too many begin.

Begun is what a worker has claimed: of each job that was let go on the row of the job says when that was. One that has
not begun yet may begin at any moment, so it counts until it has. To be called under the lock of the line's row.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from ..models import Sequence
from ..states import FINAL
from .database import jobs

SOON: Final = timedelta(seconds=1)
"""At least so long until a line is looked at again of which no job has begun yet."""

LetGo = list[tuple[str, int]]
"""Jobs that were let go on, with the token that each had then: a claim raises it."""


class Window(NamedTuple):
    """How many may be let go on now, what counts, and when to look for the next."""

    free: int
    counted: LetGo
    now: datetime
    look_at: datetime


def window(line: Sequence, now: datetime) -> Window | None:
    """Look at a line with a rate; ``None`` for one without."""
    if line.rate is None:
        return None
    let_go: LetGo = [(job_id, token) for job_id, token in line.let_go or []]
    found = jobs().filter(id__in=[UUID(job_id) for job_id, _token in let_go])
    rows = {str(row[0]): row[1:] for row in found.values_list("id", "token", "status", "started_at")}
    length = timedelta(seconds=line.per)
    counted: LetGo = []
    opens = []
    for job_id, token in let_go:
        present, status, started_at = rows.get(job_id, (token, min(FINAL), None))
        if present == token and status not in FINAL:
            counted.append((job_id, token))
        # One that was claimed again counts from the last time: longer than it must.
        elif present != token and started_at is not None and started_at > now - length:
            counted.append((job_id, token))
            opens.append(started_at + length)
    # While none of them has begun, nobody knows when the first will have left the window.
    soon = now + max(length / 4, SOON)
    return Window(max(0, line.rate - len(counted)), counted, now, min(opens, default=soon))
