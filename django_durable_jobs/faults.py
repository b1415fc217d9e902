"""Named points in the code where a test may stop, fail or kill the process.

In production ``fault`` calls a function that does nothing. A test installs its own with ``install``; the
points that exist are listed in ``POINTS`` so that a misspelt name in a test cannot pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

POINTS: Final = frozenset(
    {
        "after-claim",
        "before-body",
        "after-body",
        "before-finish",
        "after-finish",
        "before-checkpoint",
        "after-checkpoint",
        "before-step",
        "after-step",
        "before-commit",
        "after-commit",
        "before-rescue",
        "before-wake",
        "before-worker-begins",
        "enqueued",
        "parked",
        "before-announce",
    }
)

_hook: Callable[[str], None] | None = None


def fault(point: str) -> None:
    """Give a test the chance to act here; does nothing in production."""
    if _hook is not None:
        _hook(point)


def install(hook: Callable[[str], None] | None) -> None:
    """Install ``hook(point)`` for this process, or remove it with ``None``; for tests only."""
    global _hook  # noqa: PLW0603 -- one process-wide switch is the point of this module
    _hook = hook
