"""Running a job again from one of its calls (F9, I13): what the new generation takes over, and what is given back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction

from django_durable_jobs import JobNotFound, OptionError, TransitionRefused, call, retry
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.models import Approval, Checkpoint, Job, Message, NamedValue
from django_durable_jobs.outcomes import Completed, Failed
from django_durable_jobs.states import TRANSITIONS, Status
from tests.durable.running import COMMITS, Runner, row
from tests.factories import make_checkpoint, make_job, present
from tests.waiting import together

pytestmark = COMMITS

RAN: list[str] = []
FAIL: set[str] = set()


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    FAIL.clear()


def step(name: str) -> str:
    RAN.append(name)
    if name in FAIL:
        raise ValueError(name)
    return f"{name} {RAN.count(name)}"


def inner() -> list[str]:
    return [call(step, "3.1"), call(inmost), call(step, "3.3")]


def inmost() -> str:
    return call(step, "3.2.1") + call(step, "3.2.2")


def script() -> list[Any]:
    done = [call(step, "1"), call(step, "2"), call(inner), call(step, "4")]
    if "end" in FAIL:
        raise ValueError("end")
    return done


def failed_job(runner: Runner) -> JobHandle[Any]:
    """Run a job that fails after its last call."""
    FAIL.add("end")
    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    RAN.clear()
    FAIL.clear()
    return job


def keys(job: JobHandle[Any] | Job, generation: int) -> list[str]:
    return sorted(Checkpoint.objects.filter(job_id=job.id, generation=generation).values_list("key", flat=True))


ALL = ["1", "2", "3", "3.1", "3.2", "3.2.1", "3.2.2", "3.3", "4"]


@pytest.mark.parametrize(
    ("from_call", "kept", "ran"),
    [
        ("1", [], ["1", "2", "3.1", "3.2.1", "3.2.2", "3.3", "4"]),
        (2, ["1"], ["2", "3.1", "3.2.1", "3.2.2", "3.3", "4"]),
        ("3", ["1", "2"], ["3.1", "3.2.1", "3.2.2", "3.3", "4"]),
        ("3.1", ["1", "2"], ["3.1", "3.2.1", "3.2.2", "3.3", "4"]),
        ("3.2", ["1", "2", "3.1"], ["3.2.1", "3.2.2", "3.3", "4"]),
        ("3.2.2", ["1", "2", "3.1", "3.2.1"], ["3.2.2", "3.3", "4"]),
        ("3.3", ["1", "2", "3.1", "3.2", "3.2.1", "3.2.2"], ["3.3", "4"]),
        ("4", ["1", "2", "3", "3.1", "3.2", "3.2.1", "3.2.2", "3.3"], ["4"]),
        ("5", ALL, []),
    ],
)
def test_i13_the_calls_before_are_taken_over_and_the_others_run_again(
    runner: Runner, from_call: str | int, kept: list[str], ran: list[str]
) -> None:
    job = failed_job(runner)
    old = list(Checkpoint.objects.order_by("id").values())
    retry(job.id, from_call=from_call)
    now = row(job)
    assert (now.status, now.generation, now.max_attempts) == ("pending", 1, 2)
    assert keys(job, 1) == kept
    assert isinstance(runner.attempt(), Completed)
    assert ran == RAN
    assert list(Checkpoint.objects.filter(generation=0).order_by("id").values()) == old
    assert keys(job, 1) == ALL


def test_what_is_taken_over_is_equal_to_the_last_byte(runner: Runner) -> None:
    job = failed_job(runner)
    retry(job.id, from_call="4")
    columns = ("key", "name", "kind", "result", "error", "created_at")
    taken = {"1", "2", "3", "3.1", "3.2", "3.2.1", "3.2.2", "3.3"}
    rows = Checkpoint.objects.filter(key__in=taken).order_by("id")
    assert list(rows.filter(generation=1).values(*columns)) == list(rows.filter(generation=0).values(*columns))


def test_a_second_retry_from_a_call_begins_where_the_first_one_came_to(runner: Runner) -> None:
    job = failed_job(runner)
    retry(job.id, from_call="4")
    FAIL.add("end")
    assert isinstance(runner.attempt(), Failed)
    RAN.clear()
    FAIL.clear()
    retry(job.id, from_call="2")
    assert runner.attempt() == Completed('["1 1","2 1",["3.1 1","3.2.1 13.2.2 1","3.3 1"],"4 1"]')
    assert row(job).generation == 2
    assert RAN[0] == "2"


def test_a_plain_retry_afterwards_stays_in_the_generation(runner: Runner) -> None:
    job = failed_job(runner)
    retry(job.id, from_call="4")
    FAIL.add("end")
    assert isinstance(runner.attempt(), Failed)
    FAIL.clear()
    RAN.clear()
    retry(job.id)
    assert isinstance(runner.attempt(), Completed)
    assert RAN == []
    assert row(job).generation == 1


@pytest.mark.parametrize("status", sorted(TRANSITIONS["retry"].sources))
def test_every_status_that_can_be_retried_can_be_from_a_call(status: Status) -> None:
    job = make_job(status, generation=3)
    make_checkpoint(job, "1")
    make_checkpoint(job, "2")
    retry(job, from_call="2")
    assert (present(job).status, present(job).generation) == ("pending", 4)
    assert keys(job, 4) == ["1"]


@pytest.mark.parametrize("status", sorted(set(Status) - TRANSITIONS["retry"].sources))
def test_in_other_statuses_nothing_changes(status: Status) -> None:
    job = make_job(status)
    make_checkpoint(job, "1")
    before = Job.objects.values().get(id=job.id)
    with pytest.raises(TransitionRefused, match=r"fork\(\) makes a new job"):
        retry(job.id, from_call="1")
    assert Job.objects.values().get(id=job.id) == before
    assert Checkpoint.objects.count() == 1


def test_a_job_that_does_not_exist_is_said_so() -> None:
    with pytest.raises(JobNotFound):
        retry(uuid4(), from_call="1")


@pytest.mark.parametrize("wrong", ["9", "6", "3.5", "3.2.4", "1.1", "1.1.1", 17])
def test_a_call_that_was_never_come_to_is_refused_and_the_known_ones_listed(runner: Runner, wrong: Any) -> None:
    job = failed_job(runner)
    before = Job.objects.values().get(id=job.id)
    with pytest.raises(OptionError) as caught:
        retry(job.id, from_call=wrong)
    message = str(caught.value)
    assert f"made no call {wrong}: it has made these: 1 tests.durable.test_retry_from_call.step, 2 " in message
    assert "3.2.1 tests.durable.test_retry_from_call.step" in message
    assert Job.objects.values().get(id=job.id) == before
    assert keys(job, 1) == []


@pytest.mark.parametrize(
    "wrong",
    ["", "0", "3.0", "03", "3.", ".3", "-1", "1,2", " 3", "v:x", "c.1", "٣", True, 3.1, [], "9" * 5000, 10**5000],
    ids=lambda value: ascii(value)[:8] if not isinstance(value, int) else type(value).__name__,
)
def test_what_is_no_key_of_a_call_is_refused(runner: Runner, wrong: Any) -> None:
    job = failed_job(runner)
    with pytest.raises(OptionError, match="from_call must be the key of a call"):
        retry(job.id, from_call=wrong)
    assert keys(job, 1) == []


def test_of_many_calls_some_are_listed() -> None:
    job = make_job("failed")
    Checkpoint.objects.bulk_create(
        Checkpoint(job=job, key=str(number), name="n", result="1") for number in range(1, 251)
    )
    with pytest.raises(OptionError, match=r"1 n, 2 n, .* 20 n and 230 more\."):
        retry(job, from_call="999")
    retry(job, from_call="250")
    assert len(keys(job, 1)) == 249


def test_of_a_job_without_calls_only_the_first_is_known() -> None:
    job = make_job("failed")
    with pytest.raises(OptionError, match="it has recorded none"):
        retry(job, from_call="2")
    retry(job, from_call="1")
    assert present(job).generation == 1


def test_a_call_that_failed_is_known_although_nothing_is_stored_of_it(runner: Runner) -> None:
    FAIL.add("3.3")
    job = runner.enqueue(script, retries=0, call_retries=0)
    assert isinstance(runner.attempt(), Failed)
    for known in ("3", "3.3"):
        with transaction.atomic():
            retry(job.id, from_call=known)
            transaction.set_rollback(True)
    assert (row(job).status, row(job).generation) == ("failed", 0)


def test_inside_a_transaction_that_rolls_back_nothing_has_happened(runner: Runner) -> None:
    job = failed_job(runner)
    with transaction.atomic():
        retry(job.id, from_call="2")
        transaction.set_rollback(True)
    assert (row(job).status, row(job).generation) == ("failed", 0)
    assert keys(job, 1) == []


# What else belongs to a call ----------------------------------------------------------------------------------


def with_calls(*calls: str) -> Job:
    job = make_job("failed")
    for key in calls:
        make_checkpoint(job, key)
    return job


def test_version_markers_stay_but_not_for_a_beginning_from_the_first_call() -> None:
    job = with_calls("1", "2", "v:change")
    retry(job, from_call="2")
    assert keys(job, 1) == ["1", "v:change"]
    Job.objects.filter(id=job.id).update(status="failed", finished_at=DatabaseNow())
    retry(job, from_call="1")
    assert keys(job, 2) == []


def test_nothing_that_compensations_have_undone_is_taken_over() -> None:
    job = with_calls("1", "2", "c.0", "c.1")
    with pytest.raises(TransitionRefused, match="have begun to undo"):
        retry(job, from_call="2")
    assert present(job).status == "failed"
    retry(job, from_call="1")
    assert keys(job, 1) == []


def test_compensations_that_have_not_all_run_are_not_left_behind() -> None:
    job = with_calls("1", "2", "c.0", "c.2")
    with pytest.raises(TransitionRefused, match="have not all run: retry it without naming a call"):
        retry(job, from_call="1")
    assert (present(job).status, present(job).generation) == ("failed", 0)


def test_the_beginning_of_a_call_stays_where_only_a_call_inside_it_runs_again() -> None:
    job = with_calls("1", "2.0", "2.0.1", "2.1", "2.2", "2.2.0", "2.3", "2", "3.0")
    retry(job, from_call="2.2")
    assert keys(job, 1) == ["1", "2.0", "2.0.1", "2.1"]


def test_beginnings_of_waits_are_not_listed_as_calls() -> None:
    job = with_calls("1", "2.0", "2.0.1")
    with pytest.raises(OptionError, match=r"made these: 1 tests\.jobs\.add, 2\.$"):
        retry(job, from_call="9")


def test_named_values_stay() -> None:
    job = with_calls("1")
    NamedValue.objects.create(job=job, name="position", value="7")
    retry(job, from_call="1")
    assert job.named_values.count() == 1


def test_messages_of_calls_that_run_again_can_be_received_again() -> None:
    job, other = with_calls("1", "2", "3", "3.1"), with_calls("2")
    for key in ("1", "2", "3.1", "3"):
        Message.objects.create(job=job, name="go", payload="1", consumed_key=key, consumed_at=DatabaseNow())
    Message.objects.create(job=job, name="go", payload="1")
    Message.objects.create(job=other, name="go", payload="1", consumed_key="2", consumed_at=DatabaseNow())
    retry(job, from_call="2")
    consumed = Message.objects.filter(consumed_at__isnull=False).values_list("job", "consumed_key")
    assert sorted(consumed) == sorted([(job.id, "1"), (other.id, "2")])
    assert job.messages.filter(consumed_at=None, consumed_key=None).count() == 4


def test_children_that_nobody_waits_for_any_more_are_cancelled_with_all_below_them() -> None:
    job = with_calls("1", "2.0")
    kept = make_job(parent=job, parent_call="children 0/1")
    child = make_job("running", parent=job, parent_call="children! 0/2")
    waiting = make_job("waiting", parent=job, parent_call="children 0/2")
    below = make_job(parent=waiting, parent_call="children 0/1")
    done = make_job("completed", parent=job, parent_call="children 0/2")
    mine = make_job(parent=job)
    retry(job, from_call="2")
    assert present(child).cancel_requested_at is not None
    statuses = [present(one).status for one in (kept, child, waiting, below, done, mine)]
    assert statuses == ["pending", "running", "cancelled", "cancelled", "completed", "pending"]


def test_children_of_a_wait_that_goes_on_are_left_alone() -> None:
    job = with_calls("1", "2.0", "3")
    child = make_job(parent=job, parent_call="children 0/2")
    retry(job, from_call="3")
    assert present(child).status == "pending"


def test_questions_of_waits_that_go_on_are_taken_along_and_the_others_stay_behind() -> None:
    job = with_calls("1.0", "1", "2.0", "3.0")
    for key in ("1", "2", "3"):
        Approval.objects.create(job=job, key=key, title=key)
    retry(job, from_call="3")
    assert list(job.approvals.order_by("title").values_list("title", "generation")) == [("1", 0), ("2", 1), ("3", 0)]


def test_i13_of_two_retries_from_a_call_at_once_one_begins_a_generation() -> None:
    """The second one finds a job that is pending."""
    job = with_calls(*(str(number) for number in range(1, 201)))

    def order() -> str:
        try:
            retry(job.id, from_call="150")
        except TransitionRefused:
            return "refused"
        return "retried"

    assert sorted(together(order, order)) == ["refused", "retried"]
    assert present(job).generation == 1
    assert len(keys(job, 1)) == 149


def test_a_retrying_job_need_not_wait_for_its_time() -> None:
    job = make_job("retrying", run_at=DatabaseNow() + timedelta(days=1))
    make_checkpoint(job, "1")
    retry(job, from_call="1")
    assert (present(job).status, present(job).run_at) == ("pending", None)
