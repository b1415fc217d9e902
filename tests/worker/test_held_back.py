"""When a worker may say that it obeys a pause (I28)."""

from __future__ import annotations

import pytest

from django_durable_jobs.operations.control import WHOLE_WORKER
from django_durable_jobs.worker.held_back import HeldBack
from django_durable_jobs.worker.leases import Leases
from tests.factories import claim_one

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ["mail", WHOLE_WORKER])
def test_i28_a_pause_is_obeyed_once_nothing_that_it_concerns_can_begin(name: str) -> None:
    leases = Leases()
    held = HeldBack(leases)
    mail, video = claim_one(queue="mail"), claim_one(queue="video")
    leases.add([mail, video])
    held.order({name: "first"})
    assert "mail" in held
    assert ("video" in held) == (name == WHOLE_WORKER)
    held.note_obeyed(held.paused)
    assert not held.obeys({name: "first"})
    leases.end([mail])  # it is stored that it went back
    if name == WHOLE_WORKER:
        leases.code_is_over(video)
    held.note_obeyed(held.paused)
    assert held.obeys({name: "first"})


def test_i28_a_round_that_began_before_an_order_says_nothing_about_it() -> None:
    held = HeldBack(Leases())
    before = held.paused
    held.order({"mail": "first"})
    held.note_obeyed(before)
    assert not held.obeys({"mail": "first"})
    held.note_obeyed(held.paused)
    assert held.obeys({"mail": "first"})
    # Resumed and paused again between two looks: another pause, to be obeyed anew.
    held.order({"mail": "second"})
    assert not held.obeys({"mail": "second"})
    assert "mail" in held
