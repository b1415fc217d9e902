"""Recorded histories against the code of today (F11, X49): without a database, and nothing is run that they hold."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction

from django_durable_jobs import (
    ArgumentError,
    Determinism,
    HistoryUnreadable,
    JobNotFound,
    NonDeterminism,
    SerializationError,
    UnknownDefinition,
    acall,
    call,
    check_history,
    current_job,
    durable_job,
    export_history,
    sleep,
    wait_for_message,
)
from django_durable_jobs.durable.history import replay_history
from django_durable_jobs.errors import Parking
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations.history import history_text
from django_durable_jobs.outcomes import Completed, Parked
from tests.durable import recorded
from tests.durable.running import COMMITS, SCRIPTS, Runner
from tests.factories import make_checkpoint, make_job

HISTORIES = Path(__file__).parent / "histories"

GOES_ON = {
    "checkout": (6, 6),
    "checkout_asleep": (4, 4),
    "checkout_packing": (5, 5),
    "crawl": (4, 4),
    "crawl_asleep": (3, 3),
    "everything": (8, 8),
    "everything_waiting": (3, 3),
    "everything_before_patched": (7, 7),
    "aeverything": (7, 7),
    "aeverything_waiting": (3, 3),
}
"""Histories that today's code follows to their end: how many calls it makes, of how many."""

CHANGED: dict[str, tuple[type[Exception], str]] = {
    "inserted": (
        NonDeterminism,
        r"^Call 2 of job .* was recorded as 'tests.durable.recorded.notify', but .* calls '.*weigh' there \(.*:\d+\)\.",
    ),
    "swapped_inside": (
        NonDeterminism,
        r"^Call 1\.1 of job \S+ \(recorded\.swapped_inside\) was recorded as '.*\.weigh', but .*\.notify",
    ),
    "shorter": (
        NonDeterminism,
        r"without making those recorded after them: 2 'tests.durable.recorded.notify' \(.*\)\.",
    ),
    "other_argument": (ArgumentError, "do not fit the function any more: .*unexpected: 'order_id'"),
    "other_result": (SerializationError, r"^Call 1 \(tests.durable.recorded.find_address\): .*fit Address"),
    "other_children": (NonDeterminism, r"recorded as gather\(\) of 2 children .* now gathers 3 children"),
    "other_wait": (
        NonDeterminism,
        r"^Call 1 of .* recorded as 'paid', but the code now calls 'payed' there",
    ),
    "gone": (UnknownDefinition, "No durable job is registered as 'recorded.gone'"),
}


@pytest.fixture(autouse=True)
def _forget() -> None:
    recorded.RAN.clear()


def text_of(name: str) -> str:
    return (HISTORIES / f"{name}.json").read_text()


def document(calls: list[dict[str, Any]] | None = None, **job: Any) -> dict[str, Any]:
    """Return a history of a job that runs a script."""
    return {
        "format": "django-durable-jobs history",
        "version": 1,
        "job": {"id": str(uuid4()), "definition": "tests.durable.running.scripted", "payload": {"script": "s"}, **job},
        "calls": calls or [],
    }


def recorded_call(key: str, name: str = "recorded.notify", kind: str = "call", **more: Any) -> dict[str, Any]:
    given = more or {"result": None}
    return {"key": key, "name": name if kind != "call" else f"tests.durable.{name}", "kind": kind, **given}


# The histories that are kept ----------------------------------------------------------------------------------


def test_a_wait_that_had_begun_is_to_be_reached() -> None:
    @script
    def waits() -> None:
        call(recorded.notify, 1)
        wait_for_message("go", timeout=1)
        recorded.RAN.append("beyond")

    here, beyond = (recorded_call(key, "go", "begun", result=["message", None]) for key in ("2.0", "3.0"))
    assert replay_history(document([recorded_call("1"), here])).made == 2
    replayed = replay_history(document([recorded_call("1"), beyond]))
    assert (replayed.made, replayed.note) == (1, "3 not made any more")
    assert recorded.RAN == []


def test_children_of_a_wait_that_had_begun_are_compared() -> None:
    calls = json.loads(text_of("everything"))["calls"][:1]
    assert calls[0]["kind"] == "begun"
    check_history(document(calls, definition="recorded.everything", payload={"order": 7}))
    with pytest.raises(NonDeterminism, match="now gathers 3 children"):
        check_history(document(calls, definition="recorded.other_children", payload={"order": 7}))


def test_every_history_that_is_kept_is_tried() -> None:
    assert {file.stem for file in HISTORIES.iterdir()} == {*GOES_ON, *CHANGED}


@pytest.mark.parametrize("name", GOES_ON)
def test_x49_today_s_code_follows_what_was_recorded(name: str) -> None:
    """No database mark: a connection would be an error."""
    check_history(text_of(name))
    replayed = replay_history(text_of(name))
    assert (replayed.made, replayed.recorded, replayed.note) == (*GOES_ON[name], "")
    assert recorded.RAN == []


@pytest.mark.parametrize("name", CHANGED)
def test_x49_i19_what_changed_since_is_told(name: str) -> None:
    error, message = CHANGED[name]
    with pytest.raises(error, match=message):
        check_history(text_of(name))
    assert recorded.RAN == []


async def test_a_history_can_be_checked_where_an_event_loop_runs() -> None:
    check_history(text_of("checkout"))
    check_history(text_of("crawl"))


def test_many_histories_leave_no_threads_behind() -> None:
    before = threading.active_count()
    for _ in range(20):
        check_history(text_of("crawl"))
    for thread in threading.enumerate():
        if thread.name.startswith("durable-jobs"):
            thread.join(5)
    assert threading.active_count() <= before


# Export -------------------------------------------------------------------------------------------------------


@COMMITS
@pytest.mark.parametrize("status", ["waiting", "completed"])
def test_what_is_exported_is_what_is_recorded(runner: Runner, status: str, dialect: Any) -> None:
    job = recorded.checkout.enqueue(7)
    assert isinstance(runner.attempt(), Parked)
    if status == "completed":
        runner.wake(job)
        Checkpoint.objects.filter(kind="sleep").update(result='{"$datetime":"2001-01-01T00:00:00+00:00"}')
        assert isinstance(runner.attempt(), Completed)
    exported = export_history(job.id)
    assert (exported["job"]["id"], exported["job"]["status"]) == (str(job.id), status)
    assert [(one["key"], one["kind"]) for one in exported["calls"]] == list(
        Checkpoint.objects.order_by("id").values_list("key", "kind")
    )
    assert json.loads(history_text(exported)) == exported
    recorded.RAN.clear()
    check_history(history_text(exported))
    check_history(exported)
    assert recorded.RAN == []


@COMMITS
def test_pipelines_and_compensations_are_followed_too(runner: Runner, dialect: Any) -> None:
    runs = [recorded.nightly.enqueue(1), recorded.beside.enqueue(1), recorded.undoable.using(retries=0).enqueue(1)]
    checked = 0
    for _ in range(20):
        while Job.objects.filter(status="pending").exists():
            runner.attempt()
            ran = list(recorded.RAN)
            for run in runs:
                exported = export_history(run.id)
                replayed = replay_history(exported)
                assert replayed.note == ""
                checked += replayed.made == replayed.recorded > 0
            assert ran == recorded.RAN
        dialect.clock_offset += timedelta(minutes=2)
        runner.promote()
    assert [run.status for run in runs] == ["completed", "completed", "failed"]
    assert checked > 10
    assert recorded.RAN.count("unbook 1") == 1


@pytest.mark.django_db
def test_the_present_generation_is_exported() -> None:
    job = make_job("failed", generation=2)
    make_checkpoint(job, "1", generation=1, name="old")
    make_checkpoint(job, "1", name="new")
    exported = export_history(job)
    assert [one["name"] for one in exported["calls"]] == ["new"]


@pytest.mark.django_db
def test_values_come_through_unchanged() -> None:
    values = ["1.0", "-0.0", "1e22", "18446744073709551615", '{"$decimal":"1.10"}', '"ü\\u2028"', "null", "[]"]
    job = make_job("failed")
    for number, text in enumerate(values, 1):
        make_checkpoint(job, str(number), result=text)
    exported = json.loads(history_text(export_history(job)))
    assert [repr(one["result"]) for one in exported["calls"]] == [repr(json.loads(text)) for text in values]
    assert history_text(exported).isascii()


@pytest.mark.django_db
def test_what_cannot_be_exported_is_said_so() -> None:
    for wrong in (uuid4(), "17"):
        with pytest.raises(JobNotFound):
            export_history(wrong)
    job = make_job("failed")
    make_checkpoint(job, "3.1", result="{not json")
    with pytest.raises(SerializationError, match=r"result of call 3\.1 of the job cannot be exported"):
        export_history(job)


# What the code may do -----------------------------------------------------------------------------------------


def script(function: Callable[..., Any]) -> Callable[..., Any]:
    SCRIPTS["s"] = function
    return function


def notify(order: int) -> None:
    recorded.RAN.append("notify")


def test_code_beyond_the_last_recorded_call_is_not_run() -> None:
    @script
    def beyond() -> None:
        call(recorded.notify, 1)
        recorded.RAN.append("beyond")

    check_history(document([recorded_call("1")]))
    assert recorded.RAN == []


def test_a_job_of_which_nothing_is_recorded_is_not_run_at_all() -> None:
    @script
    def beyond() -> None:
        recorded.RAN.append("ran")

    assert replay_history(document()).recorded == 0
    assert replay_history(document([recorded_call("v:change", "change", "version")])).recorded == 0
    assert recorded.RAN == []


def test_code_that_swallows_the_end_is_ended_again() -> None:
    @script
    def swallows() -> None:
        for number in range(4):
            try:
                call(recorded.notify, number)
            except BaseException:  # noqa: BLE001 -- what careless code does
                recorded.RAN.append("swallowed")

    check_history(document([recorded_call("1"), recorded_call("2")]))
    assert recorded.RAN == ["swallowed"] * 3


def test_code_that_swallows_the_error_is_told_all_the_same() -> None:
    @script
    def swallows() -> None:
        try:
            call(recorded.reserve, 1)
        except Exception:  # noqa: BLE001 -- as above
            recorded.RAN.append("swallowed")

    with pytest.raises(NonDeterminism, match=r"but the code now calls 'tests\.durable\.recorded\.reserve'"):
        check_history(document([recorded_call("1")]))


def test_a_value_that_cannot_be_read_is_told_although_the_code_swallows_it() -> None:
    @script
    def swallows() -> None:
        try:
            call(recorded.charge, 1, Decimal(2))
        except Exception:  # noqa: BLE001 -- as above
            call(recorded.notify, 1)

    broken = recorded_call("1", "recorded.charge", result={"$dataclass": {"nummer": "R-1"}})
    with pytest.raises(SerializationError, match=r"Call 1 \(tests.durable.recorded.charge\)"):
        check_history(document([broken, recorded_call("2")]))


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3)])
def test_code_that_fails_before_its_recorded_calls_is_told(error: BaseException) -> None:
    @script
    def fails() -> None:
        call(recorded.notify, 1)
        raise error

    with pytest.raises(
        NonDeterminism, match=rf"raised {type(error).__name__}: .* before it made the recorded calls 2\."
    ):
        check_history(document([recorded_call("1"), recorded_call("2")]))


def test_a_recorded_error_is_raised_into_the_code() -> None:
    error = {"module": "builtins", "qualname": "ValueError", "message": "no", "args": [{"value": "no"}], "state": {}}

    @script
    def catches() -> None:
        with pytest.raises(ValueError, match="no"):
            call(recorded.reserve, 1)
        call(recorded.notify, 1)

    replayed = replay_history(document([recorded_call("1", "recorded.reserve", error=error), recorded_call("2")]))
    assert (replayed.made, replayed.note) == (2, "")


def test_calls_that_are_left_out_at_the_end_are_noted_or_told_by_the_mode() -> None:
    @script
    def shorter() -> None:
        call(recorded.notify, 1)

    calls = [recorded_call("1"), recorded_call("2"), recorded_call("3")]
    replayed = replay_history(document(calls))
    assert (replayed.made, replayed.recorded, replayed.note) == (1, 3, "2, 3 not made any more")
    with pytest.raises(NonDeterminism, match="without making those recorded after them: 2"):
        check_history(document(calls, options={"determinism": "strict"}))


@pytest.mark.parametrize("mode", list(Determinism))
def test_in_every_mode_another_call_is_told(mode: Determinism) -> None:
    @script
    def other() -> None:
        call(recorded.reserve, 1)

    with pytest.raises(NonDeterminism):
        check_history(document([recorded_call("1")], options={"determinism": mode.value}))
    assert recorded.RAN == []


def test_a_call_that_had_not_returned_is_followed_into_its_function() -> None:
    @script
    def outer() -> None:
        call(recorded.pack, ["a", "b", "c"])
        recorded.RAN.append("beyond")

    calls = [recorded_call(f"1.{number}", "recorded.weigh", result=1) for number in (1, 2)]
    assert replay_history(document(calls)).made == 2
    calls[1]["name"] = "tests.durable.recorded.reserve"
    with pytest.raises(NonDeterminism, match=r"Call 1\.2 "):
        check_history(document(calls))
    assert recorded.RAN == []


def test_a_failing_call_is_not_repeated_with_a_pause() -> None:
    error = {"module": "builtins", "qualname": "ValueError", "message": "no", "args": [], "state": {}}

    def middle() -> None:
        recorded.RAN.append("middle")
        call(recorded.notify, 1)

    middle.__qualname__ = "middle"

    @script
    def outer() -> None:
        call.using(retries=100)(middle)

    calls = [recorded_call("1.1", error=error), recorded_call("1.2")]
    replayed = replay_history(document(calls))
    assert recorded.RAN == ["middle"]
    assert (replayed.made, replayed.recorded) == (1, 2)


def test_a_recorded_sleep_is_over_and_an_unfinished_one_the_end() -> None:
    @script
    def sleeper() -> None:
        sleep(3600)
        call(recorded.notify, 1)
        recorded.RAN.append("beyond")

    moment = recorded_call("1", "sleep", "sleep", result={"$datetime": "2900-01-01T00:00:00+00:00"})
    check_history(document([moment]))
    assert replay_history(document([moment, recorded_call("2")])).made == 2
    with pytest.raises(NonDeterminism, match=r"recorded as 'sleep_until' \(sleep\)|recorded as 'sleep_until'"):
        check_history(document([{**moment, "name": "sleep_until"}]))
    assert recorded.RAN == []


def open_cursor() -> None:
    connections["default"].cursor()


def test_code_that_asks_the_database_is_followed_up_to_there() -> None:
    """The test has no database mark: nobody may connect."""
    for ask in (
        User.objects.count,
        open_cursor,
        lambda: transaction.atomic().__enter__(),
        lambda: recorded.checkout.enqueue(1),
    ):

        def asking(ask: Callable[[], Any] = ask) -> None:
            call(recorded.notify, 1)
            ask()
            recorded.RAN.append("beyond")

        script(asking)
        replayed = replay_history(document([recorded_call("1"), recorded_call("2"), recorded_call("3")]))
        assert (replayed.made, replayed.recorded) == (1, 3)
        assert replayed.note.startswith("not followed to 2, 3: the code asks the database between its calls (")
        assert f"{__file__}:" in replayed.note
        assert recorded.RAN == []


def test_an_error_before_that_is_found() -> None:
    @script
    def asking() -> None:
        call(recorded.reserve, 1)
        User.objects.count()

    with pytest.raises(NonDeterminism):
        check_history(document([recorded_call("1"), recorded_call("2")]))


@durable_job(name="tests.histories.asynchronous")
async def asynchronous() -> Any:
    return await SCRIPTS["s"]()


def async_document(*calls: dict[str, Any]) -> dict[str, Any]:
    return document(list(calls), definition="tests.histories.asynchronous", payload={})


def test_async_code_that_asks_the_database_is_followed_up_to_there() -> None:
    @script
    async def asking() -> None:
        await acall(recorded.notify, 1)
        await User.objects.acount()

    replayed = replay_history(async_document(recorded_call("1"), recorded_call("2")))
    assert replayed.made == 1
    assert "asks the database" in replayed.note


def test_branches_are_followed_when_another_one_has_come_to_its_end() -> None:
    async def unfinished() -> None:
        await acall(recorded.weigh, "a")
        await acall(recorded.notify, 1)

    async def changed() -> None:
        await asyncio.sleep(0)
        await acall(recorded.weigh, "b")
        await acall(recorded.weigh, "c")

    unfinished.__qualname__, changed.__qualname__ = "unfinished", "changed"

    @script
    async def branches() -> None:
        await asyncio.gather(acall(unfinished), acall(changed))

    first = recorded_call("1.1", "recorded.weigh", result=1)
    second = [recorded_call("2.1", "recorded.weigh", result=1), recorded_call("2.2")]
    with pytest.raises(NonDeterminism, match=r"Call 2\.2 .* now calls 'tests\.durable\.recorded\.weigh'"):
        check_history(async_document(first, *second))


def test_sync_code_of_an_async_job_runs_without_a_database_too() -> None:
    def middle() -> None:
        call(recorded.notify, 1)
        User.objects.count()

    middle.__qualname__ = "middle"

    @script
    async def outer() -> None:
        await acall(middle)

    replayed = replay_history(async_document(recorded_call("1.1"), recorded_call("1.2")))
    assert "asks the database" in replayed.note
    assert replayed.made == 1


def test_a_task_group_ends_as_any_code_does() -> None:
    @script
    async def grouped() -> None:
        await acall(recorded.notify, 1)
        try:
            raise BaseExceptionGroup("group", [BaseExceptionGroup("inner", [Parking("end of history")])])
        finally:
            recorded.RAN.append("ended")

    replayed = replay_history(async_document(recorded_call("1"), recorded_call("2")))
    assert replayed.note == "2 not made any more"


def test_the_code_knows_its_job() -> None:
    seen: list[Any] = []

    @script
    def looks() -> None:
        job = current_job()
        seen.extend([job.id, job.attempt, job.definition, job.queue, job.rehearses])
        call(recorded.notify, 1)

    given = document([recorded_call("1")], attempt=3, queue="slow")
    check_history(given)
    assert [str(seen[0]), *seen[1:]] == [given["job"]["id"], 3, "tests.durable.running.scripted", "slow", True]


# What is no history -------------------------------------------------------------------------------------------


GOOD = document([recorded_call("1")])


def damaged(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy = deepcopy(GOOD)
    change(copy)
    return copy


FOREIGN: dict[str, tuple[Any, str]] = {
    "empty": ("", "no JSON"),
    "not JSON": ("{", "no JSON"),
    "binary": (b"\x80\x00\xff", "no JSON"),
    "very deep": ("[" * 100_000, "no JSON"),
    "a list": ("[]", "not the recorded history of a job"),
    "another format": ('{"format": "else"}', "its format is not 'django-durable-jobs history'"),
    "a newer version": (damaged(lambda d: d.update(version=2)), "has the version 2; this release reads version 1"),
    "no job": (damaged(lambda d: d.pop("job")), "damaged: .*missing required field `job`"),
    "no calls": (damaged(lambda d: d.pop("calls")), "missing required field `calls`"),
    "an id that is none": (damaged(lambda d: d["job"].update(id="17")), r"Invalid UUID - at `\$.job.id`"),
    "a payload that is none": (damaged(lambda d: d["job"].update(payload=[1])), r"at `\$.job.payload`"),
    "a call without a name": (damaged(lambda d: d["calls"][0].pop("name")), "missing required field `name`"),
    "a call without a result": (damaged(lambda d: d["calls"][0].pop("result")), "call 1 must have either"),
    "a call with both": (damaged(lambda d: d["calls"][0].update(error={})), "call 1 must have either"),
    "a call twice": (damaged(lambda d: d["calls"].append(d["calls"][0])), "two of its calls have the same key"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_history_is_said_so(case: str) -> None:
    given, message = FOREIGN[case]
    with pytest.raises(HistoryUnreadable, match=message):
        check_history(given)


def test_options_and_arguments_that_cannot_be_read_are_told() -> None:
    with pytest.raises(SerializationError, match="stored options of the job cannot be read"):
        check_history(document([recorded_call("1")], options={"determinism": "lax"}))
    with pytest.raises(SerializationError, match="cannot be read"):
        check_history(document([recorded_call("1")], payload={"script": {"$unknown": 1}}))


def test_odd_keys_are_passed_over() -> None:
    @script
    def one() -> None:
        call(recorded.notify, 1)

    odd = [recorded_call(key) for key in ("c.0", "c.1", "v:change", "x", "1.0", "٣", "1..2", "")]
    assert replay_history(document([recorded_call("1"), *odd])).recorded == 1


@pytest.mark.django_db
def test_checking_stores_nothing() -> None:
    check_history(text_of("checkout"))
    assert not Job.objects.exists()
