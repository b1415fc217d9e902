"""An exception that is raised into the code of one job reaches that code, or nothing."""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue
from typing import Final

import pytest

from django_durable_jobs.durable import doors
from django_durable_jobs.durable.doors import Shut, ThreadDoor, was_struck
from django_durable_jobs.errors import HardTimedOut, Interrupted

pytestmark = pytest.mark.once

ROUNDS: Final = 3000


def test_what_is_raised_into_one_code_after_the_other_never_hits_anything_between_them() -> None:
    """Whenever it comes: the code is about to end, has ended, or does work of ours in the middle."""
    open_doors: SimpleQueue[ThreadDoor | None] = SimpleQueue()
    hits = misses = 0
    outside: list[str] = []

    def strike() -> None:
        while (door := open_doors.get()) is not None:
            door.strike(HardTimedOut)

    # Else one of the two threads runs for so long that the other comes too late each time.
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    striker = threading.Thread(target=strike)
    striker.start()
    for number in range(ROUNDS):
        place = "before"
        try:
            door = ThreadDoor()
            try:
                open_doors.put(door)
                sum(range(number % 200))
                with Shut():
                    place = "ours"
                    sum(range(number % 150))
                    place = "code"
                sum(range(number % 100))
            finally:
                door.close()
            misses += 1
        except Interrupted:
            hits += 1
            if place == "ours":
                outside.append(place)
        try:
            sum(range(20))
        except Interrupted:  # the next job
            outside.append("after")
    open_doors.put(None)
    striker.join(10)
    sys.setswitchinterval(usual)
    assert outside == []
    assert hits + misses == ROUNDS


def test_what_is_on_its_way_when_the_code_ends_comes_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, really = threading.Event(), doors._raise_in

    def late(thread: int, why: type[Interrupted]) -> None:
        taken.set()
        threading.Event().wait(0.02)  # by then the thread is long past its code, unless it waits
        really(thread, why)

    monkeypatch.setattr(doors, "_raise_in", late)
    door = ThreadDoor()
    striker = threading.Thread(target=door.strike, args=[HardTimedOut])
    striker.start()
    assert taken.wait(10)
    door.close()
    striker.join(10)
    assert (door.closed, was_struck()) == (True, True), "and nothing was raised in between"


def test_code_that_is_over_cannot_be_interrupted() -> None:
    door = ThreadDoor()
    door.close()
    assert door.closed
    assert not door.strike(HardTimedOut)
    with Shut():
        pass
    assert not door.strike(HardTimedOut), "work of ours after the code opens nothing again"
    assert not was_struck()


def test_work_of_ours_in_the_middle_keeps_it_out_and_code_after_it_gets_it() -> None:
    door = ThreadDoor()
    with Shut(), Shut():
        assert not door.strike(HardTimedOut)
    with pytest.raises(HardTimedOut):
        door.strike(HardTimedOut)
    assert was_struck()
    assert not door.strike(HardTimedOut), "once"
    door.close()
