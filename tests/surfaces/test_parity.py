"""Every order of the catalogue through every surface: the same change, the same audit, the same words when refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import Model

from django_durable_jobs.errors import DurableJobsError
from django_durable_jobs.management.ordering import ASKED, FLAGS, word_of
from django_durable_jobs.models import Approval, AuditEntry, Job, Limit, Queue, Worker
from django_durable_jobs.operations.catalogue import VERBS, Verb, carry_out
from django_durable_jobs.operations.queues import live_counts
from tests.factories import make_job, make_worker
from tests.surfaces.admin_pages import ADMIN
from tests.surfaces.people import staff

pytestmark = pytest.mark.django_db

PLURAL = {"job": "jobs", "queue": "queues", "worker": "workers", "approval": "approvals"}
MODELS: dict[str, type[Model]] = {"job": Job, "queue": Queue, "worker": Worker, "approval": Approval}
NUMBERS = count(1)
PASSING = {"created_at", "paused_at", "decided_at", "requested_at", "cancel_requested_at", "finished_at", "seen_at"} | {
    "stop_requested_at"
}
"""Columns that hold when something was done."""
SAID = {"reason": "because", "comment": "because", "queue": "other", "priority": "high"} | {
    "force": "true",
    "concurrency": "3",
    "rate": "100",
    "per": "60",
    "burst": "5",
}
REFUSED = {
    "limit queue": {"burst": "101"},  # of a rate of 100
    "drain queue": {"wait": "0"},
    "move queue": {"queue": "no-such"},
    "delete queue": {"force": ""},  # there is a job in it
}
"""What is said instead, so that the operation refuses."""
NEVER_REFUSED = {"clear queue"}
"""Orders that are refused only for what they cannot say, or a queue that there is not."""
READ = {"priority": 50, "concurrency": 3, "rate": 100, "per": 60, "fair": True, "force": True}
"""How some of it is understood."""
OWN = {"id", "name", "job", "pid", "key", "lease_expires_at", "started_at", "by", "paused_by", "decided_by", "worker"}
"""Columns that tell one row from the next, or who ordered it."""

Door = Callable[[Verb, Any, dict[str, str]], str]
"""Gives an order through a surface, and returns the words of a refusal."""


def by_python(verb: Verb, row: Any, said: dict[str, str]) -> str:
    try:
        carry_out(verb, key_of(verb, row), said, by="ada", surface="python")
    except DurableJobsError as refusal:
        return str(refusal)
    return ""


def by_admin(verb: Verb, row: Any, said: dict[str, str]) -> str:
    form = {"action": verb.name, "index": "0", "_selected_action": [str(row.pk)], "confirmed": "yes"}
    given = {f"given_{name}": value for name, value in said.items()}
    client = staff(f"view_{verb.target}", verb.permission)
    response: Any = client.post(f"{ADMIN}{verb.target}/", {**form, **given}, follow=True)
    (told,) = map(str, response.context["messages"])
    refused = re.fullmatch(r"1 \w+ was refused: (.*)", told)
    return refused[1] if refused else ""


def by_api(verb: Verb, row: Any, said: dict[str, str]) -> str:
    address = f"/jobs/v1/{PLURAL[verb.target]}/{key_of(verb, row)}/{verb.name}"
    response = staff(verb.permission).post(address, json.dumps(said), content_type="application/json")
    return "" if response.status_code == 200 else str(response.json()["error"])


def by_command(verb: Verb, row: Any, said: dict[str, str]) -> str:
    words = [(f"--{name.replace('_', '-')}", *([] if name in FLAGS else [value])) for name, value in said.items()]
    options = [word for option in words for word in option]
    options += ["--yes"] if verb.name in ASKED else []
    try:
        call_command("jobs", word_of(verb), str(key_of(verb, row)), *options, stdout=io.StringIO())
    except CommandError as refusal:
        return str(refusal)
    return ""


DOORS: dict[str, Door] = {"python": by_python, "admin": by_admin, "api": by_api, "command": by_command}


def key_of(verb: Verb, row: Any) -> Any:
    return row.name if verb.target in {"queue", "worker"} else row.pk


def make(verb: Verb, *, allowed: bool) -> Any:
    """Store what an order can be given to, or what refuses it."""
    paused = verb.name == "resume" if allowed else verb.name == "pause"
    match verb.target:
        case "job":
            fits = min(verb.statuses) if allowed else "running" if verb.name == "delete" else "completed"
            return make_job(fits)
        case "queue":
            row: Any = Queue.objects.create(name=f"mail-{next(NUMBERS)}")
            if verb.name in {"clear", "move"} or (name_of(verb) == "delete queue" and not allowed):
                make_job("pending", queue=row.name)
        case "worker":
            row = make_worker()
        case _:
            waiting = make_job("waiting" if allowed else "cancelled", waiting_for="approval 1 Ship")
            return Approval.objects.create(job=waiting, key="1", title="Ship")
    if verb.name == "stop" and not allowed:
        carry_out(verb, row.name, {}, by="bob", surface="python")
    if verb.name == "unlimit" and allowed:
        limit = next(one for one in VERBS if one.name == "limit")
        carry_out(limit, row.name, {"concurrency": 3}, by="bob", surface="python")
    if paused:
        carry_out(next(one for one in VERBS if (one.target, one.name) == (verb.target, "pause")), row.name, {},
                  by="bob", surface="python")  # fmt: skip
    return row


def comparable(verb: Verb, row: Any) -> dict[str, Any] | None:
    """Return a row as it is now, apart from what is its own and when things were done."""
    found = MODELS[verb.target]._default_manager.filter(pk=row.pk).values().first()
    if found is None:
        return None
    if verb.target == "queue":
        columns = ("concurrency", "rate", "per", "burst", "fair", "reason")
        found["live"] = live_counts([row.name])[row.name]
        found["limit"] = Limit.objects.filter(key=f"queue {row.name}").values(*columns).first()
    same = {name: value for name, value in found.items() if name not in OWN and name.removesuffix("_id") not in OWN}
    if found.get("last_error"):
        same["last_error"] = re.sub(r"by [\w-]+", "by somebody", found["last_error"])
    return {name: value is not None if name in PASSING else value for name, value in same.items()}


def audit_of(surface: str) -> dict[str, Any]:
    (entry,) = AuditEntry.objects.filter(surface=surface).exclude(by="bob").values()
    assert entry["by"]
    return {name: entry[name] for name in ("target", "verb", "given", "outcome")}


def name_of(verb: Verb) -> str:
    return f"{verb.name} {verb.target}"


CASES = [(verb, True) for verb in VERBS] + [(verb, False) for verb in VERBS if name_of(verb) not in NEVER_REFUSED]


@pytest.mark.parametrize(
    ("verb", "allowed"), CASES, ids=[f"{name_of(verb)}-{'done' if allowed else 'refused'}" for verb, allowed in CASES]
)
def test_every_surface_does_the_same_and_says_the_same(verb: Verb, allowed: bool) -> None:
    said = {name: SAID[name] for name in verb.takes if name in SAID}
    if not allowed:
        said |= REFUSED.get(name_of(verb), {})
        said = {name: value for name, value in said.items() if value}
    Queue.objects.create(name="other")
    seen: dict[str, Any] = {}
    for surface, door in DOORS.items():
        row = make(verb, allowed=allowed)
        own = [str(key_of(verb, row)), str(getattr(row, "job_id", ""))]
        before = comparable(verb, row)
        words = door(verb, row, said)
        assert (words == "") is allowed, words
        for one in sorted(filter(None, own), key=len, reverse=True):
            words = words.replace(one, "…")
        after = comparable(verb, row)
        assert (after != before) is allowed
        seen[surface] = after, audit_of(surface), re.sub(r"since [\d: -]+ UTC|Known queues: .*", "…", words)
    first = seen["python"]
    assert first[1]["outcome"] == ("done" if allowed else "refused")
    assert first[1]["given"] == {
        name: int(value) if name in {"burst", "wait"} else READ.get(name, value) for name, value in said.items()
    }
    for surface, found in seen.items():
        assert found == first, surface


def test_no_order_is_missing_on_a_surface_or_named_twice() -> None:
    assert len({(verb.target, verb.name) for verb in VERBS}) == len(VERBS)
    assert len({word_of(verb) for verb in VERBS}) == len(VERBS)
