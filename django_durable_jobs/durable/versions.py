"""Changing the code of jobs that have begun: they go on as the old code did, new ones take the new way.

Which way a job takes is decided at the first look and recorded, once per job and generation, under ``v:`` and the
name of the change. It takes no place in the order of calls, so a look may be added to code that jobs are running.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Final, cast

from ..errors import NonDeterminism, OptionError
from ..operations.checkpoints import Stored
from ..operations.facts import tell_saved
from ..operations.generations import VERSION
from ..operations.steps import once
from ..options import check_label
from ..serialization import decode
from .beside import beside, beside_async
from .frames import Frame
from .lines import code_line
from .points import stored_form

LONGEST_ID: Final = 190
HIGHEST: Final = 1_000_000


def get_version(change_id: str, min: int, max: int) -> int:  # noqa: A002 -- what they are
    """Return which version of a change this job follows: ``max`` if it is new here, ``min`` if it was past this place.

    The answer is recorded and stays the same for the rest of the job, at every place that asks for this change.
    Raises ``NonDeterminism`` when the recorded version is not supported any more (below ``min``, above ``max``),
    ``OptionError`` for a name or numbers that cannot be, ``NotInJob`` outside of a job, ``OpenTransaction`` inside
    ``atomic()``.
    """
    _check(change_id, min, max)
    return _version(change_id, min, max, beside("get_version()"))


def aget_version(change_id: str, min: int, max: int) -> Awaitable[int]:  # noqa: A002 -- as above
    """Do what ``get_version`` does in an ``async def`` job."""
    _check(change_id, min, max)
    return beside_async("get_version()", partial(_version, change_id, min, max))


def patched(change_id: str) -> bool:
    """Answer whether this job follows the changed code: ``True`` if new here, ``False`` if it was past this place.

    The same as ``get_version(change_id, 0, 1) == 1``, with its guarantees and errors.
    """
    _check(change_id, 0, 1)
    return _version(change_id, 0, 1, beside("patched()")) == 1


def apatched(change_id: str) -> Awaitable[bool]:
    """Do what ``patched`` does in an ``async def`` job."""
    _check(change_id, 0, 1)
    return beside_async("patched()", lambda frame: _version(change_id, 0, 1, frame) == 1)


def _check(change_id: str, low: int, high: int) -> None:
    check_label(change_id, "The name of a change", LONGEST_ID)
    for number in (low, high):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= HIGHEST:
            raise OptionError(f"Versions are whole numbers from 0 to {HIGHEST}, not {number!r:.80}.")
    if low > high:
        raise OptionError(f"The lowest version of {change_id!r} ({low}) is above the highest ({high}).")


def _version(change_id: str, low: int, high: int, frame: Frame) -> int:
    job, history, key = frame.job, frame.job.history, f"{VERSION}{change_id}"
    stored = history.find(key, change_id, "version")
    if stored is None:
        stored = _decided(key, change_id, low if frame.passed_before() else high, frame)
    version = cast("int", decode(str(stored.result)))
    if not low <= version <= high:
        history.broken = NonDeterminism(
            f"Job {job.id} ({job.definition}) follows version {version} of the change {change_id!r}, and this code "
            f"supports {low if low == high else f'{low} to {high}'} only{code_line(frame.task)}: let jobs "
            "that have begun end with code that supports their version."
        )
        raise history.broken
    return version


def _decided(key: str, change_id: str, version: int, frame: Frame) -> Stored:
    job = frame.job
    row = job.history.checkpoint(key, change_id, "version")
    stored: Stored | None = Stored(change_id, "version", stored_form(version), None)
    if not job.rehearses:
        stored = job.recorder.transact(lambda: once(job.row, row, lambda: stored_form(version), heed=not job.deaf))
        tell_saved(job.row, [row])
    assert stored is not None  # noqa: S101 -- a version is always decided
    job.history.remember(key, stored)
    return stored
