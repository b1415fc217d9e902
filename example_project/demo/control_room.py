"""Orders to a fleet under load. What is printed is read off the rows that the workers write, not off the orders."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from demo import waiting
from demo.children import Worker
from demo.errors import DemoError
from demo.jobs import long, short
from demo.screen import heading, say
from django_durable_jobs import cancel, enqueue_many, limit_queue, pause_queue, resume_queue, unlimit_queue
from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.models import Job
from django_durable_jobs.models import Worker as WorkerRow
from django_durable_jobs.querysets.jobs import JobQuerySet

QUEUES: Final = ("mail", "reports", "imports", "thumbnails")
WORKERS: Final = 2
SLOTS: Final = 4
"""Of each queue in each worker."""
SHORT: Final = 0.02
"""Seconds that a short job takes: so a queue ends at most 400 a second."""
STOCK: Final = 3_000
"""Jobs of a queue that wait at the beginning, and again before the last order."""
RATE: Final = 50
SECOND: Final = timedelta(seconds=1)
LOOK_EVERY: Final = 0.01
STUCK_AFTER: Final = 60.0
NEVER: Final = "This must never be; please report it."


class ControlRoom:
    """Two workers, four queues, and whoever gives orders."""

    def __init__(self, log: Path, children: ExitStack) -> None:
        """Take where processes write and are remembered."""
        self._log = log
        self._children = children
        self._workers: list[Worker] = []

    def run(self) -> None:
        """Give one order after the other."""
        for number in range(WORKERS):
            worker = Worker(number + 1, dict.fromkeys(QUEUES, SLOTS), self._log)
            self._children.callback(worker.stop)
            self._workers.append(worker)
        say(f"Workers    {WORKERS} processes: {self._workers[0].command}")
        self._until(lambda: WorkerRow.objects.alive().count() >= WORKERS, "the workers to start")
        self._stock()
        say(f"Load       {len(QUEUES)} queues with {STOCK:,} jobs of {1000 * SHORT:.0f} ms each, and one long workflow")
        workflow = long.using(queue="imports", priority="high").enqueue(100_000)
        for queue in QUEUES:
            self._until(partial(self._begun, queue), f"jobs of {queue} to begin")
        heading("Orders, and how long each took until the whole fleet obeyed")
        self._pause("mail")
        self._resume("mail")
        self._until(workflow.job().checkpoints.exists, "the workflow to make calls")
        self._timed("cancel a workflow that runs", lambda: cancel(workflow), lambda: workflow.status == "cancelled")
        self._throttle("reports")
        self._unthrottle("reports")
        say("")
        say("A pause holds when the call returns: no claim of that queue begins after it, on any worker.")

    # Orders -------------------------------------------------------------------------------------------------

    def _pause(self, queue: str) -> None:
        took = self._timed(
            f"pause {queue}: returned, and no claim begins any more",
            lambda: pause_queue(queue, reason="shown in the control room"),
            lambda: True,
        )
        last = self._last(queue)
        self._timed(f"pause {queue}: nothing of it runs any more", lambda: None, lambda: not self._running(queue), took)
        waiting.pause(0.5)
        if self._last(queue) != last:
            raise DemoError(
                f"A job of {queue} began after the pause had returned: this must never be. Please report it."
            )

    def _resume(self, queue: str) -> None:
        before = self._begun(queue)
        self._timed(f"resume {queue}", lambda: resume_queue(queue), lambda: self._begun(queue) > before)

    def _throttle(self, queue: str) -> None:
        at = _now()
        limit_queue(queue, rate=RATE, per=SECOND, reason="shown in the control room")
        ordered = _now()
        waiting.pause(4)
        starts = self._starts(queue).filter(started_at__gt=ordered).values_list("started_at", flat=True)
        late = [when for when in starts if when is not None]
        most = max((sum(1 for other in late if when <= other < when + SECOND) for when in late), default=0)
        _print(f"throttle {queue} to {RATE} jobs/s", (ordered - at).total_seconds())
        say(f"{'':10}then at most {most} jobs of it began in any second, and {len(late)} in four")
        if most > RATE:
            raise DemoError(f"More than {RATE} jobs of {queue} began in a second. {NEVER}")

    def _unthrottle(self, queue: str) -> None:
        at = _now()
        self._timed(
            f"throttle of {queue} taken back (its next {2 * RATE} jobs have begun)",
            lambda: unlimit_queue(queue),
            lambda: self._jobs(queue).filter(started_at__gt=at).count() >= 2 * RATE,
        )

    # Looking ------------------------------------------------------------------------------------------------

    def _timed(self, what: str, order: Callable[[], object], obeyed: Callable[[], bool], before: float = 0.0) -> float:
        began = time.monotonic()
        order()
        self._until(obeyed, what)
        took = before + time.monotonic() - began
        _print(what, took)
        return took

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + STUCK_AFTER
        while not condition():
            for worker in self._workers:
                worker.check()
            if time.monotonic() > deadline:
                raise DemoError(f"Waited {STUCK_AFTER:.0f} s in vain for this: {what}. More in {self._log}")
            waiting.pause(LOOK_EVERY)

    @staticmethod
    def _stock() -> None:
        enqueue_many(short.using(queue=queue).s(SHORT) for queue in QUEUES for _ in range(STOCK))

    @staticmethod
    def _jobs(queue: str) -> JobQuerySet:
        return Job.objects.filter(queue=queue, definition=short.name)

    def _begun(self, queue: str) -> int:
        return self._starts(queue).count()

    def _running(self, queue: str) -> bool:
        return self._jobs(queue).running().exists()

    def _last(self, queue: str) -> datetime | None:
        return self._starts(queue).order_by("-started_at").values_list("started_at", flat=True).first()

    def _starts(self, queue: str) -> JobQuerySet:
        return self._jobs(queue).filter(started_at__isnull=False)


def _now() -> datetime:
    """The database's time, which the starts of jobs are in."""
    return dialect_of("default").now()


def _print(what: str, seconds: float) -> None:
    say(f"{1000 * seconds:7.0f} ms {what}")
