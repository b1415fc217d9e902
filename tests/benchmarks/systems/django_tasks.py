"""django-tasks-db: the database backend of Django's task interface, the Django peer that is maintained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks.place import module_command
from tests.benchmarks.systems.base import System, timed

SETTINGS = "tests.benchmarks.settings_django_tasks"


class DjangoTasks(System):
    """django-tasks-db with ``db_worker``; it has no bulk enqueue."""

    def environ(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": SETTINGS}

    def install(self) -> None:
        import django
        from django.core.management import call_command

        os.environ.update(self.environ())
        django.setup()
        call_command("migrate", verbosity=0)

    def enqueue_each(self, values: Sequence[int]) -> float:
        send = self.sender("noop")
        return timed(lambda: [send(n) for n in values])

    def sender(self, body: str) -> Callable[[int], object]:
        from django.db import connection

        from tests.benchmarks.systems import django_tasks_app

        connection.ensure_connection()
        task: Any = getattr(django_tasks_app, body)
        return lambda n: task.enqueue(n=n)

    def worker_command(self) -> list[str]:
        return module_command("django", "db_worker", "--verbosity=0")

    def drain_command(self) -> list[str]:
        return [*self.worker_command(), "--batch", "--no-startup-delay"]

    def finish_times(self) -> list[float]:
        from django_tasks_db.models import DBTaskResult

        return sorted(at.timestamp() for at in DBTaskResult.objects.successful().values_list("finished_at", flat=True))
