"""Children for tests of ``gather``, and how a runner lets a whole family run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django_durable_jobs import Invocation, acall, agather, durable_job, gather
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.models import Job
from django_durable_jobs.outcomes import Outcome
from tests.durable.running import NOW, Runner

RAN: Counter[Any] = Counter()
"""How often each child's code ran, by its argument."""
FAILING: set[Any] = set()
"""Arguments of children that fail."""


@dataclass(frozen=True)
class Doubled:
    """A result that only its annotation brings back."""

    of: int
    value: int


@durable_job(retries=0, backoff=NOW)
def double(n: int) -> Doubled:
    """Double a number, or fail as the test says."""
    RAN[n] += 1
    if n in FAILING:
        raise ValueError(f"not {n}")
    return Doubled(n, 2 * n)


@durable_job(retries=0, backoff=NOW)
async def halve(n: int) -> float:
    """Do the like on the event loop."""
    RAN[n] += 1
    return n / 2


@durable_job(retries=0, backoff=NOW)
def nested(depth: int, width: int) -> int:
    """Count the leaves of a tree of jobs."""
    RAN["nested"] += 1
    return sum(gather(*below(depth, width)).values()) if depth else 1


@durable_job(retries=0, backoff=NOW)
async def anested(depth: int, width: int) -> int:
    """Do the like on the event loop, in a branch."""

    async def branch() -> int:
        return sum((await agather(*(anested.s(depth - 1, width) for _ in range(width)))).values())

    return await acall(branch) if depth else 1


def below(depth: int, width: int) -> list[Invocation[int]]:
    """The children of a tree's node."""
    return [nested.s(depth - 1, width) for _ in range(width)]


def run_all(runner: Runner, *, limit: int = 100) -> list[Outcome]:
    """Run attempts until nothing is pending."""
    outcomes = []
    while Job.objects.pending().exists():
        outcomes.append(runner.attempt())
        assert len(outcomes) <= limit, "this never ends"
    return outcomes


def children_of(job: JobHandle[Any] | UUID) -> list[Job]:
    """The children of a job in call order."""
    job_id = job if isinstance(job, UUID) else job.id
    return sorted(Job.objects.filter(parent=job_id), key=lambda child: child.id)
