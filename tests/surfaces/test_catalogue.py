"""Orders by the catalogue: what they may say, and what is written down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import OptionError
from django_durable_jobs.models import AuditEntry
from django_durable_jobs.operations.catalogue import VERBS, carry_out, verb_of
from django_durable_jobs.operations.prune import prune_audit
from tests.factories import make_job, present

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "said", [{"comment": "no"}, {"resume_at": "2030-01-01T00:00:00+00:00"}, {"by": "x"}, {"": "x"}, {"mode": "gentle"}]
)
def test_what_an_order_cannot_say_is_refused_before_anything_is_written(said: dict[str, Any]) -> None:
    job = make_job("pending")
    with pytest.raises(OptionError):
        carry_out(verb_of("job", "pause"), job.id, said, by="ada", surface="python")
    assert present(job).status == "pending"
    assert not AuditEntry.objects.exists()


def test_nothing_said_is_nothing_written() -> None:
    job = make_job("pending")
    carry_out(verb_of("job", "pause"), job.id, {"reason": "", "mode": None}, by="", surface="python")
    assert AuditEntry.objects.get().given == {}


def test_an_unknown_order_names_those_that_there_are() -> None:
    with pytest.raises(OptionError, match="There are: pause, resume, retry, requeue, cancel, "):
        verb_of("job", "explode")
    with pytest.raises(OptionError, match="There are: none"):
        verb_of("universe", "pause")


def test_the_audit_is_kept_for_its_time(dialect: Dialect, settings: Any) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "RETENTION_AUDIT": timedelta(days=30)}
    carry_out(VERBS[0], make_job("pending").id, {}, by="ada", surface="python")
    dialect.clock_offset += timedelta(days=29)
    carry_out(VERBS[0], make_job("pending").id, {}, by="bob", surface="python")
    assert prune_audit() == 0
    dialect.clock_offset += timedelta(days=2)
    AuditEntry.objects.filter(by="bob").update(ordered_at=dialect.now())
    assert prune_audit() == 1
    assert [entry.by for entry in AuditEntry.objects.all()] == ["bob"]
