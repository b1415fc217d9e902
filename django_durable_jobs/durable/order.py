"""Questions about the order of recorded calls, answered from their keys alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ..operations.checkpoints import Stored
from ..operations.generations import Keep, Place, before, place_of

SHOWN: Final = 5
"""Calls that an error names at most."""


def parent_of(key: str) -> str:
    """Return the key of the call that made this one; empty for the job's function itself."""
    return key.rpartition(".")[0]


def is_in(key: str, call: str) -> bool:
    """Answer whether a key is the call's own, or below it."""
    return f"{key}.".startswith(f"{call}.")


def what_stays(call: str, used: Iterable[str]) -> Keep:
    """Say which checkpoints stay when the code leaves the recorded way at ``call``.

    Those before it, what is no call, and later calls whose values the code has (``used``): async code may wait for
    its calls in another order than it made them in.
    """
    is_before = before(place_of(call) or ())
    later = tuple(f"{key}." for key in used if not (is_before(key) or is_in(key, call)))

    def stays(key: str) -> bool:
        return is_before(key) or place_of(key) is None or f"{key}.".startswith(later)

    return stays


def left_out(recorded: Mapping[str, Stored], path: str, calls: int) -> str:
    """Name the recorded calls that come after the first ``calls`` ones made at ``path``; empty if there is none."""
    here = place_of(path) if path else ()
    found = {place: key for key in recorded if (place := place_of(key)) is not None and _is_beyond(place, here, calls)}
    outer = [key for _place, key in sorted(found.items()) if parent_of(key) not in recorded]
    names = [f"{key} {recorded[key].name!r}" for key in outer[:SHOWN]]
    return ", ".join(names) + (f" and {len(outer) - SHOWN} more" if len(outer) > SHOWN else "")


def _is_beyond(place: Place, path: Place | None, calls: int) -> bool:
    # What only the beginning of a wait left behind is no call that was made.
    if path is None or 0 in place or place[: len(path)] != path:
        return False
    return place[len(path) :] >= (calls + 1,)


def unknown_to(kept: Collection[str], used: Iterable[str], call: str) -> str | None:
    """Return a call whose value the code has, but which is not kept; not one at or below ``call``, which runs again."""
    return min((key for key in used if key not in kept and not is_in(key, call)), default=None)
