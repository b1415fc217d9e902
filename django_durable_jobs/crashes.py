"""What becomes of a job whose worker died with it."""

from __future__ import annotations

from typing import Literal, get_args

from .errors import OptionError
from .rendering import safe_repr

OnCrash = Literal["retry", "fail"]
"""It runs again (at least once), or it has failed (at most once)."""


def check_on_crash(value: object) -> OnCrash | None:
    """Return one of the two, or raise ``OptionError``; ``None`` is "retry"."""
    for known in get_args(OnCrash):
        if value == known:
            return known  # type: ignore[no-any-return]  # a literal of OnCrash
    if value is None:
        return None
    raise OptionError(f"on_crash must be {' or '.join(map(repr, get_args(OnCrash)))}, not {safe_repr(value, 80)}.")
