"""How a worker tells the outside that it lives: a file that is touched, and the messages of systemd (``sd_notify``).

Both say that every service of the process does its rounds, not that the database can be reached: to start a worker
again would not help it there.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..clock import SYSTEM, Clock

logger = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between two signs of life."""


class Probes:
    """Gives signs of life to whoever asked for them."""

    def __init__(
        self, health_file: Path | None = None, environment: Mapping[str, str] | None = None, *, clock: Clock = SYSTEM
    ) -> None:
        """Take the file to touch, and the environment variables in which systemd says where it listens."""
        self._health_file = health_file
        self._address = _address(environment or {})
        self._clock = clock
        self._due = 0.0
        self._every = _watchdog(environment or {})
        self._failed = False

    def ready(self) -> None:
        """Say that the work has begun."""
        self._tell("READY=1")
        self.alive()

    def alive(self) -> None:
        """Say that the process is well; cheap, and may be called at any time."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = now + self._every
        self._tell("WATCHDOG=1")
        if self._health_file is not None:
            try:
                self._health_file.touch()
            except OSError as error:
                # Once: whoever looks at the file will say the rest.
                if not self._failed:
                    logger.warning("The health file %s cannot be touched: %s", self._health_file, error)
                self._failed = True
            else:
                self._failed = False

    def stopping(self) -> None:
        """Say that no more work is taken."""
        self._tell("STOPPING=1")

    def ended(self) -> None:
        """Leave no sign of life behind."""
        if self._health_file is not None:
            with suppress(OSError):
                self._health_file.unlink(missing_ok=True)

    def _tell(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(message.encode(), self._address)
        except OSError as error:
            logger.debug("systemd could not be told %s: %s", message, error)


def _address(environment: Mapping[str, str]) -> str | None:
    given = environment.get("NOTIFY_SOCKET", "")
    if given.startswith("@"):
        return f"\0{given[1:]}"  # an abstract one, which has no file
    if given.startswith("/"):
        return given
    if given:
        logger.warning(
            "NOTIFY_SOCKET is neither a path nor an abstract socket (@name), so nobody is told: %.80r", given
        )
    return None


def _watchdog(environment: Mapping[str, str]) -> float:
    """Return the seconds between two signs of life: a third of what systemd waits for one, at most one."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return EVERY
    text = environment.get("WATCHDOG_USEC", "")
    return min(EVERY, int(text) / 3_000_000) if text.isascii() and text.isdecimal() and int(text) else EVERY
