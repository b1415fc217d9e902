"""What the jobs find out, and the ledger that shows how often each call really ran."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class Run(models.Model):
    """One indexing of one standard library."""

    python = models.CharField(max_length=100)
    folder = models.CharField(max_length=1000)
    started_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"Python {self.python}"


class Package(models.Model):
    """A top-level package, or a module that stands alone: the work of one job."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="packages")
    name = models.CharField(max_length=200)
    files = models.IntegerField()
    indexed_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["run", "name"], name="package_once")]

    def __str__(self) -> str:
        return self.name


class Module(models.Model):
    """A source file that parses."""

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="modules")
    path = models.CharField(max_length=300)
    lines = models.IntegerField()
    classes = models.IntegerField()
    functions = models.IntegerField()
    imports = models.IntegerField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["package", "path"], name="module_once")]

    def __str__(self) -> str:
        return self.path


class UnparsableFile(models.Model):
    """A source file that does not parse. The standard library's own tests have some on purpose."""

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="unparsable")
    path = models.CharField(max_length=300)
    reason = models.TextField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["package", "path"], name="unparsable_once")]

    def __str__(self) -> str:
        return self.path


class LedgerRow(models.Model):
    """Written first by every run of a call's body, in a commit of its own: a call that ran twice has two rows.

    There is no unique key on purpose. Nothing deletes or changes a row.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="ledger")
    job = models.UUIDField()
    number = models.IntegerField(help_text="Which call of its job, from 1.")
    path = models.CharField(max_length=300)
    worker = models.CharField(max_length=200)
    attempt = models.IntegerField()
    written_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "ledger"

    def __str__(self) -> str:
        return f"{self.path} by {self.worker}"


class Report(models.Model):
    """Totals of a run and its largest modules."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE)
    packages = models.IntegerField()
    modules = models.IntegerField()
    unparsable = models.IntegerField()
    lines = models.IntegerField()
    classes = models.IntegerField()
    functions = models.IntegerField()
    imports = models.IntegerField()
    largest = models.JSONField(help_text="Path and lines of the ten largest modules.")
    written_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"Report on {self.run}"
