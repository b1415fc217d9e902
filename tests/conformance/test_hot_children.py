"""Looking after a large family reads a few rows of it, on every database, whatever the planner believes (P15).

The end of each child asks whether it was the last one. Were that a count, or a look that passes over the siblings
that have ended, a family of n children would cost n times n.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from django_durable_jobs.ids import lowest_id_at
from django_durable_jobs.models import Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.wake import any_open, wake_forgotten, wake_waiting
from django_durable_jobs.outcomes import Completed, Failed, Failure
from tests.conformance.work import analyze, counted_work, insert_jobs, plans_without_values
from tests.factories import claim_of, make_job, make_worker, present

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

SIZE: Final = 20_000
FEW: Final = 1000
LAST: Final = 20
"""Children that are still open."""

STATISTICS: Final[dict[str, Callable[[], AbstractContextManager[None]]]] = {
    "of an empty table": nullcontext,
    "from when all were pending": nullcontext,
    "fresh": nullcontext,
    "fresh, parameters unknown": plans_without_values,
}
"""What the planner knows about the family, in the order of its life."""


class Family:
    """A parent that waits, and its children: almost all have ended, the last few are pending."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.parent = make_job("waiting", waiting_for=call)
        first = lowest_id_at(timezone.now() - timedelta(days=1)).int
        ids = [UUID(int=first + (n << 80)) for n in range(SIZE)]
        family = {"parent_id": self._as_stored(self.parent.id), "parent_call": call, "depth": 1}
        insert_jobs(ids, **family)

    def end_most(self) -> None:
        """Let all but the last children end."""
        ids = sorted(Job.objects.filter(parent=self.parent).values_list("id", flat=True))
        ended = {"status": "completed", "attempt": 1, "token": 1, "finished_at": timezone.now()}
        Job.objects.filter(parent=self.parent, id__lt=ids[-LAST]).update(**ended)

    @staticmethod
    def _as_stored(job_id: UUID) -> Any:
        field = Job._meta.pk
        return field.get_db_prep_value(job_id, connection)


def looks(family: Family) -> dict[str, Callable[[], object]]:
    """What is asked about a family again and again."""
    group = (family.parent.id, family.call)
    return {
        "wake": lambda: wake_waiting({group}),
        "any open": lambda: any_open(*group),
        "forgotten": wake_forgotten,
    }


@pytest.mark.parametrize("call", ["children 0/1", "children! 0/1"])
def test_p15_a_look_at_a_large_family_reads_few_rows(call: str) -> None:
    analyze()
    family = Family(call)
    too_much = {}
    for knowledge, planning in STATISTICS.items():
        if knowledge.startswith("from"):
            analyze()
            family.end_most()
        elif knowledge == "fresh":
            analyze()
        with planning():
            for name, look in looks(family).items():
                with counted_work() as work:
                    look()
                if work.rows > FEW:
                    too_much[f"{name}, statistics {knowledge}"] = work.rows
    assert too_much == {}
    assert present(family.parent).status == "waiting"


def test_p15_the_end_of_a_child_reads_few_rows() -> None:
    family = Family("children 0/1")
    family.end_most()
    worker = make_worker()
    children = claim(claim_of(worker, LAST))
    assert len(children) == LAST
    finish([Ending(child, Completed("1")) for child in children[: LAST // 2]])
    with counted_work() as work:
        finish([Ending(child, Failed(Failure("ValueError: no", ""))) for child in children[LAST // 2 : -1]])
    assert work.rows <= FEW
    assert present(family.parent).status == "waiting"
    finish([Ending(children[-1], Completed("1"))])
    assert present(family.parent).status == "pending"
