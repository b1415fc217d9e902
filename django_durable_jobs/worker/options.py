"""What a worker is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from ..conf import get_settings


def _setting(name: str) -> timedelta:
    value: timedelta = getattr(get_settings(), name)
    return value


@dataclass(frozen=True)
class WorkerOptions:
    """Options of one worker process.

    ``queues`` maps names to the number of jobs that run at once; ``None`` serves every queue that exists or
    appears. ``alone`` takes only jobs that were lost with a worker, one at a time, and ends when there is none.
    Those who have a supervisor (``supervised``) leave lost jobs to it. ``parent_pid`` is the process without which
    this one stops.
    """

    name: str
    queues: dict[str, int] | None = None
    concurrency: int = 10
    threads: int | None = None
    drain: bool = False
    max_jobs: int | None = None
    alone: bool = False
    supervised: bool = False
    parent_pid: int | None = None
    grace: timedelta = field(default_factory=lambda: _setting("grace"))
    lease: timedelta = field(default_factory=lambda: _setting("lease"))
    heartbeat: timedelta = field(default_factory=lambda: _setting("heartbeat"))
    rescue_interval: timedelta = field(default_factory=lambda: _setting("rescue_interval"))
    poll_interval: timedelta = field(default_factory=lambda: _setting("poll_interval"))
    idle_poll_interval: timedelta = field(default_factory=lambda: _setting("idle_poll_interval"))

    @property
    def threads_at_most(self) -> int:
        """How many threads for sync jobs this process may come to have."""
        return self.threads or max(sum((self.queues or {}).values()), self.concurrency)
