"""Whom a notification of the database is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .dispatcher import Dispatcher


@dataclass(frozen=True, slots=True)
class Ears:
    """Whom a notification is for."""

    dispatcher: Dispatcher
    order: Callable[[str], bool]
    look: Callable[[], None]
    due_later: Callable[[float], None]
    queue_appeared: Callable[[], None]

    def heard(self, payload: str) -> None:
        """Take a notification: an order, the name of a queue with new jobs, or nothing but that times have changed."""
        if self.order(payload):
            return
        self.dispatcher.look_now()
        if not payload:
            # A time to wait for has changed, or listening has only begun.
            self.due_later(0.0)
        elif payload not in self.dispatcher.queues:
            self.queue_appeared()

    def listening(self, works: bool) -> None:  # noqa: FBT001 -- a callback
        """Take note whether notifications come."""
        self.dispatcher.listening = works
        if works:
            # Orders that were given before.
            self.look()
