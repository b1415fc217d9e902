"""No hot query reads much of a large table, on every database (X22, X24; PERFORMANCE's flat claims).

Two tables: a long *history* (100,000 completed jobs, few that live) and a large *backlog* (50,000 pending, 50,000
that wait for their time). Both with the statistics of an empty table, then with fresh ones, then with plans that do
not know the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from django_durable_jobs.ids import lowest_id_at
from django_durable_jobs.models import Job, Worker
from django_durable_jobs.operations.checkpoints import save
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.leases import Held, expire_leases_of, release_unknown, renew
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.prune import WINDOW, prune, prune_workers
from django_durable_jobs.operations.queues import add_missing, live_counts
from django_durable_jobs.operations.rescue import next_expiry, rescue, rescued_waiting
from django_durable_jobs.outcomes import BackedOff, Completed, Failure, Outcome
from django_durable_jobs.states import Status
from tests.conformance.work import analyze, counted_work, forget_dead_rows, insert_jobs, plans_without_values
from tests.factories import checkpoint_of, claim_of, make_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

FEW: Final = 2000
"""Rows that a hot query may read when it works on ten."""
LEASE: Final = timedelta(minutes=5)

Operation = Callable[[], object]


def ids(count: int, *, days_ago: float) -> list[UUID]:
    """Make ids as jobs would have that were created one each millisecond from that day on."""
    first = lowest_id_at(timezone.now() - timedelta(days=days_ago)).int
    return [UUID(int=first + (n << 80)) for n in range(count)]


def fill_history() -> None:
    ended = {"status": "completed", "attempt": 1, "token": 1, "finished_at": timezone.now()}
    insert_jobs(ids(100_000, days_ago=20), **ended)
    insert_jobs(ids(10, days_ago=2), status="failed", attempt=3, finished_at=timezone.now(), last_error="no")


def fill_backlog() -> None:
    later = timezone.now() + timedelta(days=1)
    insert_jobs(ids(50_000, days_ago=1), status="pending")
    insert_jobs(ids(25_000, days_ago=0.5), status="scheduled", run_at=later)
    insert_jobs(ids(25_000, days_ago=0.4), status="retrying", attempt=1, run_at=later, last_error="no")


FILL: Final = {"history": fill_history, "backlog": fill_backlog}


STATISTICS: Final[dict[str, Callable[[], AbstractContextManager[None]]]] = {
    "of an empty table": nullcontext,
    "fresh": nullcontext,
    "fresh, parameters unknown": plans_without_values,
}
"""What the planner knows; in this order, since statistics do not become stale again."""


@contextmanager
def live_jobs() -> Iterator[Worker]:
    """A few jobs of every kind that lives, and a worker for them; gone afterwards."""
    worker = make_worker()
    now = timezone.now()
    usual = [Job(definition="live", queue="default", max_attempts=3, rank=n % 3 - 1) for n in range(12)]
    rescued = [Job(definition="live", queue="default", max_attempts=3, rescues=1) for _n in range(3)]
    due = [
        Job(definition="live", queue="default", max_attempts=3, status=status, run_at=now - timedelta(seconds=n))
        for n in range(12)
        for status in ("scheduled", "retrying")
    ]
    live = Job.objects.bulk_create([*usual, *rescued, *due])
    try:
        yield worker
    finally:
        Job.objects.running().update(status="pending", worker=None, lease_expires_at=None)
        Job.objects.filter(id__in=[job.id for job in live])._raw_delete("default")
        Worker.objects.all().delete()


def held(worker: Worker, amount: int = 10) -> Any:
    return claim(claim_of(worker, amount, lease=LEASE))


def ending(worker: Worker, outcome: Outcome) -> list[Ending]:
    return [Ending(job, outcome) for job in held(worker)]


def completing(worker: Worker) -> Operation:
    endings = ending(worker, Completed("1"))
    return lambda: finish(endings)


def completing_and_claiming(worker: Worker) -> Operation:
    endings = ending(worker, Completed("1"))
    return lambda: finish(endings, claim_of(worker, 2))


def backing_off(worker: Worker) -> Operation:
    endings = ending(worker, BackedOff(Failure("ValueError: no", ""), timedelta(hours=1)))
    return lambda: finish(endings)


def renewing(worker: Worker) -> Operation:
    leases = [Held(job.id, job.token) for job in held(worker)]
    return lambda: renew(worker.pk, leases, LEASE)


def saving_checkpoints(worker: Worker) -> Operation:
    rows = [checkpoint_of(job, str(n)) for job in held(worker, 5) for n in range(3)]
    return lambda: save(rows)


def rescuing(worker: Worker) -> Operation:
    held(worker)
    expire_leases_of(worker.name)
    return rescue


def releasing_unknown(worker: Worker) -> Operation:
    held(worker)
    return lambda: release_unknown(worker.pk, [])


def expiring(worker: Worker) -> Operation:
    held(worker)
    return lambda: expire_leases_of(worker.name)


def showing_the_admin(_worker: Worker) -> Operation:
    user, _created = get_user_model().objects.get_or_create(username="a", is_superuser=True, is_staff=True)
    client = Client()
    client.force_login(user)

    def show() -> None:
        response = client.get("/admin/django_durable_jobs/job/")
        assert response.status_code == 200

    return show


HOT: dict[str, tuple[Callable[[Worker], Operation], int]] = {
    "claim": (lambda worker: lambda: claim(claim_of(worker, 10)), FEW),
    "claim of one": (lambda worker: lambda: claim(claim_of(worker, 1)), 300),
    "claim of rescued jobs": (lambda worker: lambda: claim(claim_of(worker, 10, rescued=True)), FEW),
    "claim from an empty queue": (lambda worker: lambda: claim(claim_of(worker, 10, "empty", "none")), FEW),
    "complete": (completing, FEW),
    "complete and claim": (completing_and_claiming, FEW),
    "back off": (backing_off, FEW),
    "renew": (renewing, FEW),
    "save checkpoints": (saving_checkpoints, FEW),
    "rescue": (rescuing, FEW),
    "next expiry": (lambda worker: (held(worker), next_expiry)[1], FEW),
    "rescued jobs waiting": (lambda _worker: lambda: rescued_waiting(["default", "mail"]), FEW),
    "no rescued jobs waiting": (lambda _worker: lambda: rescued_waiting(["empty", "mail"]), FEW),
    "release what is unknown": (releasing_unknown, FEW),
    "end the leases of a dead worker": (expiring, FEW),
    "promote": (lambda _worker: promote, FEW),
    "prune one window": (lambda _worker: lambda: prune(None), 10 * WINDOW),
    "prune workers": (lambda _worker: prune_workers, FEW),
    "look for queues without a row": (lambda _worker: add_missing, FEW),
    "first page of the admin": (showing_the_admin, 30_000),  # it counts up to 10,000
}


def rows_read(query: str) -> int:
    with live_jobs() as worker:
        operation = HOT[query][0](worker)
        with counted_work() as work:
            operation()
    return work.rows


@pytest.mark.parametrize("table", FILL)
def test_x22_x24_no_hot_query_reads_much_of_a_large_table(table: str) -> None:
    analyze()
    FILL[table]()
    too_much = {}
    for number, (knowledge, planning) in enumerate(STATISTICS.items()):
        if number == 1:
            analyze()
        with planning():
            for query, (_prepare, limit) in HOT.items():
                if query == "prune one window" and number == 0:
                    continue  # a chore: it may scan a table that was never analysed
                if rows_read(query) <= limit:
                    continue
                forget_dead_rows()  # a scan comes again without them
                if (rows := rows_read(query)) > limit:
                    too_much[f"{query}, statistics {knowledge}"] = rows
    assert too_much == {}


def counting() -> tuple[int, dict[str, dict[Status, int]]]:
    with counted_work() as work:
        counts = live_counts(["default", "mail"])
    return work.rows, counts


def test_live_jobs_are_counted_without_history() -> None:
    """D8: what has ended is not read, whatever is known of it."""
    analyze()
    fill_history()
    too_much = {}
    for number, (knowledge, planning) in enumerate(STATISTICS.items()):
        if number == 1:
            analyze()
        with planning(), live_jobs():
            rows, counts = counting()
            if rows > FEW:
                forget_dead_rows()  # a scan comes again without them
                rows, counts = counting()
            if rows > FEW:
                too_much[knowledge] = rows
            assert sum(counts["default"].values()) == 12 + 3 + 24
    assert too_much == {}


def test_the_count_notices_a_scan() -> None:
    fill_history()
    with counted_work() as work:
        assert Job.objects.filter(payload="no such payload").count() == 0
    assert work.rows > 90_000
