"""The jobs: a parent that gathers one child per package, each with one durable call per module, and then reports."""

from __future__ import annotations

from typing import Final

from django.db import transaction
from django.db.models import Count, Sum
from django.db.models.functions import Now

from django_durable_jobs import call, current_job, durable_job, gather
from stdlib_index.library import Facts, examine, packages
from stdlib_index.models import LedgerRow, Module, Package, Report, UnparsableFile

QUEUE: Final = "stdlib"
LARGEST: Final = 10


@durable_job(queue=QUEUE)
def index_library(run_id: int, names: list[str]) -> dict[str, int]:
    """Index each package in a job of its own, side by side, and report when the last one is done.

    This job holds no slot while they run, and is not lost with a worker. A package that fails is missing in the
    report, and does not keep the others out of it.
    """
    files = call(find_files, names)
    gather(*(index_package.s(run_id, name, files[name]) for name in names), strategy="collect_all")
    return call(write_report, run_id)


def find_files(names: list[str]) -> dict[str, list[str]]:
    """Return the files of each package; run by ``call()``, since its job runs again when the children are done."""
    found = packages()
    return {name: found[name] for name in names}


@durable_job(queue=QUEUE)
def index_package(run_id: int, package: str, paths: list[str]) -> int:
    """Examine each file once and store what was found.

    The paths are arguments and not looked up here: the function runs again from its start when its worker dies, and
    must then make the same calls in the same order.
    """
    found = [call(index_module, run_id, number, path) for number, path in enumerate(paths, start=1)]
    store(run_id, package, found)
    return len(found)


def index_module(run_id: int, number: int, path: str) -> Facts:
    """Examine one file; run by ``call()``, which stores what this returns."""
    job = current_job()
    LedgerRow.objects.create(
        run_id=run_id, job=job.id, number=number, path=path, worker=job.worker_name, attempt=job.attempt
    )
    return examine(path)


def store(run_id: int, package: str, found: list[Facts]) -> None:
    """Store a package's modules, all or none; storing them again changes nothing."""
    with transaction.atomic():
        row = Package.objects.select_for_update().get(run=run_id, name=package)
        row.modules.all().delete()
        row.unparsable.all().delete()
        Module.objects.bulk_create(
            Module(
                package=row,
                path=facts.path,
                lines=facts.lines,
                classes=facts.classes,
                functions=facts.functions,
                imports=facts.imports,
            )
            for facts in found
            if facts.problem is None
        )
        UnparsableFile.objects.bulk_create(
            UnparsableFile(package=row, path=facts.path, reason=facts.problem)
            for facts in found
            if facts.problem is not None
        )
        row.indexed_at = Now()
        row.save(update_fields=["indexed_at"])


def write_report(run_id: int) -> dict[str, int]:
    """Add everything up; writing the report again changes nothing."""
    modules = Module.objects.filter(package__run=run_id)
    totals = {
        "packages": Package.objects.filter(run=run_id).exclude(indexed_at=None).count(),
        "unparsable": UnparsableFile.objects.filter(package__run=run_id).count(),
        **modules.aggregate(
            modules=Count("id"),
            **{name: Sum(name, default=0) for name in ("lines", "classes", "functions", "imports")},
        ),
    }
    largest = modules.order_by("-lines", "path").values_list("path", "lines")[:LARGEST]
    Report.objects.update_or_create(run_id=run_id, defaults={**totals, "largest": [list(row) for row in largest]})
    return totals
