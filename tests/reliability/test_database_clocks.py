"""Clocks of hosts that are wrong or jump (X10, X11, I9): only the database's time of day decides."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from django_durable_jobs.backoff import Backoff
from django_durable_jobs.models import Attempt, Job
from tests.factories import make_abandoned_job, present
from tests.reliability import wrong_clock
from tests.reliability.database_jobs import GATES, RAN, call_flaky, count, refuse
from tests.reliability.harness import Workers
from tests.reliability.outages import options, working
from tests.reliability.process_jobs import hold, remember
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

TEN_MINUTES = 600
DELAYS = [timedelta(seconds=0.5) * number for number in range(1, 6)]
LEASE = {"LEASE": 1.5}
"""Shorter than the longest delay: while jobs are held and wait, each worker looks for lost and for due ones."""


def test_x10_hosts_ten_minutes_fast_and_slow_neither_claim_nor_rescue_early(workers: Workers) -> None:
    """A worker of the fast host would find every lease over and every job due; one of the slow host none."""
    module = {"DURABLE_JOBS_TEST_MODULE": str(wrong_clock.__file__)}
    both = [
        workers.start(
            *("--queue", "default=2", "--queue", f"{name}=1"),
            name=name,
            settings=LEASE,
            environment={**module, "DURABLE_JOBS_TEST_CLOCK": str(shift)},
        )
        for name, shift in (("fast", TEN_MINUTES), ("slow", -TEN_MINUTES))
    ]
    gate = workers.gate()
    held = [hold.using(queue=name).enqueue(workers.ledger, name, str(gate)) for name in ("fast", "slow")]
    workers.noted("begin", 2)
    lost = make_abandoned_job(queue="served by nobody")  # so that a round of rescue looks at every lease
    eventually(lambda: present(lost).status == "pending")
    later = [(delay, remember.using(delay=delay).enqueue(workers.ledger, f"later {delay}")) for delay in DELAYS]
    for delay, handle in later:
        handle.result(15)
        job = present(handle.id)
        assert job.started_at is not None
        waited = job.started_at - job.created_at
        assert delay - timedelta(milliseconds=2) <= waited < delay + timedelta(seconds=5)
    still = Job.objects.filter(id__in=[one.id for one in held])
    assert set(still.values_list("status", "rescues")) == {("running", 0)}
    gate.touch()
    for one in held:
        one.result(10)
    others = Job.objects.exclude(id=lost.id)
    assert set(others.values_list("status", "attempt", "rescues")) == {("completed", 1, 0)}
    assert len(workers.lines("begin")) == 2
    assert [one.process.poll() for one in both] == [None, None]


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_x11_a_clock_that_jumps_during_waits_neither_hangs_nor_hurries_them(
    jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waits of a call's repeat, of a poll, of a back-off, of a delayed job and of somebody who wants a result."""
    RAN.clear()
    gate = GATES["x11"] = threading.Event()
    real_time, real_now = time.time, timezone.now
    with working(options(poll_interval=timedelta(seconds=0.2))):
        flaky = call_flaky.enqueue("flaky", "x11")
        retried = refuse.using(backoff=Backoff.fixed(0.6)).enqueue("refuse")
        delayed = count.using(delay=0.6).enqueue("delayed")
        eventually(lambda: RAN["flaky"] and RAN["refuse"])
        monkeypatch.setattr(time, "time", lambda: real_time() + jump)
        monkeypatch.setattr(timezone, "now", lambda: real_now() + timedelta(seconds=jump))
        gate.set()
        assert flaky.result(8) == "flaky after 2"
        assert delayed.result(8) == "delayed"
        eventually(lambda: present(retried.id).status == "failed", seconds=8)
    first, second = Attempt.objects.order_by("number")
    assert second.finished_at - first.finished_at >= timedelta(seconds=0.6)
    job = present(delayed.id)
    assert job.started_at is not None
    assert job.started_at - job.created_at >= timedelta(seconds=0.59)
    assert RAN == {"flaky": 1, "flaky.call": 3, "refuse": 2, "delayed": 1}
