"""Huey's app: read by its consumer and by the enqueuing process."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from collections.abc import Callable

from huey import RedisHuey

from tests.benchmarks import bodies
from tests.benchmarks.place import Place

huey = RedisHuey("bench-django-durable-jobs", url=Place.current().redis)
TASKS: dict[str, Callable[[int], object]] = {name: huey.task(name=name)(getattr(bodies, name)) for name in bodies.NAMES}
