"""The queues whose jobs must not begin in this process just now, and whether that is so already."""

from __future__ import annotations

from collections.abc import Mapping

from ..operations.control import is_held_back
from .leases import Leases


class HeldBack:
    """Told by the control service, heeded by the dispatcher, in whose thread it is found obeyed.

    With each queue comes a text that says which pause of it this is.
    """

    def __init__(self, leases: Leases) -> None:
        """Begin with nothing paused."""
        self._leases = leases
        self._paused: Mapping[str, str] = {}
        self._obeyed: Mapping[str, str] = {}

    def __contains__(self, queue: str) -> bool:
        """Answer whether jobs of this queue must not begin."""
        return is_held_back(queue, self._paused)

    @property
    def paused(self) -> Mapping[str, str]:
        """What is paused now."""
        return self._paused

    def order(self, paused: Mapping[str, str]) -> None:
        """Let no job of these queues begin, and those of all others."""
        self._paused = paused

    def note_obeyed(self, paused: Mapping[str, str]) -> None:
        """Take note after a round during which all this was paused; what is held and has not begun may begin."""
        if paused != self._obeyed and not any(is_held_back(queue, paused) for queue in self._leases.not_begun()):
            self._obeyed = paused

    def obeys(self, paused: Mapping[str, str]) -> bool:
        """Answer whether no job of these queues begins here any more."""
        return paused.items() <= self._obeyed.items()
