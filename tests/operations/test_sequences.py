"""Sequences: jobs with one key run one at a time, in the order in which they were enqueued (F15)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import Backoff, JobHandle, OptionError, blocked_by, cancel, durable_job, enqueue_many, retry
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import JobNotFound
from django_durable_jobs.models import Job, Sequence
from django_durable_jobs.operations import sequences
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.sequences import advance_forgotten
from django_durable_jobs.operations.wake import wake, wake_forgotten
from django_durable_jobs.outcomes import BackedOff, Cancelled, Completed, Failed, Failure, Outcome, Parked, Released
from tests.factories import LEASE, claim_of, make_worker
from tests.transactions import rolled_back
from tests.waiting import elsewhere, together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

HOUR = timedelta(hours=1)
FAILURE = Failure("ValueError: no", "")


@durable_job(sequence_key=lambda order, _step: f"order:{order}", retries=1, backoff=Backoff.none())
def step(order: int, number: int) -> None:
    """One step of an order."""


@durable_job
def plain(number: int) -> None:
    """A job of no sequence."""


def statuses(handles: list[JobHandle[Any]]) -> list[str]:
    return [str(handle.status) for handle in handles]


def run(outcome: Outcome, expected: JobHandle[Any] | None = None) -> None:
    """Claim the one job that can be claimed, and end its attempt."""
    worker = make_worker()
    (job,) = claim(claim_of(worker, 10))
    assert expected is None or job.id == expected.id
    finish([Ending(job, outcome)])


def test_only_the_oldest_open_job_of_a_key_can_be_claimed() -> None:
    first, second, third = (step.enqueue(1, number) for number in range(3))
    other = step.enqueue(2, 0)
    free = plain.enqueue(0)
    assert statuses([first, second, third, other, free]) == ["pending", "waiting", "waiting", "pending", "pending"]
    claimed = claim(claim_of(make_worker(), 10))
    assert [job.id for job in claimed] == [first.id, other.id, free.id]
    assert [job.sequence_key for job in claimed] == ["order:1", "order:2", None]
    front = blocked_by(third.id)
    assert front is not None
    assert front.id == first.id
    assert blocked_by(first.job()) is None
    assert blocked_by(str(free.id)) is None
    with pytest.raises(JobNotFound):
        blocked_by("nobody")


@pytest.mark.parametrize("outcome", [Completed(None), Failed(FAILURE), Cancelled("stopped")])
def test_the_next_goes_on_when_the_one_in_front_has_ended(outcome: Outcome) -> None:
    first, second, third = (step.enqueue(1, number) for number in range(3))
    run(outcome, first)
    assert statuses([second, third]) == ["pending", "waiting"]
    run(Completed(None), second)
    run(Completed(None), third)
    assert not Sequence.objects.exists(), "nothing is kept of a sequence that is over"


@pytest.mark.parametrize(
    "outcome",
    [BackedOff(FAILURE, timedelta(0)), Released(), Parked(("time",), None), BackedOff(FAILURE, HOUR)],
    ids=["backs off", "released", "parks", "backs off for long"],
)
def test_one_whose_life_goes_on_stays_in_front(outcome: Outcome) -> None:
    first, second = (step.enqueue(1, number) for number in range(2))
    run(outcome, first)
    assert str(second.status) == "waiting"
    assert sequences.advance(["order:1"]) == 0
    assert wake([second.id]) == 0, "no wake-up ends this wait"
    assert advance_forgotten() == 0
    assert str(second.status) == "waiting"


def test_a_completion_with_the_next_claim_in_one_statement_lets_the_next_go_on() -> None:
    first, second = (step.enqueue(1, number) for number in range(2))
    worker = make_worker()
    (job,) = claim(claim_of(worker, 10))
    stored, claimed = finish([Ending(job, Completed(None))], claim_of(worker, 10))
    assert (stored, claimed) == ({first.id}, [])
    assert str(second.status) == "pending"


def test_cancelling_deleting_and_giving_up_let_the_next_go_on(dialect: Dialect) -> None:
    jobs = [step.using(retries=0).enqueue(1, number) for number in range(5)]
    cancel(jobs[2].id)  # one in the middle
    assert statuses(jobs) == ["pending", "waiting", "cancelled", "waiting", "waiting"]
    cancel(jobs[0].id)
    assert str(jobs[1].status) == "pending"
    delete(jobs[1].id)
    assert statuses(jobs[3:]) == ["pending", "waiting"]
    claim(claim_of(make_worker(lease=-LEASE), 1))
    dialect.clock_offset += 2 * LEASE
    assert [one.id for one in rescue().failed] == [jobs[3].id]
    assert str(jobs[4].status) == "pending"


def test_a_retry_by_order_waits_for_its_turn() -> None:
    first, second, third = (step.enqueue(1, number) for number in range(3))
    run(Failed(FAILURE), first)
    retry(first.id)
    assert statuses([first, second, third]) == ["waiting", "pending", "waiting"]
    run(Completed(None), second)
    assert statuses([first, third]) == ["pending", "waiting"], "the oldest is the next"
    run(BackedOff(FAILURE, HOUR), first)
    retry(first.id)
    assert statuses([first, third]) == ["pending", "waiting"], "it is in front: no need to wait"


def test_a_retry_of_the_last_one_before_anybody_has_looked_is_not_stuck() -> None:
    first = step.enqueue(1, 0)
    run(Failed(FAILURE), first)
    Sequence.objects.create(key="order:1", job_id=first.id)  # as it is before the look after the failure
    retry(first.id)
    assert str(first.status) == "pending"


def test_a_job_with_a_time_keeps_its_place_and_its_time(dialect: Dialect) -> None:
    first = step.enqueue(1, 0)
    late = step.using(delay=HOUR).enqueue(1, 1)
    last = step.enqueue(1, 2)
    waiting = late.job()
    assert (waiting.status, waiting.run_at) == ("waiting", None)
    assert str(waiting.waiting_for).startswith("sequence, not before 20")
    dialect.clock_offset += HOUR / 2
    assert promote().moved == 0
    run(Completed(None), first)
    waiting = late.job()
    assert (waiting.status, waiting.waiting_for) == ("waiting", "time")
    assert claim(claim_of(make_worker(), 10)) == [], "who comes after it waits with it"
    dialect.clock_offset += HOUR / 2
    assert promote().moved == 1
    run(Completed(None), late)
    assert str(last.status) == "pending"


def test_a_time_that_is_past_does_not_hold_up(dialect: Dialect) -> None:
    first, late = step.enqueue(1, 0), step.using(run_at=dialect.now() + HOUR).enqueue(1, 1)
    dialect.clock_offset += 2 * HOUR
    run(Completed(None), first)
    assert str(late.status) == "pending"
    assert late.job().run_at is None


def test_many_at_once_are_stored_in_order() -> None:
    handles = enqueue_many([step.s(number % 2, number) for number in range(6)])
    assert statuses(handles) == ["pending", "pending", "waiting", "waiting", "waiting", "waiting"]
    many = step.enqueue_many([(7, number) for number in range(250)])
    assert Job.objects.pending().filter(sequence_key="order:7").get().id == many[0].id
    assert Job.objects.filter(sequence_key="order:7", status="waiting").count() == 249


def test_in_a_transaction_the_job_waits_until_the_commit() -> None:
    with transaction.atomic():
        job = step.enqueue(1, 0)
        assert str(job.status) == "waiting"
    assert str(job.status) == "pending"
    with rolled_back():
        step.enqueue(1, 1)
    assert Job.objects.count() == 1
    assert str(step.enqueue(1, 2).status) == "waiting"


def test_ends_inside_a_transaction_are_looked_at_when_it_commits() -> None:
    first, second = (step.enqueue(1, number) for number in range(2))
    with rolled_back():
        cancel(first.id)
    assert statuses([first, second]) == ["pending", "waiting"]
    with transaction.atomic():
        cancel(first.id)
        assert str(second.status) == "waiting"
    assert str(second.status) == "pending"


def test_what_a_crash_between_commit_and_look_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sequences, "advance", lambda _keys: 0)
        first, second = (step.enqueue(1, number) for number in range(2))
    assert statuses([first, second]) == ["waiting", "waiting"]
    assert wake_forgotten() == 0
    assert advance_forgotten() == 1
    assert statuses([first, second]) == ["pending", "waiting"]
    with monkeypatch.context() as patch:
        patch.setattr(sequences, "advance", lambda _keys: 0)
        run(Completed(None), first)
    assert str(second.status) == "waiting"
    assert advance_forgotten() == 1
    assert str(second.status) == "pending"
    assert advance_forgotten() == 0


def test_an_error_of_the_look_does_not_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_keys: object) -> int:
        raise RuntimeError("the database went away")

    monkeypatch.setattr(sequences, "advance", fails)
    assert str(step.enqueue(1, 0).status) == "waiting"


@pytest.mark.parametrize("round_", range(3))
def test_enqueues_at_the_same_moment_let_one_job_go(round_: int) -> None:
    handles = together(*(partial(step.enqueue, round_, number) for number in range(5)))
    assert sorted(statuses(handles)) == ["pending", *["waiting"] * 4]


@pytest.mark.parametrize("round_", range(3))
def test_an_enqueue_beside_the_end_of_the_one_in_front_is_not_forgotten(round_: int) -> None:
    first = step.enqueue(round_, 0)
    (job,) = claim(claim_of(make_worker(), 1))

    def end() -> None:
        finish([Ending(job, Completed(None))])

    def more() -> None:
        step.enqueue(round_, 1)

    together(end, more, more)
    rest = Job.objects.filter(sequence_key=f"order:{round_}").exclude(id=first.id)
    assert sorted(rest.values_list("status", flat=True)) == ["pending", "waiting"]


def test_a_transaction_that_commits_late_finds_another_under_way_and_waits(dialect: Dialect) -> None:
    """Of two enqueues whose transactions overlap, the first to commit goes first; never both."""
    if not dialect.has_parallel_writers:
        pytest.skip("one writer at a time: transactions that write do not overlap")
    plain.using(delay=HOUR).enqueue(0)  # the queue has its row, so that the two have nothing else in common
    with transaction.atomic():
        early = step.enqueue(1, 0)
        late = elsewhere(lambda: step.enqueue(1, 1))
    assert statuses([early, late]) == ["waiting", "pending"]
    run(Completed(None), late)
    assert str(early.status) == "pending"


# What is no key ----------------------------------------------------------------------------------------------------


def raises(_order: int, _number: int) -> str:
    raise KeyError("order")


async def coroutine(_order: int, _number: int) -> str:
    return "key"


NO_KEYS: list[Any] = [raises, lambda *_: ["a"], lambda *_: None, lambda *_: b"a", lambda *_: "", lambda: "a"]


@pytest.mark.parametrize("given", NO_KEYS)
def test_n10_a_key_function_that_gives_no_key_is_named_and_nothing_stored(given: Any) -> None:
    with pytest.raises(OptionError, match=rf"sequence_key of {step.name}: the function .*{given.__name__}"):
        step.using(sequence_key=given).enqueue(1, 1)
    assert not Job.objects.exists()


@pytest.mark.parametrize("given", [1, b"a", "", " a", "a\0", "a\ud800", "x" * 201, ["a"], coroutine])
def test_what_cannot_be_a_key_is_refused_at_once(given: Any) -> None:
    with pytest.raises(OptionError, match="sequence_key"):
        step.using(sequence_key=given)


def test_a_key_may_be_a_text_and_belongs_to_all_definitions() -> None:
    one = step.using(sequence_key="customer 7").enqueue(1, 1)
    two = plain.using(sequence_key="customer 7").enqueue(1)
    three = step.using(sequence_key=None).enqueue(1, 1)
    assert statuses([one, two, three]) == ["pending", "waiting", "pending"]
