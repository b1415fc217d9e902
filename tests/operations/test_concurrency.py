"""Concurrency of definitions and keys: so many jobs at once, over the whole fleet, and no claim knows of it (F6)."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import (
    Backoff,
    JobHandle,
    OptionError,
    blocked_by,
    cancel,
    durable_job,
    limit_key,
    pause,
    registry,
    resume,
    retry,
    unlimit_key,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import DefinitionError, NotLimited
from django_durable_jobs.models import Job, Sequence
from django_durable_jobs.operations import sequences
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.sequences import advance_forgotten
from django_durable_jobs.outcomes import BackedOff, Completed, Failed, Failure, Outcome, Snoozed
from django_durable_jobs.states import OPEN, Status
from tests.factories import claim_of, make_worker
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

HOUR = timedelta(hours=1)
FAILURE = Failure("ValueError: no", "")


@durable_job(concurrency=2)
def render(number: int) -> None:
    """A job of which two run at once."""


@durable_job(concurrency=2, concurrency_key=lambda customer, _number: f"customer {customer}", backoff=Backoff.none())
def bill(customer: int, number: int) -> None:
    """A job of which two run at once for each customer."""


@durable_job
def plain(number: int) -> None:
    """A job without a limit."""


def statuses(handles: list[JobHandle[Any]]) -> list[str]:
    return [str(handle.status) for handle in handles]


def end(outcome: Outcome, jobs: list[Any]) -> None:
    finish([Ending(job, outcome) for job in jobs])


def test_so_many_jobs_of_a_definition_run_at_once_and_the_next_in_order() -> None:
    handles = [render.enqueue(number) for number in range(4)]
    free = plain.enqueue(0)
    assert statuses(handles) == ["pending", "pending", "waiting", "waiting"]
    claimed = claim(claim_of(make_worker(), 10))
    assert {job.id for job in claimed} == {handles[0].id, handles[1].id, free.id}
    end(Completed(None), [job for job in claimed if job.id == handles[1].id])
    assert statuses(handles) == ["running", "completed", "pending", "waiting"]
    end(Failed(FAILURE), [job for job in claimed if job.id == handles[0].id])
    assert statuses(handles) == ["failed", "completed", "pending", "pending"]


def test_keys_have_nothing_to_do_with_each_other() -> None:
    first = bill.enqueue_many([(1, number) for number in range(3)])
    other = bill.enqueue_many([(2, number) for number in range(3)])
    given = bill.using(concurrency_key="customer 1").enqueue(3, 0)
    assert statuses(first) == statuses(other) == ["pending", "pending", "waiting"]
    assert str(given.status) == "waiting"
    assert Job.objects.get(id=given.id).concurrency_key == "customer 1"


def test_a_sequence_of_the_same_key_is_another_line() -> None:
    held = [bill.enqueue(1, number) for number in range(2)]
    assert str(plain.using(sequence_key="customer 1").enqueue(0).status) == "pending"
    assert statuses(held) == ["pending", "pending"]


def test_a_line_goes_on_when_a_job_is_cancelled_or_deleted() -> None:
    handles = [render.enqueue(number) for number in range(5)]
    cancel(handles[0].id)
    delete(handles[1].id)
    assert statuses(handles[2:]) == ["pending", "pending", "waiting"]


@pytest.mark.parametrize("outcome", [BackedOff(FAILURE, HOUR), Snoozed(HOUR)], ids=["backs off", "snoozes"])
def test_a_job_that_comes_back_later_gives_its_place_away_until_then(outcome: Outcome, dialect: Dialect) -> None:
    handles = [render.enqueue(number) for number in range(3)]
    claimed = claim(claim_of(make_worker(), 10))
    end(outcome, claimed[:1])
    assert [str(handle.status) for handle in handles[1:]] == ["running", "pending"]
    dialect.clock_offset += 2 * HOUR
    assert promote().moved == 1
    assert str(handles[0].status) == "waiting"
    assert claim(claim_of(make_worker(), 10))[0].id == handles[2].id
    end(Completed(None), claimed[1:])
    assert statuses(handles) == ["pending", "completed", "running"]


def test_a_job_that_backs_off_can_be_retried_now_and_lines_up() -> None:
    handles = [render.enqueue(number) for number in range(3)]
    end(BackedOff(FAILURE, HOUR), claim(claim_of(make_worker(), 1)))
    retry(handles[0].id)
    assert statuses(handles) == ["waiting", "pending", "pending"]
    end(Completed(None), claim(claim_of(make_worker(), 1)))
    assert statuses(handles) == ["pending", "completed", "pending"]


def test_a_job_that_is_due_later_holds_no_place_until_then(dialect: Dialect) -> None:
    later = render.using(delay=HOUR).enqueue(0)
    now = [render.enqueue(number) for number in range(2)]
    assert [str(later.status), *statuses(now)] == ["scheduled", "pending", "pending"]
    dialect.clock_offset += 2 * HOUR
    promote()
    assert str(later.status) == "waiting"
    end(Completed(None), claim(claim_of(make_worker(), 1)))
    assert str(later.status) == "pending"


def test_a_paused_job_in_the_line_holds_up_nobody() -> None:
    handles = [render.enqueue(number) for number in range(4)]
    pause(handles[2].id)
    end(Completed(None), claim(claim_of(make_worker(), 1)))
    assert statuses(handles) == ["completed", "pending", "paused", "pending"]
    resume(handles[2].id)
    assert str(handles[2].status) == "waiting"
    end(Completed(None), claim(claim_of(make_worker(), 1)))
    assert str(handles[2].status) == "pending"


def test_x62_places_of_a_dead_worker_are_kept_by_its_jobs_and_a_zombie_frees_none(dialect: Dialect) -> None:
    handles = [render.enqueue(number) for number in range(4)]
    zombies = claim(claim_of(make_worker(), 10))
    dialect.clock_offset += HOUR
    assert len(rescue().returned) == 2
    assert statuses(handles) == ["pending", "pending", "waiting", "waiting"]
    alive = claim(claim_of(make_worker(), 10, rescued=True))
    assert len(alive) == 2
    finish([Ending(job, Completed(None)) for job in zombies])
    assert statuses(handles) == ["running", "running", "waiting", "waiting"]
    end(Completed(None), alive)
    assert statuses(handles) == ["completed", "completed", "pending", "pending"]


def test_what_a_crash_between_commit_and_look_leaves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    handles = [render.enqueue(number) for number in range(3)]
    claimed = claim(claim_of(make_worker(), 10))
    with monkeypatch.context() as crash:
        crash.setattr(sequences, "advance", lambda _keys: 0)
        end(Completed(None), [job for job in claimed if job.id == handles[1].id])
        late = render.using(concurrency_key="alone").enqueue(9)
    assert statuses([handles[2], late]) == ["waiting", "waiting"]
    advance_forgotten()
    assert statuses([handles[2], late]) == ["pending", "pending"]
    assert advance_forgotten() == 0


def test_a_job_that_nobody_has_looked_at_takes_a_place_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    first = render.enqueue(0)
    with monkeypatch.context() as crash:
        crash.setattr(sequences, "advance", lambda _keys: 0)
        second = render.enqueue(1)
    assert statuses([first, second]) == ["pending", "waiting"]
    assert advance_forgotten() == 1
    assert statuses([first, second]) == ["pending", "pending"]


def test_i25_jobs_that_end_at_once_in_several_workers_never_let_too_many_go_on() -> None:
    bill.enqueue_many([(1, number) for number in range(24)])
    guard, over = threading.Lock(), []

    def work() -> None:
        worker = make_worker()
        while Job.objects.in_status(*OPEN).exists():
            claimed = claim(claim_of(worker, 1))
            with guard:
                # In one statement. Those that are pending have a place, too.
                over.append(Job.objects.in_status(Status.PENDING, Status.RUNNING).count() > 2)
            end(Completed(None), claimed)

    together(work, work, work)
    assert Job.objects.filter(status="completed").count() == 24
    assert not any(over)
    assert not Sequence.objects.exists()


def test_the_number_is_that_of_the_code_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    handles = [render.enqueue(number) for number in range(6)]
    changed = replace(render.definition, options=render.definition.options.changed({"concurrency": 4}))
    monkeypatch.setitem(registry._definitions, render.definition.name, changed)
    end(Completed(None), claim(claim_of(make_worker(), 1)))
    assert statuses(handles) == ["completed", *["pending"] * 4, "waiting"]


def test_an_order_gives_a_key_another_number_until_it_is_taken_back() -> None:
    handles = [render.enqueue(number) for number in range(6)]
    key = render.name
    limit_key(key, concurrency=4, by="ada", reason="a new machine")
    assert statuses(handles) == [*["pending"] * 4, "waiting", "waiting"]
    limit_key(key, concurrency=1)
    end(Completed(None), claim(claim_of(make_worker(), 3)))
    assert statuses(handles) == [*["completed"] * 3, "pending", "waiting", "waiting"]
    unlimit_key(key)
    assert statuses(handles) == [*["completed"] * 3, "pending", "pending", "waiting"]
    with pytest.raises(NotLimited, match="no order that limits the concurrency key"):
        unlimit_key(key)
    for bad in (0, True, "3", 1001):
        with pytest.raises(OptionError, match="concurrency must be a whole number from 1 to 1000"):
            limit_key(key, concurrency=bad)  # type: ignore[arg-type]  # what is refused
    for wrong in ("", " x", "x" * 200, None, 3):
        with pytest.raises(OptionError, match="key"):
            limit_key(wrong, concurrency=1)  # type: ignore[arg-type]  # what is refused
    assert not Sequence.objects.filter(ordered__isnull=False).exists()


def test_i25_a_rate_of_a_key_lets_no_more_begin_in_any_window(dialect: Dialect) -> None:
    limit_key("customer 1", rate=2, per=60)
    handles = [bill.enqueue(1, number) for number in range(5)]
    other = bill.enqueue(2, 0)
    worker = make_worker()
    assert statuses(handles) == ["pending", "pending", "waiting", "waiting", "waiting"]
    end(Completed(None), claim(claim_of(worker, 5)))
    assert str(other.status) == "completed"
    # The next one says when to look again.
    assert statuses(handles[2:]) == ["scheduled", "waiting", "waiting"]
    dialect.clock_offset += timedelta(seconds=30)
    assert promote().moved == 0
    dialect.clock_offset += timedelta(seconds=31)
    promote()
    assert statuses(handles[2:]) == ["pending", "pending", "waiting"]
    end(Completed(None), claim(claim_of(worker, 5)))
    assert statuses(handles[2:]) == ["completed", "completed", "scheduled"]
    unlimit_key("customer 1")
    dialect.clock_offset += timedelta(seconds=61)
    promote()
    assert str(handles[4].status) == "pending"


def test_i25_what_has_not_begun_counts_however_long_ago_it_was_let_go_on(dialect: Dialect) -> None:
    limit_key("customer 1", concurrency=10, rate=2, per=60)
    handles = [bill.enqueue(1, number) for number in range(4)]
    assert statuses(handles) == ["pending", "pending", "scheduled", "waiting"]
    dialect.clock_offset += timedelta(seconds=300)
    assert promote().moved == 1
    assert statuses(handles) == ["pending", "pending", "scheduled", "waiting"]
    # Begun, and not ended: the window opens all the same.
    assert len(claim(claim_of(make_worker(), 5))) == 2
    dialect.clock_offset += timedelta(seconds=16)
    assert promote().moved == 1
    assert statuses(handles) == ["running", "running", "scheduled", "waiting"]
    dialect.clock_offset += timedelta(seconds=45)
    promote()
    assert statuses(handles) == ["running", "running", "pending", "pending"]


@pytest.mark.parametrize(
    "bad", [{}, {"rate": 0}, {"rate": 1001}, {"rate": 5, "per": 0}, {"concurrency": 2, "per": 5}], ids=str
)
def test_a_bad_limit_of_a_key_is_refused_and_nothing_stored(bad: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"must be|needs|together"):
        limit_key("customer 1", **bad)
    assert not Sequence.objects.exists()


def test_an_order_can_come_before_any_job_and_stays_when_all_have_ended() -> None:
    limit_key("customer 9", concurrency=1)
    handles = [bill.enqueue(9, number) for number in range(2)]
    assert statuses(handles) == ["pending", "waiting"]
    for _round in range(2):
        end(Completed(None), claim(claim_of(make_worker(), 5)))
    assert Sequence.objects.get(ordered=1).job_id is None
    assert advance_forgotten() == 0
    unlimit_key("customer 9")
    assert not Sequence.objects.exists()


def test_the_job_in_front_is_named() -> None:
    handles = [render.enqueue(number) for number in range(3)]
    front = blocked_by(handles[2].id)
    assert front is not None
    assert front.id in {handles[0].id, handles[1].id}


@pytest.mark.parametrize("bad", [0, -1, 1001, True, 1.5, "3", float("nan")], ids=repr)
def test_a_bad_number_is_refused_at_the_decorator(bad: Any) -> None:
    with pytest.raises(OptionError, match="concurrency must be a whole number from 1 to 1000"):
        durable_job(concurrency=bad)(plain.definition.function)


def test_options_that_contradict_each_other_are_refused() -> None:
    function = plain.definition.function
    with pytest.raises(OptionError, match="concurrency_key means something together with concurrency only"):
        durable_job(concurrency_key="x")(function)
    with pytest.raises(OptionError, match="concurrency and sequence_key exclude each other"):
        durable_job(concurrency=2, sequence_key="x")(function)
    with pytest.raises(OptionError, match="debounce and concurrency exclude each other"):
        durable_job(concurrency=2, debounce=5)(function)
    with pytest.raises(DefinitionError, match="belongs to the function"):
        render.using(concurrency=3)  # type: ignore[call-arg]  # what is refused
    with pytest.raises(OptionError, match="1 to 199 printable characters"):
        render.using(concurrency_key="x" * 200)
    with pytest.raises(OptionError, match="must return a str"):
        render.using(concurrency_key=lambda number: number).enqueue(1)
    assert not Job.objects.exists()
