"""Fifty real SIGKILLs at random moments: every workflow comes to what it would have come to anyway (I13 to I18)."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from uuid import UUID

import pytest

from django_durable_jobs import send_message
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job, NamedValue
from django_durable_jobs.states import FINAL, OPEN
from tests.reliability.harness import RunJobs, Workers
from tests.reliability.rich_jobs import BOOKED, rich
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

KILLS = 50
LONGEST = 0.1
"""Seconds after a job was seen to run, within which its process dies."""
WAVE = 4


class Flow:
    """Workflows, enqueued as they are needed."""

    def __init__(self, ledger: str) -> None:
        self.ledger = ledger
        self.numbers: dict[UUID, int] = {}

    def keep_going(self) -> None:
        """See to it that there is work."""
        # One that was lost with a worker runs in a process of its own, which nobody kills.
        if Job.objects.filter(status__in=OPEN, parent=None, rescues=0).count() < WAVE:
            for _ in range(WAVE):
                number = len(self.numbers)
                job = rich.enqueue(self.ledger, number, fails=number % 3 == 0)
                self.numbers[job.id] = number
                send_message(job, "go", "came")


class Fleet:
    """Workers, of which each that dies is replaced by another one."""

    def __init__(self, workers: Workers, size: int) -> None:
        self.workers = workers
        self.alive = [self.start() for _ in range(size)]

    def start(self) -> RunJobs:
        return self.workers.start("--queue", "default=2", ready=False)

    def one_that_runs_a_job(self) -> RunJobs | None:
        """Return a worker that holds a job now."""
        held = set(Job.objects.filter(status="running").values_list("worker__pid", flat=True))
        return next((worker for worker in self.alive if worker.pid in held), None)

    def kill(self, worker: RunJobs) -> None:
        worker.kill()
        self.alive[self.alive.index(worker)] = self.start()


@pytest.mark.timeout(240)
def test_fifty_kills_at_random_moments_change_nothing(workers: Workers, dialect: Dialect) -> None:
    if not dialect.has_notifications:
        pytest.skip("the lane of PostgreSQL does it with real kills, SQLite before each statement")
    fleet, flow, chance = Fleet(workers, 3), Flow(workers.ledger), random.Random(50)

    def at_work() -> RunJobs | None:
        flow.keep_going()
        return fleet.one_that_runs_a_job()

    for _kill in range(KILLS):
        one = eventually(at_work, seconds=60, what="a worker that runs a job")
        # A moment of any length: whether the job still runs then is left to chance.
        with suppress(AssertionError):
            eventually(lambda: False, seconds=chance.uniform(0, LONGEST))
        fleet.kill(one)
    left = Job.objects.filter(status__in=OPEN)
    eventually(lambda: not left.exists(), seconds=90, what=f"the end of {left.values_list('definition', 'status')}")
    everything_came_out_right(flow, workers.lines())


def everything_came_out_right(flow: Flow, lines: list[str]) -> None:
    """Compare each workflow with a run that nobody disturbs."""
    effects = Counter(line.split()[0] for line in lines)
    assert max(Counter(lines).values()) == 1, "a plain call ran twice under one token"
    for job in Job.objects.filter(id__in=flow.numbers):
        number = flow.numbers[job.id]
        fails = number % 3 == 0
        assert job.status in FINAL
        assert job.status == ("failed" if fails else "completed"), (number, job.last_error)
        assert job.result == (None if fails else f'["came",4,9,{number}]')
        booked = NamedValue.objects.filter(job_id=job.id, name__startswith=BOOKED).count()
        assert booked == 1, f"workflow {number} booked {booked} times"
        names = [f"{name}-{number}" for name in ("first", "inner", "child")]
        made = {effect for effect in effects if effect.split("-")[1] == str(number)}
        expected = {
            names[0],
            *(f"{name}-{n}" for name, n in ((names[1], 1), (names[1], 2), (names[2], 2), (names[2], 3))),
        }
        assert made == expected | ({f"undo-{number}"} if fails else set())
    # Each kill can have hit as many calls as there are slots, and no more.
    again = sum(effects.values()) - len(effects)
    assert again <= KILLS * 2
