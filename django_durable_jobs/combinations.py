"""Which options of a job go together. What each may be alone stands in ``definitions``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from .errors import OptionError

_NEEDS: Final = {
    "chunk_timeout": "chunk",
    "debounce_key": "debounce",
    "debounce_max": "debounce",
    "throttle_key": "throttle",
    "unique_for": "unique_key",
    "unique_until": "unique_key",
    "on_conflict": "unique_key",
    "concurrency_key": "concurrency",
}
_EXCLUDE: Final = (
    ("debounce", "throttle", "the one takes the last call of a series, the other the first."),
    ("debounce", "expire_after", "it is put off instead."),
    ("debounce", "expires_at", "it is put off instead."),
    ("debounce", "delay", "debounce says when the job is due."),
    ("debounce", "run_at", "debounce says when the job is due."),
    ("debounce", "sequence_key", "a job that is put off again and again would hold up its sequence."),
    ("debounce", "concurrency", "a job that waits for its turn cannot be put off."),
    ("concurrency", "sequence_key", "a job waits in one line; a sequence is one with a single place."),
    ("debounce", "id", "the enqueue may be answered with a job that is there already."),
    ("debounce", "unique_key", "each says which job an enqueue is answered with."),
    ("throttle", "unique_key", "each says which job an enqueue is answered with."),
    ("throttle", "id", "the enqueue may be answered with a job that is there already."),
)
_CONCERNED: Final = frozenset(
    {"hard_timeout", "expire_after", "expires_at", *_NEEDS, *(name for name, _other, _why in _EXCLUDE)}
)
"""Each rule names one of these."""


def refuse_combinations(options: Any) -> None:
    """Raise ``OptionError`` for options that contradict each other, or mean nothing alone."""
    # Most jobs have none of these, and `.using` may come before every enqueue.
    if all(getattr(options, name) is None for name in _CONCERNED):
        return
    values = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    given = {name for name, value in values.items() if value is not None and value is not False}
    for name, needed in _NEEDS.items():
        if name in given and needed not in given:
            raise OptionError(f"{name} means something together with {needed} only: give both.")
    for name, other, why in _EXCLUDE:
        if name in given and other in given:
            raise OptionError(f"{name} and {other} exclude each other: {why}")
    if {"timeout", "hard_timeout"} <= given and options.hard_timeout < options.timeout:
        raise OptionError(
            f"hard_timeout ({options.hard_timeout}) must not be shorter than timeout ({options.timeout})."
        )
    for begins, ends in (("delay", "expire_after"), ("run_at", "expires_at")):
        if begins in given and ends in given and getattr(options, ends) <= getattr(options, begins):
            raise OptionError(f"{ends} ({getattr(options, ends)}) must be later than {begins}: it could never begin.")
    if "debounce_max" in given and options.debounce_max < options.debounce:
        raise OptionError(f"debounce_max ({options.debounce_max}) must not be shorter than debounce.")
