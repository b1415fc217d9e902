"""Two queues on Redis, for orientation: Redis keeps jobs in memory, so these are not durable.

Their completions are not stored with a time, so the length of the queue in Redis is watched instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from tests.benchmarks import bodies
from tests.benchmarks.place import CONCURRENCY, module_command
from tests.benchmarks.systems.base import System, stop, timed

LOOK_SECONDS = 0.005


class RedisQueue(System):
    """What huey and Celery have in common here."""

    key = ""

    def install(self) -> None:
        self.times: list[float] = []
        self.server = redis.Redis.from_url(self.place.redis)
        self.server.delete(self.key)

    def tasks(self) -> dict[str, Callable[[int], object]]:
        """Return the enqueue function of each body."""
        raise NotImplementedError

    def sender(self, body: str) -> Callable[[int], object]:
        return self.tasks()[body]

    def enqueue_each(self, values: Sequence[int]) -> float:
        send = self.sender("noop")
        return timed(lambda: [send(n) for n in values])

    def settle(self) -> None:
        """Leave Redis as it is: it has no chores."""

    def drain(self, processes: int, seconds: float) -> None:
        """Run workers and note, each few milliseconds, how many jobs have left the queue."""
        left = self.length()
        workers = [self.start(self.worker_command()) for _ in range(processes)]
        deadline = time.monotonic() + seconds
        try:
            while left and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
                now = self.length()
                self.times += [time.time()] * (left - now)
                left = now
        finally:
            for worker in workers:
                stop(worker)

    def length(self) -> int:
        """Return how many jobs are in the queue."""
        length: Any = self.server.llen(self.key)
        return int(length)

    def finish_times(self) -> list[float]:
        return self.times


class Huey(RedisQueue):
    """Huey with worker threads."""

    key = "huey.redis.benchdjangodurablejobs"

    def tasks(self) -> dict[str, Callable[[int], object]]:
        from tests.benchmarks.systems import huey_app

        return huey_app.TASKS

    def worker_command(self) -> list[str]:
        app = "tests.benchmarks.systems.huey_app.huey"
        return module_command("huey.bin.huey_consumer", app, f"--workers={CONCURRENCY}", "--quiet", "--no-periodic")


class Celery(RedisQueue):
    """Celery with one worker process and its results ignored."""

    key = "bench-django-durable-jobs"

    def tasks(self) -> dict[str, Callable[[int], object]]:
        from tests.benchmarks.systems import celery_app

        return {name: celery_app.TASKS[name].delay for name in bodies.NAMES}

    def worker_command(self) -> list[str]:
        app = "tests.benchmarks.systems.celery_app"
        return module_command("celery", f"--app={app}", "--quiet", "worker", "--pool=solo", "--loglevel=ERROR")
