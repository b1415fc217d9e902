"""Log records and their jobs: fields, one line per record, nothing that a terminal obeys."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from django_durable_jobs.contrib.logging import FIELDS, JobFilter, JobFormatter, add_job_fields, job_fields
from django_durable_jobs.durable.context import JobContext
from django_durable_jobs.durable.frames import Frame, frames
from django_durable_jobs.durable.recorder import Recorder
from django_durable_jobs.operations.checkpoints import SteadySave
from django_durable_jobs.outcomes import Completed
from django_durable_jobs.worker.dispatcher import Dispatcher
from django_durable_jobs.worker.executor import Executor
from django_durable_jobs.worker.leases import Leases
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.rescuer import Rescuer
from django_durable_jobs.worker.worker import Worker
from tests.databases import child_environment, django_command
from tests.factories import LEASE, claim_one, make_abandoned_job, make_worker
from tests.surfaces import log_jobs

ESCAPES = "\x1b[2J\r\nINFO forged\u202e\u2028\x00"


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.addFilter(JobFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[list[logging.LogRecord]]:
    """Every record of this test that a handler at the root sees."""
    handler, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.records
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def hostile_job() -> Iterator[None]:
    """A running job whose row holds names that no decorator would accept."""
    row = SimpleNamespace(id=f"id{ESCAPES}", definition=f"x{ESCAPES}", attempt=2, queue="q" * 5000)
    context = cast("JobContext", SimpleNamespace(row=row, worker_name="w\x07"))
    token = frames.set(cast("Frame", SimpleNamespace(job=context, path="3.1")))
    yield
    frames.reset(token)


def record(message: str = "hello", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


def line_of(made: logging.LogRecord, **options: Any) -> str:
    assert JobFilter(**options).filter(made)
    return JobFormatter("%(levelname)s %(message)s").format(made)


def drain() -> None:
    Worker(WorkerOptions(name="log-worker", queues={"default": 4}, drain=True)).run()


@pytest.mark.django_db(transaction=True)
def test_every_record_of_a_job_says_which_job_it_is_about(kept: list[logging.LogRecord]) -> None:
    """B7: in the job's code, inside a durable call, and in the worker's own lines."""
    paid = log_jobs.pay.enqueue(7)
    failed = log_jobs.forge.enqueue("no")
    drain()

    def fields(text: str) -> dict[str, Any]:
        (found,) = [entry for entry in kept if entry.getMessage().startswith(text)]
        return {name: getattr(found, name) for name in FIELDS}

    common = {"attempt": 1, "queue": "default", "worker": "log-worker"}
    pay = {"job": str(paid.id), "definition": "tests.surfaces.log_jobs.pay", **common}
    assert fields("Paying 7") == {**pay, "call": ""}
    assert fields("Booking") == {**pay, "call": "1"}
    assert fields(f"Job {failed.id} failed") == {
        **common,
        "job": str(failed.id),
        "definition": "tests.surfaces.log_jobs.forge",
        "call": "",
    }
    started = fields("Worker log-worker serves")
    assert started == {"job": "", "definition": "", "attempt": "", "queue": "", "worker": "log-worker", "call": ""}


@pytest.mark.django_db(transaction=True)
def test_a_job_that_fails_with_its_worker_has_the_fields_in_the_line_of_another_worker(
    kept: list[logging.LogRecord],
) -> None:
    gone = make_worker(lease=timedelta(seconds=-5), name="gone")
    job = make_abandoned_job(worker=gone, attempt=3, queue="mail")
    Rescuer(WorkerOptions(name="finder"), lambda: None).run_once()
    (found,) = [entry for entry in kept if "no attempt is left" in entry.getMessage()]
    told = [getattr(found, name) for name in FIELDS]
    assert told == [str(job.id), "tests.jobs.noop", 3, "mail", "gone", ""]


@pytest.mark.django_db(transaction=True)
def test_an_ending_that_came_too_late_has_the_fields(kept: list[logging.LogRecord]) -> None:
    worker, options, leases = make_worker(), WorkerOptions(name="late", queues={"default": 1}), Leases()
    executor = Executor(leases, Recorder(SteadySave(LEASE)), "late")
    dispatcher = Dispatcher(options, worker.pk, leases, executor)
    job = claim_one(worker)
    dispatcher.ended(job._replace(token=0), Completed("1"))
    dispatcher.run_once()
    executor.close()
    (found,) = [entry for entry in kept if "nothing was stored" in entry.getMessage()]
    assert [getattr(found, name) for name in FIELDS] == [str(job.id), "tests.jobs.noop", 1, "default", "late", ""]


def test_outside_of_a_job_the_fields_are_empty() -> None:
    assert line_of(record()) == "INFO hello"
    assert line_of(record(), worker="host-1") == "INFO hello [worker=host-1]"
    assert job_fields() == {}
    assert add_job_fields(None, "info", {"event": "x"}) == {"event": "x"}


def test_a_field_that_the_record_brings_itself_stays(hostile_job: None) -> None:
    assert line_of(record(job="mine", queue=None)).startswith("INFO hello [job=mine definition=")
    assert add_job_fields(None, "info", {"event": "x", "job": "mine"})["job"] == "mine"


def test_a_filter_with_a_name_leaves_the_records_of_others_alone(hostile_job: None) -> None:
    made = record()
    assert JobFilter("another.logger").filter(made)
    assert not set(FIELDS) & set(made.__dict__)


def test_names_and_messages_cannot_add_a_line_or_move_a_cursor(hostile_job: None) -> None:
    """S27."""
    line = line_of(record(f"said {ESCAPES}"))
    assert line.isprintable()
    assert "\\x1b[2J\\r\\nINFO forged\\u202e\\u2028\\x00" in line
    assert "attempt=2" in line
    assert "worker=w\\x07" in line.replace('"', "").replace("\\\\", "\\")
    event = add_job_fields(None, "info", {})
    assert all(str(value).isprintable() for value in event.values())
    assert json.loads(json.dumps(event))["call"] == "3.1"


def test_a_field_cannot_pass_for_another_one() -> None:
    line = line_of(record(job='x" queue=other', definition="a b=c"))
    assert line == 'INFO hello [job="x\\" queue=other" definition="a b=c"]'


def test_long_names_and_messages_are_cut(hostile_job: None) -> None:
    """S27: a length limit."""
    assert len(job_fields()["queue"]) == 200
    assert len(line_of(record("y" * 1_000_000))) < 11_500


def test_a_traceback_is_indented_and_escaped_and_leaves_the_record_alone() -> None:
    made = record()
    with pytest.raises(ValueError, match="bad") as caught:
        log_jobs.forge(f"bad\nERROR forged {ESCAPES}")
    made.exc_info = (caught.type, caught.value, caught.tb)
    made.exc_text = "left here by another handler\nINFO forged"
    first, *rest = line_of(made).split("\n")
    assert first == "INFO hello"
    assert rest
    assert all(line.startswith("  ") for line in rest)
    assert all(line.replace("\t", "").isprintable() for line in rest)
    assert "ValueError: bad" in "\n".join(rest)
    assert "left here" not in "\n".join(rest)
    assert made.exc_text == "left here by another handler\nINFO forged"


def test_an_attribute_of_a_foreign_kind_is_printed_and_harmless() -> None:
    made = record(job=["not", "hashable"], worker=17)
    assert line_of(made) == "INFO hello [job=\"['not', 'hashable']\" worker=17]"
    assert made.__dict__["job"] == ["not", "hashable"]


def lines_of_worker(**environment: str) -> list[str]:
    """Run a worker until nothing is left, and return what it wrote to stderr."""
    done = subprocess.run(
        django_command("runjobs", "--queue", "default=1", "--drain", "--worker-id", "lines"),
        env=child_environment(DJANGO_SETTINGS_MODULE="tests.surfaces.log_settings", **environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert all(line.isprintable() for line in done.stderr.splitlines())
    return done.stderr.splitlines()


@pytest.mark.django_db(transaction=True)
def test_with_the_documented_settings_every_logger_tells_of_jobs() -> None:
    """B7: the LOGGING of docs/how-to/logging.md; a job's own loggers, in a thread and on the event loop."""
    paid, later = log_jobs.pay.enqueue(7), log_jobs.pay_later.enqueue(8)
    lines = lines_of_worker(DURABLE_JOBS_TEST_LOGGING="documented")

    def fields(text: str) -> str:
        (line,) = [line for line in lines if f" INFO {text} [" in line]
        return line.partition(f" INFO {text} ")[2]

    pay = f"job={paid.id} definition=tests.surfaces.log_jobs.pay attempt=1 queue=default worker=lines"
    assert fields("Paying 7") == f"[{pay}]"
    assert fields("Booking") == f"[{pay} call=1]"
    expected = f"[job={later.id} definition=tests.surfaces.log_jobs.pay_later attempt=1 queue=default worker=lines]"
    assert fields("Later 8") == fields("Later still 8") == expected
    assert fields("Worker lines serves default") == "[worker=lines]"


@pytest.mark.django_db(transaction=True)
def test_a_worker_without_logging_settings_writes_lines_with_fields() -> None:
    """B7, S27: what an operator sees on a fresh machine."""
    job = log_jobs.forge.enqueue("first\nINFO forged \x1b[2J")
    lines = lines_of_worker()
    assert not any(line.startswith("INFO") for line in lines)
    assert all(line.endswith("]") and "worker=lines" in line for line in lines), lines
    (failed,) = [line for line in lines if "failed" in line]
    assert "ValueError: first\\nINFO forged \\x1b[2J" in failed
    expected = f"[job={job.id} definition=tests.surfaces.log_jobs.forge attempt=1 queue=default worker=lines]"
    assert failed.endswith(expected)
