"""What this process holds: every claimed job from its claim to the moment its ending is stored."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..dialects.rows import Claimed, Held
from ..durable.context import JobContext
from ..errors import Interrupted, LeaseLost
from ..operations.enqueue import fails_when_lost
from ..outcomes import Lost, Outcome, Released
from ..signals import EventSignal


@dataclass(slots=True)
class Lease:
    """One held job; ``context`` is set while its code runs."""

    job: Claimed
    since: float
    context: JobContext | None = None
    lost: bool = False
    over: bool = False
    began: float | None = None
    took: float | None = None
    """Seconds that its code ran; like ``began`` taken only where somebody listens."""


class Leases:
    """The held jobs by id; written by the dispatcher and the executing threads, read by the heartbeat."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        """Begin with none."""
        self._clock = clock
        self._held: dict[UUID, Lease] = {}
        self._guard = threading.Lock()

    def __len__(self) -> int:
        """Return how many jobs are held."""
        return len(self._held)

    def add(self, jobs: list[Claimed]) -> None:
        """Note freshly claimed jobs."""
        now = self._clock.monotonic()
        with self._guard:
            for job in jobs:
                self._held[job.id] = Lease(job, now)

    def begin(self, job: Claimed, context: JobContext) -> bool:
        """Note that the job's code begins; ``False`` when its lease was lost while it waited."""
        lease = self._held.get(job.id)
        if lease is None or lease.lost or lease.job.token != job.token:
            return False
        if EventSignal.anybody:
            lease.began = self._clock.monotonic()
        lease.context = context
        # Looked at again: who marks it as lost either sees the context, or is seen here.
        return not lease.lost

    def code_is_over(self, job: Claimed) -> None:
        """Note that the job's code has ended, however; its ending is stored later."""
        lease = self._held.get(job.id)
        if lease is not None and lease.job.token == job.token:
            if lease.began is not None and lease.took is None:
                lease.took = self._clock.monotonic() - lease.began
            lease.over = True

    def took(self, job: Claimed) -> float | None:
        """Return the seconds that the job's code ran, for whoever listens; ``None`` when it had not begun."""
        lease = self._held.get(job.id) if EventSignal.anybody else None
        return None if lease is None else lease.took

    def end(self, jobs: list[Claimed]) -> None:
        """Forget jobs whose ending is stored, or refused."""
        with self._guard:
            for job in jobs:
                lease = self._held.get(job.id)
                if lease is not None and lease.job.token == job.token:
                    del self._held[job.id]

    def held(self) -> list[Held]:
        """Return all leases."""
        with self._guard:
            return [Held(lease.job.id, lease.job.token) for lease in self._held.values() if not lease.lost]

    def older_than(self, seconds: float) -> list[Held]:
        """Return the leases that were not renewed for this long; short jobs never get here."""
        limit = self._clock.monotonic() - seconds
        with self._guard:
            return [
                Held(lease.job.id, lease.job.token)
                for lease in self._held.values()
                if lease.since <= limit and not lease.lost
            ]

    def mark_lost(self, leases: set[Held], why: str) -> int:
        """Stop the code of jobs that are no longer ours, at its next durable call; return how many still ran."""
        return self._interrupt(leases, LeaseLost(why), lost=True)

    def interrupt(self, leases: set[Held], why: Interrupted) -> int:
        """Ask the code of these jobs to stop at its next durable call."""
        return self._interrupt(leases, why, lost=False)

    def tell(self, job_id: UUID, why: Interrupted) -> None:
        """Tell the code of a job that an order for it has come; nothing for a job that is not held here."""
        with self._guard:
            lease = self._held.get(job_id)
            if lease is not None and lease.context is not None:
                lease.context.interrupt(why)

    def runs(self, job: Claimed) -> bool:
        """Answer whether the job's code has not ended, as far as is known."""
        lease = self._held.get(job.id)
        return lease is not None and lease.job.token == job.token and not lease.over

    def contexts(self, leases: set[Held]) -> list[JobContext]:
        """Return the contexts of those of these jobs whose code runs."""
        with self._guard:
            found = [lease for held in leases if (lease := self._held.get(held.id)) and lease.job.token == held.token]
        return [lease.context for lease in found if lease.context is not None and not lease.over]

    def jobs(self) -> list[Claimed]:
        """Return the held jobs whose code is not over."""
        with self._guard:
            return [lease.job for lease in self._held.values() if not lease.over]

    def given_up(self) -> list[tuple[Claimed, Outcome]]:
        """Return the jobs whose code is not over, each with how it ends for a worker that stops: back to its queue.

        One that must not run a second time, and has begun, is left to its lease: the process ends with it, as in a
        crash.
        """
        with self._guard:
            left = [lease for lease in self._held.values() if not lease.over]
        begun = [(lease.job, lease.context is not None) for lease in left]
        return [(job, Lost() if ran and fails_when_lost(job.options) else Released(begun=ran)) for job, ran in begun]

    def not_begun(self) -> set[str]:
        """Return the queues of which a job is held whose code has neither begun nor gone back."""
        with self._guard:
            return {lease.job.queue for lease in self._held.values() if lease.context is None and not lease.over}

    def _interrupt(self, leases: set[Held], why: Interrupted, *, lost: bool) -> int:
        count = 0
        with self._guard:
            for held in leases:
                lease = self._held.get(held.id)
                if lease is None or lease.job.token != held.token:
                    continue
                lease.lost = lease.lost or lost
                # Over already: its ending may be stored, and only the answer is still on its way.
                count += not lease.over
                if lease.context is not None:
                    lease.context.interrupt(why)
        return count
