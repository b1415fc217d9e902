"""Hears from the database that there is work. A hint: the dispatcher polls whether or not this works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from django.db import connections

from ..operations.database import alias, dialect

WAIT: Final = 0.5
"""Seconds that one wait lasts; costs no query, only bounds how long a stop takes."""


class Listener:
    """Listens on the connection of its thread; after a loss it connects again and has everything looked at.

    The thread must run no other service, whose queries would wait for the listening. Whoever runs the thread closes
    its connection.
    """

    name = "listener"

    def __init__(self, heard: Callable[[str], None], listening: Callable[[bool], None]) -> None:
        """Take whom to tell a payload, and whom to tell whether listening works."""
        self._heard = heard
        self._listening = listening
        self._payloads: Iterator[str | None] | None = None

    def run_once(self) -> float:
        """Wait for one payload or half a second."""
        try:
            if self._payloads is None:
                payloads = dialect().listen(WAIT, connections[alias()])
                next(payloads)
                self._payloads = payloads
                # What was sent before we listened is found by looking.
                self._listening(True)
                self._heard("")
            payload = next(self._payloads)
        except Exception:
            self._listening(False)
            if self._payloads is not None:
                # Waits that are on their way have counted on hearing: they are too long now.
                self._payloads = None
                self._heard("")
            connections[alias()].close()
            raise
        if payload is not None:
            self._heard(payload)
        return 0.0
