"""The benchmark's bodies as tasks of ``django-tasks``."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from django_tasks import task

from tests.benchmarks import bodies


@task
def noop(n: int) -> None:
    """Do nothing."""
    bodies.noop(n)


@task
def arrive(n: int) -> None:
    """Write down when the body starts."""
    bodies.arrive(n)


@task
def stay(n: int) -> None:
    """Stay until killed, the first time."""
    bodies.stay(n)
