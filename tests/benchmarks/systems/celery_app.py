"""Celery's app: read by its worker and by the enqueuing process."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from celery import Celery

from tests.benchmarks import bodies
from tests.benchmarks.place import Place

app = Celery("bench", broker=Place.current().redis)
app.conf.task_default_queue = "bench-django-durable-jobs"
app.conf.task_ignore_result = True
TASKS = {name: app.task(name=name)(getattr(bodies, name)) for name in bodies.NAMES}
