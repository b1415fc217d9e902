"""Values that a job keeps under names of its own, and may overwrite: how far it has come, what to go on with.

They belong to the job, not to a call: they survive its attempts and generations and are deleted with it. Unlike the
result of a call they are not fixed, so they must not decide which durable calls the code makes.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from ..operations.facts import tell_saved
from ..operations.values import load_value, save_value
from ..options import check_label
from ..serialization import decode
from ..signals import checkpoint_saved
from .beside import beside, beside_async
from .frames import Frame
from .points import stored_form


def save_checkpoint(name: str, value: Any) -> None:
    """Keep ``value`` under ``name`` for later attempts of this job, in place of the value that is there.

    It is stored when this returns, and only while the job is this worker's (else ``LeaseLost``). Raises
    ``OptionError`` for a name that cannot be stored, ``SerializationError`` for such a value, ``NotInJob`` outside
    of a job, ``OpenTransaction`` inside ``atomic()``.
    """
    _save(name, stored_form(value, f"value of {_name(name)!r}"), beside("save_checkpoint()"))


def asave_checkpoint(name: str, value: Any) -> Awaitable[None]:
    """Do what ``save_checkpoint`` does in an ``async def`` job."""
    text = stored_form(value, f"value of {_name(name)!r}")
    return beside_async("save_checkpoint()", partial(_save, name, text))


def load_checkpoint(name: str, default: Any = None) -> Any:
    """Return the value that this job has saved last under ``name``, in this attempt or an earlier one.

    ``default`` where there is none. The value has the type it was saved with. Raises what ``save_checkpoint`` does.
    """
    return _load(_name(name), default, beside("load_checkpoint()"))


def aload_checkpoint(name: str, default: Any = None) -> Awaitable[Any]:
    """Do what ``load_checkpoint`` does in an ``async def`` job."""
    return beside_async("load_checkpoint()", partial(_load, _name(name), default))


def _name(name: str) -> str:
    return check_label(name, "The name of a value")


def _save(name: str, text: str, frame: Frame) -> None:
    job = frame.job
    if job.rehearses:
        return
    job.recorder.transact(lambda: save_value(job.row, name, text, heed=not job.deaf))
    if checkpoint_saved.receivers:
        tell_saved(job.row, [job.history.checkpoint("", name, "value")])


def _load(name: str, default: Any, frame: Frame) -> Any:
    job = frame.job
    if job.rehearses:
        return default
    text = job.recorder.transact(lambda: load_value(job.id, name))
    return default if text is None else decode(text)
