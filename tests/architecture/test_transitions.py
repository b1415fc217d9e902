"""Every cell of the transition matrix: each verb in each status, by every statement that may move a job (I3, I4)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Job
from django_durable_jobs.operations.cancel import cancel_all
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.transition import move
from django_durable_jobs.operations.wake import wake
from django_durable_jobs.outcomes import (
    BackedOff,
    Cancelled,
    Completed,
    Failed,
    Failure,
    Outcome,
    Parked,
    Released,
    Snoozed,
)
from django_durable_jobs.states import CLOCKED, DUE_LATER, FINAL, PAUSABLE, TRANSITIONS, Actor, Status, may_move
from tests.factories import claim_of, make_abandoned_job, make_job, make_worker, present

pytestmark = pytest.mark.django_db

every_cell = pytest.mark.parametrize(
    ("verb", "status"), [(verb, status) for verb in sorted(TRANSITIONS) for status in sorted(Status)]
)
SOON = DatabaseNow() + timedelta(minutes=1)


def columns_for(verb: str) -> dict[str, Any]:
    """Return the columns that a caller of `move` gives along with this verb."""
    target = TRANSITIONS[verb].target
    if target is Status.RUNNING:
        return {"worker_id": make_worker().pk, "lease_expires_at": SOON}
    return {"run_at": SOON} if target in DUE_LATER else {}


def row_of(job: Job) -> dict[str, Any]:
    return dict(Job.objects.values().get(id=job.id))


@every_cell
def test_move_makes_exactly_the_moves_of_the_table(verb: str, status: Status) -> None:
    job, rule = make_job(status), TRANSITIONS[verb]
    before = row_of(job)
    token = job.token if rule.actor is Actor.OWNER else None
    moved = move(verb, Job.objects.filter(id=job.id), token=token, **columns_for(verb))
    assert moved == may_move(verb, status) == (status in rule.sources)
    if not moved:
        assert row_of(job) == before
        return
    row = present(job)
    assert row.status == rule.target
    assert (row.finished_at is not None) == rule.ends_life == (rule.target in FINAL)
    assert (row.worker_id is not None) == (row.lease_expires_at is not None) == rule.starts_lease
    assert row.token == job.token


@pytest.mark.parametrize("verb", [verb for verb, rule in TRANSITIONS.items() if rule.actor is Actor.OWNER])
@pytest.mark.parametrize("token", [0, 2, -1])
def test_i8_a_move_of_the_owner_compares_the_token(verb: str, token: int) -> None:
    job = make_job("running")
    before = row_of(job)
    assert job.token == 1
    assert move(verb, Job.objects.filter(id=job.id), token=token, **columns_for(verb)) == 0
    assert row_of(job) == before


@pytest.mark.parametrize("verb", [verb for verb, rule in TRANSITIONS.items() if rule.actor is Actor.OWNER])
def test_i8_a_move_of_the_owner_without_a_token_is_a_mistake(verb: str) -> None:
    with pytest.raises(ValueError, match="give its token"):
        move(verb, Job.objects.all())


def test_an_unknown_verb_moves_nothing() -> None:
    with pytest.raises(KeyError):
        move("teleport", Job.objects.all())


# The fused statements of the dialects ------------------------------------------------------------------------

FAILURE = Failure("ValueError: no", "")
OUTCOMES: dict[str, Outcome] = {
    "complete": Completed("1"),
    "fail": Failed(FAILURE),
    "back_off": BackedOff(FAILURE, timedelta(minutes=1)),
    "snooze": Snoozed(timedelta(minutes=1)),
    "release": Released(),
    "park": Parked(("message go",), None),
    "stop": Cancelled("an order"),
}


def held(job: Job) -> Claimed:
    """Describe a job as a worker would that believes to hold it."""
    return Claimed(*(getattr(job, name) for name in Claimed._fields))


def ending_in(outcome: Outcome) -> Callable[[Job], object]:
    return lambda job: finish([Ending(held(job), outcome)])


BY_OPERATION: dict[str, Callable[[Job], object]] = {
    "claim": lambda _job: claim(claim_of(make_worker(), 10)),
    "promote": lambda _job: promote(),
    "wake": lambda job: wake([job.id]),
    "cancel": lambda job: cancel_all([job.id], reason="an order"),
    **{verb: ending_in(outcome) for verb, outcome in OUTCOMES.items()},
    "complete and claim": lambda job: finish([Ending(held(job), Completed("1"))], claim_of(make_worker(), 10)),
}


@pytest.mark.parametrize("status", sorted(Status))
@pytest.mark.parametrize("operation", sorted(BY_OPERATION))
def test_operations_make_exactly_the_moves_of_the_table(operation: str, status: Status) -> None:
    due = {"run_at": DatabaseNow() - timedelta(seconds=1)} if status in CLOCKED else {}
    job = make_job(status, **due)
    before = row_of(job)
    verbs = operation.replace("complete and claim", "complete,claim").split(",")
    expected = next((TRANSITIONS[verb].target for verb in verbs if may_move(verb, status)), None)
    BY_OPERATION[operation](job)
    if expected is None:
        # The holder of a running job is asked to stop it, which is no move yet.
        asked = {"cancel_requested_at"} if (operation, status) == ("cancel", "running") else set()
        assert {name for name, value in row_of(job).items() if value != before[name]} == asked
    else:
        assert present(job).status == expected


@pytest.mark.parametrize(("attempt", "verb"), [(1, "rescue"), (3, "give_up")])
def test_a_rescue_makes_exactly_the_moves_of_the_table(attempt: int, verb: str) -> None:
    job = make_abandoned_job(attempt=attempt, max_attempts=3)
    others = [make_job(status) for status in sorted(set(Status) - {Status.RUNNING})]
    before = [row_of(other) for other in others]
    rescue()
    assert present(job).status == TRANSITIONS[verb].target
    assert [row_of(other) for other in others] == before


# The table itself --------------------------------------------------------------------------------------------


def test_i4_nobody_but_an_operator_moves_a_job_whose_life_has_ended() -> None:
    for rule in TRANSITIONS.values():
        assert not rule.sources & FINAL or rule.actor is Actor.OPERATOR, rule.verb


def test_i5_every_status_that_a_job_comes_to_has_a_way_on_that_needs_no_person() -> None:
    reached = {rule.target for rule in TRANSITIONS.values()} | {Status.PENDING, Status.SCHEDULED}
    # Few jobs have a time by which they expire.
    by_itself = [rule for rule in TRANSITIONS.values() if rule.actor is not Actor.OPERATOR and rule.verb != "expire"]
    left = {source for rule in by_itself for source in rule.sources}
    assert reached - FINAL - left == {Status.PAUSED}  # which a person has ordered


def test_only_a_lease_holder_the_rescuer_or_an_order_to_take_it_away_ends_a_running_job() -> None:
    from_running = {rule.verb for rule in TRANSITIONS.values() if Status.RUNNING in rule.sources}
    by_owner = {rule.verb for rule in TRANSITIONS.values() if rule.actor is Actor.OWNER}
    assert from_running - by_owner == {"rescue", "give_up", "seize", "take_away", "abort"}


@pytest.mark.parametrize("verb", [verb for verb, rule in TRANSITIONS.items() if Status.RUNNING in rule.sources])
def test_a_running_job_that_is_to_be_paused_is_paused_by_whatever_does_not_end_its_life(verb: str) -> None:
    rule = TRANSITIONS[verb]
    for cancelled in (None, DatabaseNow()):
        job = make_job("running", pause_requested_at=DatabaseNow(), cancel_requested_at=cancelled)
        token = job.token if rule.actor is Actor.OWNER else None
        assert move(verb, Job.objects.filter(id=job.id), token=token, **columns_for(verb)) == 1
        row = present(job)
        heeded = rule.target in PAUSABLE and cancelled is None
        assert row.status == (Status.PAUSED if heeded else rule.target)
        assert row.paused_from == (rule.target if heeded else "pending" if rule.target is Status.PAUSED else None)


def test_a_verb_is_named_once_and_never_stays_in_its_status() -> None:
    for verb, rule in TRANSITIONS.items():
        assert rule.verb == verb
        assert rule.sources
        assert rule.target not in rule.sources
