"""A new job that goes on from a call of another one (F9): its checkpoints, its arguments, what stays behind."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction

from django_durable_jobs import (
    ArgumentError,
    Determinism,
    JobHandle,
    JobNotFound,
    NoRetry,
    OptionError,
    SerializationError,
    TransitionRefused,
    UnknownDefinition,
    call,
    cancel,
    compensate,
    current_job,
    durable_job,
    fork,
    retry,
)
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Checkpoint, Job, Message, Queue
from django_durable_jobs.operations import generations
from django_durable_jobs.outcomes import Completed, Failed
from django_durable_jobs.states import Status
from tests.durable.running import COMMITS, Runner, row
from tests.factories import make_checkpoint, make_job, present

pytestmark = COMMITS

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()


def step(text: str) -> str:
    RAN.append(text)
    return text.upper()


@durable_job(name="tests.fork.ordered", retries=4, priority="high", queue="default")
def ordered(order: int, *, note: str = "-") -> list[str]:
    return [call(step, f"read {order}"), call(step, f"write {order} {note}")]


def keys(job: JobHandle[Any] | Job) -> list[str]:
    return sorted(Checkpoint.objects.filter(job_id=job.id).values_list("key", flat=True))


def make_old(status: Status | str, **columns: Any) -> Job:
    """Store a job that can be forked."""
    return make_job(status, **{"definition": "tests.fork.ordered", "payload": '{"*":[1]}', **columns})


@pytest.fixture
def done(runner: Runner) -> JobHandle[Any]:
    """A job that has completed."""
    job = ordered.using(determinism=Determinism.STRICT).enqueue(7, note="a")
    assert runner.attempt() == Completed('["READ 7","WRITE 7 A"]')
    RAN.clear()
    return job


def test_the_new_job_makes_the_calls_from_there_on(runner: Runner, done: JobHandle[Any]) -> None:
    before = Job.objects.values().get(id=done.id)
    new = fork(done.id, from_call="2")
    assert isinstance(new, JobHandle)
    assert keys(new) == ["1"]
    assert runner.attempt() == Completed('["READ 7","WRITE 7 A"]')
    assert RAN == ["write 7 a"]
    assert keys(new) == ["1", "2"]
    assert new.result() == ["READ 7", "WRITE 7 A"]
    assert Job.objects.values().get(id=done.id) == before
    assert keys(done) == ["1", "2"]


def test_it_is_a_job_of_its_own_linked_to_the_old_one(done: JobHandle[Any]) -> None:
    new, old = row(fork(done.id, from_call="2")), row(done)
    assert new.origin == old
    assert list(old.copies.all()) == [new]
    same = ("definition", "queue", "rank", "payload", "max_attempts", "options")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert (new.status, new.attempt, new.generation, new.result, new.parent) == ("pending", 0, 0, None, None)


def test_a_fork_of_a_fork_points_to_the_one_it_came_from(done: JobHandle[Any]) -> None:
    first = fork(done.id, from_call="2")
    second = fork(first.id, from_call="2")
    assert row(second).origin_id == first.id
    assert keys(second) == ["1"]


def test_its_first_attempt_is_its_first(runner: Runner, done: JobHandle[Any]) -> None:
    """Only its fencing token is ahead: a worker reads checkpoints from the second claim on."""
    seen: list[int] = []

    def script() -> None:
        call(step, "x")
        seen.append(current_job().attempt)

    job = runner.enqueue(script)
    runner.attempt()
    fork(job.id, from_call="2")
    runner.attempt()
    assert seen == [1, 1]
    assert RAN == ["x"]


def test_without_a_call_it_begins_at_the_first(runner: Runner, done: JobHandle[Any]) -> None:
    new = fork(done.id)
    assert keys(new) == []
    runner.attempt()
    assert RAN == ["read 7", "write 7 a"]


@pytest.mark.parametrize(
    ("given", "ran"),
    [
        ({"args": (8,)}, "write 8 -"),
        ({"args": [8], "kwargs": {"note": "b"}}, "write 8 b"),
        ({"kwargs": {"order": 9}}, "write 9 -"),
    ],
)
def test_other_arguments_take_the_place_of_all_the_old_ones(
    runner: Runner, done: JobHandle[Any], given: dict[str, Any], ran: str
) -> None:
    fork(done.id, from_call="2", **given)
    runner.attempt()
    assert [ran] == RAN


def test_another_queue_gets_its_row(done: JobHandle[Any]) -> None:
    new = fork(done.id, queue="repairs")
    assert row(new).queue == "repairs"
    assert Queue.objects.filter(name="repairs").exists()


@pytest.mark.parametrize("status", sorted(Status))
def test_a_job_in_any_status_can_be_forked(status: Status) -> None:
    old = make_old(status, generation=2, tags=["red"], tenant="acme", unique_key="k")
    make_checkpoint(old, "1")
    make_checkpoint(old, "1", generation=1)
    new = row(fork(old, from_call="2"))
    assert (new.status, new.generation, new.tags) == ("pending", 0, ["red"])
    assert (new.tenant, new.unique_key) == ("acme", None)
    assert (keys(new), present(old).status) == (["1"], status)


def test_a_fork_takes_its_turn_in_the_sequence(runner: Runner) -> None:
    in_order = ordered.using(sequence_key="order 7")
    first, second = in_order.enqueue(7), in_order.enqueue(8)
    new = fork(first.id)
    assert [row(one).status for one in (first, second, new)] == ["pending", "waiting", "waiting"]
    assert row(new).sequence_key == "order 7"
    for _ in range(3):
        runner.attempt()
    assert RAN[-1] == "write 7 -"
    assert [row(one).status for one in (first, second, new)] == ["completed"] * 3
    assert row(fork(first.id)).status == "pending"


def test_what_an_unfinished_wait_has_fixed_stays_with_the_old_job() -> None:
    old = make_old("waiting")
    for key in ("1.0", "1", "2.0", "2.0.1", "2.1", "v:change"):
        make_checkpoint(old, key, kind="begun" if ".0" in key else "call")
    assert keys(fork(old, from_call="3")) == ["1", "1.0", "2.1", "v:change"]
    assert keys(fork(old, from_call="2.2")) == ["1", "1.0", "2.1", "v:change"]
    assert keys(fork(old, from_call="2")) == ["1", "1.0", "v:change"]


def test_nothing_that_compensations_have_undone_is_taken_over() -> None:
    old = make_old("failed")
    for key in ("1", "2", "c.0", "c.1"):
        make_checkpoint(old, key)
    with pytest.raises(TransitionRefused, match="have begun to undo"):
        fork(old, from_call="2")
    assert Job.objects.count() == 1
    assert keys(fork(old)) == []


@durable_job(name="tests.fork.undo")
def undo(what: str) -> None:
    RAN.append(f"undo {what}")


def test_what_undoes_the_calls_that_were_taken_over_stays_with_the_old_job(runner: Runner) -> None:
    goes_wrong = False

    def script() -> None:
        call(step, "flight")
        compensate(undo, "flight")
        call(step, "hotel")
        compensate(undo, "hotel")
        if goes_wrong:
            raise NoRetry("no")

    old = runner.enqueue(script)
    runner.attempt()
    goes_wrong = True
    new = fork(old.id, from_call="3")
    assert isinstance(runner.attempt(), Failed)
    assert RAN == ["flight", "hotel", "hotel", "undo hotel"]
    assert keys(new) == ["1", "2", "3", "4", "c.0", "c.1"]
    RAN.clear()
    last = fork(old.id, from_call="5")
    assert isinstance(runner.attempt(), Failed)
    assert (RAN, keys(last)) == ([], ["1", "2", "3", "4"])
    goes_wrong = False
    retry(last.id)
    assert isinstance(runner.attempt(), Completed)
    assert RAN == []


def test_a_fork_with_nothing_of_its_own_to_undo_is_cancelled_at_once(runner: Runner) -> None:
    def script() -> None:
        compensate(undo, "flight")

    old = runner.enqueue(script)
    runner.attempt()
    new = fork(old.id, from_call="2")
    assert cancel(new.id).cancelled == [new.id]


def test_messages_and_children_stay_with_the_old_job() -> None:
    old = make_old("running")
    make_checkpoint(old, "1")
    Message.objects.create(job=old, name="go", payload="1", consumed_key="1", consumed_at=DatabaseNow())
    child = make_job(parent=old, parent_call="children 0/1")
    new = fork(old)
    assert (row(new).messages.count(), old.messages.filter(consumed_key="1").count()) == (0, 1)
    assert (present(child).parent_id, present(child).status) == (old.id, "pending")


def test_inside_a_transaction_it_exists_when_that_commits(done: JobHandle[Any]) -> None:
    with transaction.atomic():
        new = fork(done.id, from_call="2")
        transaction.set_rollback(True)
    assert not Job.objects.filter(id=new.id).exists()
    assert keys(new) == []


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an unknown call": (
        {"from_call": "9"},
        OptionError,
        "made no call 9: it has made these: 1 tests.durable.test_fork",
    ),
    "no key": ({"from_call": "one"}, OptionError, "from_call must be the key of a call"),
    "too many arguments": ({"args": (1, 2)}, ArgumentError, "2 positional arguments"),
    "an argument of the wrong type": ({"args": ("seven",)}, ArgumentError, "parameter 'order' expects int"),
    "an unknown argument": ({"args": (1,), "kwargs": {"nite": "b"}}, ArgumentError, "did you mean 'note'"),
    "a missing argument": ({"args": ()}, ArgumentError, "missing: 'order'"),
    "an argument that cannot be stored": ({"args": (1,), "kwargs": {"note": "\0"}}, SerializationError, "NUL"),
    "args that are a text": ({"args": "7"}, ArgumentError, "args must be a tuple or list"),
    "args that are a number": ({"args": 7}, ArgumentError, "args must be a tuple or list"),
    "kwargs that are a list": ({"kwargs": [1]}, ArgumentError, "kwargs must be a dictionary"),
    "a queue that is none": ({"queue": "no queue"}, OptionError, "not a usable name"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_and_nothing_stored(done: JobHandle[Any], case: str) -> None:
    given, error, message = BAD[case]
    before = Job.objects.values().get(id=done.id)
    with pytest.raises(error, match=message):
        fork(done.id, **given)
    assert list(Job.objects.values()) == [before]
    assert Checkpoint.objects.count() == 2


def test_a_job_that_is_not_there_or_not_known_here_is_said_so() -> None:
    with pytest.raises(JobNotFound):
        fork(uuid4())
    with pytest.raises(JobNotFound):
        fork("17")
    with pytest.raises(UnknownDefinition):
        fork(make_job("failed", definition="tests.fork.gone"))


def test_stored_arguments_that_do_not_fit_any_more_are_refused() -> None:
    old = make_old("failed", payload='{"*":[1,2,3]}')
    with pytest.raises(ArgumentError, match="do not fit the function any more"):
        fork(old)
    assert Job.objects.count() == 1
    assert fork(old, args=(1,)).status == "pending"


def test_a_job_that_is_deleted_while_it_is_copied_leaves_no_half_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_old("failed")
    for number in range(1, 4):
        make_checkpoint(old, str(number))
    monkeypatch.setattr(generations, "BATCH", 2)
    real = generations._batches

    def batches(ids: Any) -> Any:
        for index, batch in enumerate(real(ids)):
            if index:
                Checkpoint.objects.filter(job=old, key="3").delete()
            yield batch

    monkeypatch.setattr(generations, "_batches", batches)
    with pytest.raises(JobNotFound, match="deleted while"):
        fork(old, from_call="4")
    assert Job.objects.count() == 1
