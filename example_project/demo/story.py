"""The demo itself: enqueue, watch, kill if asked, prove, report. Nothing in here is special to demos but the kill."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Count
from stdlib_index.jobs import QUEUE, index_library
from stdlib_index.library import stdlib
from stdlib_index.models import Package, Report, Run, UnparsableFile

from demo import proof, waiting
from demo.children import Worker
from demo.errors import DemoError
from demo.proof import Call, Work
from demo.screen import heading, progress, say
from django_durable_jobs import Status
from django_durable_jobs.models import Job
from django_durable_jobs.models import Worker as WorkerRow
from django_durable_jobs.states import FINAL

SLOTS: Final = 4
"""Jobs that a worker runs at once."""
LOOK_EVERY: Final = 0.25
LOOK_OFTEN: Final = 0.02
"""Seconds between two looks while waiting for the moment to kill."""
STUCK_AFTER: Final = 120.0
"""Seconds without progress after which the demo gives up."""
_FINAL: Final = {status.value for status in FINAL}


class Story:
    """One demo from enqueue to report. Its workers end with `children`."""

    def __init__(self, packages: dict[str, list[str]], log: Path, children: ExitStack) -> None:
        """Take what is to be indexed and where processes are to be remembered."""
        self._packages = packages
        self._log = log
        self._children = children
        self._workers = 0
        self._files = sum(map(len, packages.values()))

    def run(self, *, kill: bool) -> Worker:
        """Index everything and print the report; return the worker, which still runs."""
        worker = self._start_worker()
        began = time.monotonic()
        work = self._enqueue(worker)
        if kill:
            worker, died_as, checkpointed = self._kill_half_way(work, worker)
            self._watch(work, worker, lambda _done: self._ended(work))
            passed = time.monotonic() - began
            self._prove(work, died_as, checkpointed)
        else:
            self._watch(work, worker, lambda _done: self._ended(work))
            passed = time.monotonic() - began
        self._report(work, passed, kill=kill)
        return worker

    # Beginning ----------------------------------------------------------------------------------------------

    def _start_worker(self) -> Worker:
        """Start a worker and wait until it has said that it lives."""
        self._workers += 1
        worker = Worker(self._workers, {QUEUE: SLOTS}, self._log)
        self._children.callback(worker.stop)
        say(f"Worker     {worker.name}, process {worker.pid}: {worker.command}")
        while not WorkerRow.objects.filter(name=worker.name).exists():
            worker.check()
            waiting.pause(LOOK_EVERY)
        return worker

    def _enqueue(self, worker: Worker) -> Work:
        """Store the run and its job in one transaction, and wait until the job has its children.

        The largest packages come first, they take longest.
        """
        order = sorted(self._packages, key=lambda name: (-len(self._packages[name]), name))
        with transaction.atomic():
            run = Run.objects.create(python=platform.python_version(), folder=str(stdlib()))
            Package.objects.bulk_create(Package(run=run, name=name, files=len(self._packages[name])) for name in order)
            parent = index_library.enqueue(run.id, order).id
        say(f"Enqueued   1 job, which gathers {len(order)} children, one per package, with {self._files} calls")
        say(f"           Python {run.python}, {run.folder}")
        children = self._children_of(parent, len(order), worker)
        return Work(
            run,
            {
                Call(child, number): path
                for child, name in zip(children, order, strict=True)
                for number, path in enumerate(self._packages[name], start=1)
            },
            parent,
        )

    def _children_of(self, parent: UUID, count: int, worker: Worker) -> list[UUID]:
        """Wait for the parent's children, which are stored together, and return them in its order."""
        began = time.monotonic()
        while len(children := Job.objects.filter(parent=parent).values_list("id", flat=True)) < count:
            worker.check()
            if time.monotonic() - began > STUCK_AFTER or _statuses([parent]).get(Status.FAILED.value):
                raise DemoError(_failures([parent]))
            waiting.pause(LOOK_OFTEN)
        return sorted(children)

    # Watching -----------------------------------------------------------------------------------------------

    def _watch(self, work: Work, worker: Worker, until: Callable[[int], bool], every: float = LOOK_EVERY) -> int:
        """Show progress until `until` says so; return how many calls were checkpointed then."""
        done = seen = work.count_checkpointed()
        moved_at = time.monotonic()
        with progress(self._files, done) as show:
            while not until(done):
                worker.check()
                waiting.pause(every)
                done = work.count_checkpointed()
                show(done)
                if done != seen:
                    seen, moved_at = done, time.monotonic()
                elif time.monotonic() - moved_at > STUCK_AFTER:
                    raise DemoError(f"Nothing has moved for {STUCK_AFTER:.0f} s. The worker's log: {self._log}")
        return done

    def _ended(self, work: Work) -> bool:
        """Answer whether all is done, the report included, which the parent writes."""
        return set(_statuses([work.parent])) <= _FINAL

    # Killing ------------------------------------------------------------------------------------------------

    def _kill_half_way(self, work: Work, worker: Worker) -> tuple[Worker, str, set[Call]]:
        """Kill the worker when half of the calls are checkpointed; start another.

        Returns the new worker, the name of the dead one, and the calls that were checkpointed.
        """
        half = self._files // 2
        self._watch(work, worker, lambda done: done >= half, every=LOOK_OFTEN)
        worker.kill()
        checkpointed = set(work.checkpoints())
        in_flight = work.in_flight(worker.name, checkpointed)
        say(f"SIGKILL    to {worker.name}, process {worker.pid}. It is gone; the database says:")
        say(f"           Checkpointed: {len(checkpointed)} of {self._files} calls")
        say(f"           Begun and not checkpointed, in flight: {len(in_flight)} (slots: {SLOTS})")
        for call in in_flight:
            say(f"             {work.paths[call]} (call {call.number} of job {call.job})")
        if len(checkpointed) == self._files:
            raise DemoError("All calls were done before the worker could be killed: let it index more packages.")
        lost = Job.objects.filter(worker__name=worker.name, status=Status.RUNNING.value).count()
        again = self._start_worker()
        say(f"           It goes on with what is pending. Lost jobs ({lost}) come back when their lease is over:")
        say(f"           after {settings.SHORT_LEASES['LEASE']} s in this demo, 20 s by default (setting LEASE)")
        return again, worker.name, checkpointed

    def _prove(self, work: Work, died_as: str, checkpointed: set[Call]) -> None:
        verdict = proof.judge(work, died_as, checkpointed, SLOTS)
        heading("Proof, from the ledger (one row per run of a call's body)")
        for true, text in verdict.claims:
            say(f"  {'ok ' if true else 'NOT'} {text}")
        if not verdict.holds:
            raise DemoError("The proof does not hold: a call that was checkpointed ran again, or one got lost.")
        say("  So: what was checkpointed was not run again; what was in flight was; nothing is missing.")

    # Ending -------------------------------------------------------------------------------------------------

    def _report(self, work: Work, passed: float, *, kill: bool) -> None:
        jobs = [*work.jobs, work.parent]
        report = Report.objects.filter(run=work.run).first()
        if report is None:
            raise DemoError(_failures(jobs))
        heading("Report (written by the parent when its last child was done)")
        for name in ("packages", "modules", "unparsable", "lines", "classes", "functions", "imports"):
            say(f"  {name:<12}{getattr(report, name):>10,}")
        say(f"\n  The {len(report.largest)} largest modules")
        for path, lines in report.largest:
            say(f"  {lines:>10,}  {path}")
        broken = list(UnparsableFile.objects.filter(package__run=work.run).order_by("path"))
        if broken:
            say("\n  Files that do not parse (reported, not fatal)")
            for file in broken:
                say(f"  {file.path}: {file.reason[:80]}")
        heading("Throughput")
        note = ", the kill and the wait for the lost jobs included" if kill else ""
        say(f"  {self._files} files in {len(jobs)} jobs took {passed:.1f} s{note}:")
        speed = f"{self._files / passed:.0f} files/s, {len(jobs) / passed:.1f} jobs/s"
        say(f"  {speed} on {connections['default'].display_name}, one worker with {SLOTS} slots.")
        say("  Each file was read, parsed, and is two durable commits (ledger and checkpoint).")
        if _statuses(jobs).get(Status.FAILED.value):
            raise DemoError(_failures(jobs))


def _statuses(jobs: list[UUID]) -> dict[str, int]:
    rows = Job.objects.filter(id__in=jobs).values_list("status").annotate(Count("id"))
    return dict(rows.order_by())


def _failures(jobs: list[UUID]) -> str:
    failed = Job.objects.filter(id__in=jobs, status=Status.FAILED.value).order_by("id")
    first = failed.first()
    if first is None:
        return "Nothing moves: is there a worker for the queue?"
    return f"{len(failed)} of {len(jobs)} jobs failed, the first one {first.definition} {first.id}: {first.last_error}"
