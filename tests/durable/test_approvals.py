"""Decisions of people: asked for once, given once, and only while somebody waits for them (F8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction

from django_durable_jobs import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalNotFound,
    Decision,
    JobEnded,
    JobHandle,
    OptionError,
    SerializationError,
    TimedOut,
    acall,
    approve,
    await_for_approval,
    call,
    cancel,
    pending_approvals,
    reject,
    sleep,
    wait_for_approval,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import DurableJobsError, NotInJob, OpenTransaction
from django_durable_jobs.models import Approval, Checkpoint, Job
from django_durable_jobs.outcomes import Completed, Failed, Parked
from django_durable_jobs.serialization import decode
from tests.durable.running import COMMITS, Runner, row, stored
from tests.transactions import rolled_back
from tests.waiting import together

pytestmark = COMMITS

HOUR = timedelta(hours=1)
GOT: list[Any] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    GOT.clear()


def note(what: Any) -> Any:
    GOT.append(what)
    return what


def asking() -> list[Any]:
    decision = wait_for_approval("Refund 30.00", {"order": 7}, timeout=HOUR)
    return [decision.approved, decision.by, decision.comment]


async def async_asking() -> list[Any]:
    decision = await await_for_approval("Refund 30.00", {"order": 7}, timeout=HOUR)
    return [decision.approved, decision.by, decision.comment]


def the_approval() -> Approval:
    return Approval.objects.get()


def ask(runner: Runner, script: Callable[..., Any] = asking) -> JobHandle[Any]:
    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Parked)
    return job


@pytest.mark.parametrize("script", [asking, async_asking])
def test_a_job_asks_and_waits_without_slot_or_attempt(runner: Runner, dialect: Dialect, script: Any) -> None:
    job = ask(runner, script)
    now = row(job)
    assert (now.status, now.waiting_for, now.attempt) == ("waiting", "approval 1 Refund 30.00", 0)
    asked = the_approval()
    assert (asked.job_id, asked.key, asked.title, asked.decision) == (job.id, "1", "Refund 30.00", None)
    assert decode(asked.details) == {"order": 7}
    assert asked.expires_at == now.run_at
    assert asked.requested_at <= dialect.now()
    assert list(pending_approvals()) == [asked]


@pytest.mark.parametrize("script", [asking, async_asking])
@pytest.mark.parametrize(("decide", "answer"), [(approve, True), (reject, False)])
def test_the_job_goes_on_with_the_decision(runner: Runner, script: Any, decide: Any, answer: bool) -> None:
    job = ask(runner, script)
    decide(the_approval(), by="ada", comment="as agreed\non the phone")
    assert (row(job).status, row(job).run_at) == ("pending", None)
    outcome = runner.attempt()
    assert isinstance(outcome, Completed)
    assert decode(outcome.result or "") == [answer, "ada", "as agreed\non the phone"]
    assert not pending_approvals().exists()


def test_i15_the_decision_is_the_same_in_a_replay(runner: Runner, dialect: Dialect) -> None:
    def script() -> None:
        note(wait_for_approval("Ship it"))
        sleep(HOUR)

    job = ask(runner, script)
    before = dialect.now()
    approve(the_approval().pk, by="bob")
    for _ in range(2):
        assert isinstance(runner.attempt(), Parked)
        runner.wake(job)
    first, second = GOT
    assert isinstance(first, Decision)
    assert first
    assert first == second
    assert before <= first.at <= dialect.now()
    assert first.at.tzinfo is not None
    assert not Decision(approved=False, by="", comment="", at=datetime(2030, 1, 1, tzinfo=UTC))


def test_a_replay_does_not_ask_again(runner: Runner) -> None:
    job = ask(runner)
    runner.wake(job)
    assert isinstance(runner.attempt(), Parked)
    assert Approval.objects.count() == 1
    assert stored(job) == [("1.0", "00")]  # "Refund 30.00" after its last dot


def test_x2_a_worker_that_dies_after_asking_has_asked_once(runner: Runner) -> None:
    runner.enqueue(asking)
    claimed = runner.claim()
    assert isinstance(runner.run(claimed), Parked)
    runner.lose(claimed)
    assert isinstance(runner.attempt(rescued=True), Parked)
    assert Approval.objects.count() == 1


def test_a_decision_between_the_look_and_the_park_is_not_lost(runner: Runner) -> None:
    job = runner.enqueue(asking)
    claimed = runner.claim()
    outcome = runner.run(claimed)
    approve(the_approval(), by="quick")
    runner.finish(claimed, outcome)
    assert row(job).status == "pending"
    assert runner.attempt() == Completed('[true,"quick",""]')


def test_branches_ask_each_for_itself(runner: Runner) -> None:
    async def branch(title: str) -> Any:
        return await acall(note, (await await_for_approval(title)).comment)

    async def script() -> list[Any]:
        return list(await asyncio.gather(acall(branch, "first"), acall(branch, "second")))

    job = ask(runner, script)
    assert row(job).waiting_for == "several"
    approve(Approval.objects.get(title="second"), comment="2")
    assert isinstance(runner.attempt(), Parked)
    assert GOT == ["2"]
    approve(Approval.objects.get(title="first"), comment="1")
    assert runner.attempt() == Completed('["1","2"]')


# Too late ---------------------------------------------------------------------------------------------------


def patient() -> Any:
    try:
        return wait_for_approval("Ship it", timeout=HOUR).approved
    except TimedOut as error:
        return call(note, str(error))


def test_when_the_time_is_over_the_job_goes_on_and_nobody_can_decide(runner: Runner, dialect: Dialect) -> None:
    job = ask(runner, patient)
    dialect.clock_offset += HOUR
    assert not pending_approvals().exists()
    with pytest.raises(ApprovalExpired, match=f"Approval {the_approval().pk} could be decided until 20"):
        approve(the_approval())
    runner.promote()
    outcome = runner.attempt()
    assert isinstance(outcome, Completed)
    assert "got no decision about 'Ship it' until" in (outcome.result or "")
    asked = the_approval()
    assert (asked.decision, asked.decided_by) == ("expired", "")
    assert row(job).status == "completed"


def test_a_question_that_was_taken_back_stays_so_whatever_the_clock_says(runner: Runner, dialect: Dialect) -> None:
    def script() -> Any:
        try:
            return wait_for_approval("Ship it", timeout=HOUR).approved
        except TimedOut:
            sleep(10 * HOUR)

    ask(runner, script)
    dialect.clock_offset += HOUR
    runner.promote()
    assert isinstance(runner.attempt(), Parked)
    dialect.clock_offset -= HOUR
    with pytest.raises(ApprovalExpired):
        reject(the_approval())
    assert the_approval().decision == "expired"


def test_a_decision_in_time_counts_although_the_job_looks_later(runner: Runner, dialect: Dialect) -> None:
    ask(runner, patient)
    approve(the_approval())
    dialect.clock_offset += 2 * HOUR
    assert runner.attempt() == Completed("true")


@pytest.mark.parametrize("first", [approve, reject])
def test_a_decision_is_never_changed(runner: Runner, first: Any) -> None:
    ask(runner)
    first(the_approval(), by="ada", comment="mine")
    before = Approval.objects.values().get()
    for second in (approve, reject):
        with pytest.raises(ApprovalDecided, match=rf"was {before['decision']} by ada at 20"):
            second(the_approval(), by="bob", comment="no, mine")
    assert Approval.objects.values().get() == before


def test_of_two_decisions_at_once_exactly_one_counts(runner: Runner) -> None:
    def decide(how: Callable[..., None], by: str) -> Callable[[], str | None]:
        def run() -> str | None:
            try:
                how(number, by=by)
            except ApprovalDecided:
                return None
            return by

        return run

    for _ in range(10):
        job = ask(runner)
        number = Approval.objects.latest("id").pk
        won = [by for by in together(decide(approve, "yes"), decide(reject, "no")) if by is not None]
        assert len(won) == 1
        assert Approval.objects.get(pk=number).decided_by == won[0]
        assert runner.attempt() == Completed(f'[{"true" if won == ["yes"] else "false"},"{won[0]}",""]')
        assert row(job).status == "completed"


def test_a_decision_is_part_of_the_transaction_that_is_open(runner: Runner) -> None:
    job = ask(runner)
    with rolled_back():
        approve(the_approval())
    assert (row(job).status, the_approval().decision) == ("waiting", None)
    with transaction.atomic():
        approve(the_approval())
    assert (row(job).status, the_approval().decision) == ("pending", "approved")


def test_a_question_of_a_job_that_has_ended_cannot_be_decided(runner: Runner) -> None:
    job = ask(runner)
    cancel(job.id)
    assert not pending_approvals().exists()
    with pytest.raises(JobEnded, match=f"Job {job.id} is cancelled: its approval"):
        approve(the_approval())
    assert the_approval().decision is None


def test_a_question_of_an_earlier_generation_cannot_be_decided(runner: Runner) -> None:
    job = ask(runner)
    Job.objects.filter(id=job.id).update(generation=1)
    assert not pending_approvals().exists()
    with pytest.raises(ApprovalExpired, match="was started anew"):
        approve(the_approval())


def test_a_question_whose_job_is_gone_is_not_found(runner: Runner) -> None:
    job = ask(runner)
    number = the_approval().pk
    Job.objects.filter(id=job.id)._raw_delete("default")
    with pytest.raises(ApprovalNotFound):
        approve(number)


@pytest.mark.parametrize("number", [0, -1, 12345, "12345", "nonsense", "", None, True, 2**80, "9" * 50, 1.0])
def test_an_unknown_approval_is_refused(number: Any) -> None:
    with pytest.raises(ApprovalNotFound, match="There is no approval"):
        approve(number)


def test_an_approval_is_given_by_number_or_text_too(runner: Runner) -> None:
    for given in (int, str):
        ask(runner)
        approve(given(Approval.objects.latest("id").pk))
        assert isinstance(runner.attempt(), Completed)


@pytest.mark.parametrize(
    "texts",
    [{"by": "b" * 201}, {"by": None}, {"by": 7}, {"comment": "c" * 10_001}, {"comment": None}, {"comment": "\0"}],
)
def test_texts_that_cannot_be_stored_are_refused(runner: Runner, texts: Any) -> None:
    ask(runner)
    with pytest.raises(DurableJobsError, match=next(iter(texts))):
        approve(the_approval(), **texts)
    assert the_approval().decision is None


def test_the_longest_texts_fit(runner: Runner) -> None:
    def script() -> Any:
        return wait_for_approval("ü" * 200).comment

    ask(runner, script)
    approve(the_approval(), by="ü" * 200, comment="ü" * 10_000)
    outcome = runner.attempt()
    assert isinstance(outcome, Completed)
    assert decode(outcome.result or "") == "ü" * 10_000


def test_the_list_is_of_one_job_when_asked(runner: Runner) -> None:
    first, second = ask(runner), ask(runner)
    assert [asked.job_id for asked in pending_approvals()] == [first.id, second.id]
    assert [asked.job_id for asked in pending_approvals(second)] == [second.id]
    assert [asked.job_id for asked in pending_approvals(str(first.id))] == [first.id]


# Misuse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["", "t" * 201, None, 7, "line\nbreak", "nul\0"])
def test_a_title_that_is_none_is_refused(runner: Runner, title: Any) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="needs a title"):
            wait_for_approval(title)

    runner.enqueue(script)
    assert runner.attempt() == Completed(None)
    assert not Approval.objects.exists()


@pytest.mark.parametrize("timeout", [-1, float("nan"), 0, "soon"])
def test_a_timeout_that_is_none_is_refused_and_nothing_stored(runner: Runner, timeout: Any) -> None:
    def script() -> None:
        with pytest.raises(OptionError, match="timeout"):
            wait_for_approval("Ship it", timeout=timeout)

    runner.enqueue(script)
    assert runner.attempt() == Completed(None)
    assert not Approval.objects.exists()
    assert not Checkpoint.objects.exists()


def test_details_that_cannot_be_stored_are_refused(runner: Runner) -> None:
    def script() -> None:
        wait_for_approval("Ship it", object())

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), Failed)
    assert str(row(job).last_error).startswith(SerializationError.__name__)
    assert "details of approval 'Ship it'" in str(row(job).last_error)
    assert not Approval.objects.exists()


def test_asking_outside_of_a_job_says_so() -> None:
    with pytest.raises(NotInJob, match=r"wait_for_approval\(\) works inside"):
        wait_for_approval("Ship it")


def test_x33_asking_inside_a_transaction_is_refused(runner: Runner) -> None:
    def script() -> None:
        with transaction.atomic():
            wait_for_approval("Ship it")

    job = runner.enqueue(script)
    runner.attempt()
    assert OpenTransaction.__name__ in str(row(job).last_error)
    assert not Approval.objects.exists()


def test_i19_another_title_than_the_recorded_one_stops_the_job(runner: Runner) -> None:
    titles = ["Pay", "Ship"]

    def script() -> Any:
        return wait_for_approval(titles.pop(0)).approved

    job = ask(runner, script)
    approve(the_approval())
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "NonDeterminism" in outcome.failure.error, job
