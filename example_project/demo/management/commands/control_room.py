"""``manage.py control_room``: orders to a fleet under load, and how long each took until all of it obeyed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from demo import place
from demo.command import DemoCommand
from demo.control_room import ControlRoom
from demo.errors import Interrupted
from demo.screen import say


class Command(DemoCommand):
    """Give orders to workers that have much to do."""

    help = (
        "Keep four queues of two worker processes busy, give orders to them (pause, resume, cancel, throttle to 50 "
        "jobs a second), and print how long each took until the whole fleet obeyed. It takes half a minute."
    )

    def run(self, children: ExitStack, given: dict[str, Any]) -> None:
        """Give the orders."""
        log = children.enter_context(place.own_folder())
        self.prepare(children, given)
        say(f"Log        {log}")
        try:
            ControlRoom(log, children).run()
        except Interrupted:
            say("\nStopping ...")
            raise
