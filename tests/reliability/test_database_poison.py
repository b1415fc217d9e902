"""Rows that somebody edited by SQL (I29, X48): such a job ends with a reason, and no other one waits for it."""

from __future__ import annotations

import json

import pytest

from django_durable_jobs.models import Checkpoint, Job
from tests.factories import make_attempt, make_checkpoint, make_job, present
from tests.reliability.database_jobs import RAN, count, count_calls
from tests.reliability.outages import options, working
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = count.definition.name
PAYLOADS = {
    "not json": "{",
    "empty": "",
    "null": "null",
    "a number": "17",
    "a text": '"text"',
    "a list": "[]",
    "arguments that are none": '{"*": 5}',
    "unknown arguments": '{"nonsense": 1}',
    "too many arguments": '{"*": [1, 2, 3]}',
    "an unknown tag": '{"*": [{"$nonsense": 1}]}',
    "a tag without sense": '{"*": [{"$date": "the day before"}]}',
    "half a surrogate": '{"*": ["\\ud800"]}',
    "a number without end": '{"*": [1e999]}',
    "many digits": '{"*": [' + "9" * 5000 + "]}",
    "depth": '{"*": [' + "[" * 20_000 + "]" * 20_000 + "]}",
    "depth of objects": '{"*": [' + '{"a":' * 20_000 + "1" + "}" * 20_000 + "]}",
    "a million zeros": json.dumps({"*": ["0" * 1_000_000, 1]}),
}
OPTIONS = {
    "not json": "{",
    "null": "null",
    "a list": "[]",
    "an unknown option": '{"nonsense": 1}',
    "a wrong type": '{"call_retries": "many"}',
    "a wrong back-off": '{"backoff": {"kind": "nonsense"}}',
    "depth": "[" * 20_000 + "]" * 20_000,
}


def good_jobs_are_done(prefix: str) -> None:
    """Enqueue more jobs than the worker has slots and see all of them done."""
    count.enqueue_many([(f"{prefix} {number}",) for number in range(12)])
    good = Job.objects.filter(payload__contains=f'"{prefix} ')
    eventually(lambda: good.filter(status="completed").count() == 12, seconds=15)


@pytest.mark.parametrize("column", ["payload", "options", "definition", "result of a call", "error of a call"])
def test_i29_an_edited_row_fails_alone_and_says_why(column: str) -> None:
    RAN.clear()
    bad: list[Job] = []
    if column == "payload":
        bad = [make_job(definition=COUNT, payload=text, rank=-100) for text in PAYLOADS.values()]
    elif column == "options":
        bad = [make_job(definition=COUNT, options=text, payload='{"*": ["bad"]}') for text in OPTIONS.values()]
    elif column == "definition":
        bad = [make_job(definition=name) for name in ("os.system", "tests.jobs", "", "x" * 200, "a\nb\x1b[31m", "ü.ü")]
    else:
        for text in ("{", "", "null", '{"$nonsense": 1}', "[" * 20_000 + "]" * 20_000):
            job = make_job(definition=count_calls.definition.name, payload='{"*": ["bad", 2]}', token=1)
            which = "result" if column == "result of a call" else "error"
            make_checkpoint(job, "1", name=COUNT, **{"result": None, which: text})
            bad.append(job)
    with working(options(queues={"default": 3})) as running:
        good_jobs_are_done("beside")
        eventually(lambda: not Job.objects.filter(id__in=[job.id for job in bad], status="running").exists())
        good_jobs_are_done("after")
        assert not running.ended
    ended = [present(job) for job in bad]
    surprising = {job.status for job in ended} - {"failed", "retrying", "completed"}
    assert not surprising
    for job in ended:
        assert job.status == "completed" or job.last_error
    if column != "result of a call":
        assert {job.status for job in ended} == {"failed"}


def test_i29_rows_that_point_nowhere_stop_nobody() -> None:
    """Checkpoints and attempts of no job, a running job of a worker that never was."""
    ghost = make_job()
    make_checkpoint(ghost)
    make_attempt(ghost)
    Job.objects.filter(id=ghost.id)._raw_delete("default")
    orphan = make_job("running", worker_id=10**6)
    Job.objects.filter(id=orphan.id).update(lease_expires_at="2001-01-01T00:00:00Z")
    with working():
        good_jobs_are_done("beside")
        eventually(lambda: present(orphan).status != "running")
    assert Checkpoint.objects.count() == 1
