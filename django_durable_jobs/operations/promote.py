"""Making jobs pending whose time has come."""

from __future__ import annotations

from typing import Final

from ..conf import get_settings
from ..dialects.rows import Promoted
from .database import dialect
from .sequences import advance

BATCH: Final = 500


def promote() -> Promoted:
    """Move up to 500 due jobs to their queues, earliest first, and say when the next one is due.

    Listening workers are told at the same commit. Those that gave their place in a line away until then line up.
    """
    promoted = dialect().promote(BATCH, notify=get_settings().notify)
    advance(promoted.lines)
    return promoted
