"""How far a job has come, for people who look: shown in the admin and by ``JobHandle.progress``."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from ..errors import OptionError
from ..operations.connections import opened, transaction_open
from ..operations.database import alias, dialect
from ..operations.values import save_progress
from ..rendering import safe_repr, safe_str
from .beside import beside, frame_async, in_thread
from .context import ProgressWritten
from .frames import Frame

PAUSE: Final = 0.25
"""Seconds between two writes of one job's progress."""
HIGHEST: Final = 10**15
MESSAGE_LENGTH: Final = 500
"""Characters that are kept of a message."""


def progress(current: float, total: float | None = None, message: str = "") -> None:
    """Say how far this job has come; cheap enough to be called for each item.

    Written at most four times a second: the first value and one that reaches its total at once, another one with
    the first call that comes a quarter of a second after the last write. So the value that is shown may be behind
    by what was said since. It is no step: it survives a failed attempt and is overwritten by the next. An order to
    cancel the job is raised here as ``JobCancelled``.

    Inside ``atomic()`` it is written outside of that transaction, at once; on SQLite, which has one writer, not at
    all until the transaction is over. Raises ``OptionError`` for numbers that are negative, not finite, or above
    the total, ``NotInJob`` outside of a job, ``LeaseLost`` when the job is another worker's by now.
    """
    value = _checked(current, total, message)
    _report(value, beside("progress()", anywhere=True))


def aprogress(current: float, total: float | None = None, message: str = "") -> Awaitable[None]:
    """Do what ``progress`` does in an ``async def`` job, from any of its tasks."""
    value = _checked(current, total, message)
    return _areport(value, frame_async("progress()", anywhere=True))


def _checked(current: object, total: object, message: object) -> dict[str, Any]:
    done = _number(current, "current")
    whole = None if total is None else _number(total, "total")
    if whole is not None and done > whole:
        raise OptionError(f"progress cannot be beyond its total: {done} of {whole}.")
    if not isinstance(message, str):
        raise OptionError(f"progress's message must be a text, not {type(message).__name__}.")
    return {"current": done, "total": whole, "message": safe_str(message, MESSAGE_LENGTH)}


def _number(value: object, what: str) -> float:
    # NaN is in no range.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= HIGHEST:
        raise OptionError(f"progress's {what} must be a number from 0 to {HIGHEST:.0e}, not {safe_repr(value, 80)}.")
    return value


def _report(value: dict[str, Any], frame: Frame) -> None:
    if _is_due(value, frame):
        _write(value, frame)


async def _areport(value: dict[str, Any], frame: Frame) -> None:
    # Looked at here: most values are not written, and a change of thread would cost more than all the rest.
    if _is_due(value, frame):
        await in_thread(frame, partial(_write, value))


def _is_due(value: dict[str, Any], frame: Frame) -> bool:
    before = frame.job.progress_written
    if before is None:
        return True
    if value == before.value:
        return False
    return (_is_full(value) and not _is_full(before.value)) or frame.job.is_past(before.next_at)


def _is_full(value: dict[str, Any]) -> bool:
    total = value.get("total")
    return total is not None and value["current"] >= total


def _write(value: dict[str, Any], frame: Frame) -> None:
    job, before = frame.job, frame.job.progress_written
    inside = any(transaction_open(one) for one in opened() if one.alias == alias())
    if inside and not dialect().has_parallel_writers:
        return
    # The open transaction may have the job's row locked, and would wait for itself.
    written = job.recorder.transact(lambda: save_progress(job.row, value, heed=not job.deaf, wait=not inside))
    last = value if written else before.value if before is not None else {}
    job.progress_written = ProgressWritten(last, job.after(PAUSE))
