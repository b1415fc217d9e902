"""Playing a page: its Python blocks run in order, on the test's database, with a real worker.

A block that begins with a comment such as ``# shop/jobs.py`` is that file of a project: its package is an installed
app while the page is played, and other blocks may import from it. Several blocks may continue one file. A
``settings.py`` sets ``DURABLE_JOBS`` for the rest of the page. All other blocks share one module of their own. The
page's code is in a hurry: ``time.sleep`` ends soon.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import time
import unittest
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest import mock

from django.apps import apps
from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.db import connections
from django.test import modify_settings, override_settings

from django_durable_jobs import paused_queues, registry
from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.worker import Worker
from tests.docs.markdown import PYTHON, Block, Mark, parts, title
from tests.listening import SIGNALS

_FILE: Final = re.compile(r"^# (?P<path>[\w/]+)\.py\b")
LONGEST_SLEEP: Final = 0.01
_CHECKED: Final = "page"
"""The alias under which a page's own database is looked at, without connecting to it."""


class Stage:
    """What the blocks of one page share."""

    def __init__(self, page: Path, folder: Path, undo: ExitStack) -> None:
        """Take a folder for the files of packages, and where to leave what must be undone."""
        self._page = page
        self._folder = folder
        self._undo = undo
        self._own = self._module("page_" + re.sub(r"\W", "_", title(page).removesuffix(".md")))

    def play(self) -> int:
        """Run the page; return how many blocks ran."""
        count = 0
        for part in parts(self._page):
            if isinstance(part, Mark):
                self._obey(part)
            elif part.language in PYTHON and part.mark("not run") is None:
                self._run(part)
                count += 1
        return count

    # Blocks -------------------------------------------------------------------------------------------------

    def _run(self, block: Block) -> None:
        found = _FILE.match(block.text.partition("\n")[0])
        name = found["path"].replace("/", ".") if found else None
        if name is not None and name.rpartition(".")[2] == "settings":
            self._apply_settings(block)
            return
        module = self._own if name is None else self._file(name)
        expected = block.mark("raises")
        try:
            self._execute(block, module)
        except Exception as error:
            if type(error).__name__ != expected:
                raise
        else:
            assert expected is None, f"{title(self._page)}:{block.line} raised nothing, not {expected}"
        if name is not None:
            self._create_tables(name.partition(".")[0])

    def _execute(self, block: Block, module: ModuleType) -> None:
        # The lines before it are left empty, so that an error names the line of the page.
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, str(self._page), "exec"), vars(module))  # noqa: S102 -- the point of this module

    def _obey(self, mark: Mark) -> None:
        where = f"{title(self._page)}:{mark.line}"
        if mark.word == "check":
            assert eval(mark.text, vars(self._own)), f"{where}: not true: {mark.text}"  # noqa: S307 -- our own page
            return
        order, _blank, rest = mark.text.partition(" ")
        match order:
            case "drain":
                drain()
            case "later":
                dialect_of("default").clock_offset += timedelta(seconds=float(rest))
                promote()
                drain()
            case "worker":
                self._undo.enter_context(worker_beside())
            case "tests":
                run_tests(rest, where)
            case _:
                raise AssertionError(f"{where}: there is no order {mark.text!r}")

    def _apply_settings(self, block: Block) -> None:
        module = ModuleType("project.settings")
        own = {"ENGINE": "django.db.backends.sqlite3", "NAME": self._folder / "db.sqlite3"}
        databases: dict[str, dict[str, Any]] = {"default": dict(own)}
        given = {"BASE_DIR": self._folder, "INSTALLED_APPS": list(settings.INSTALLED_APPS), "DATABASES": databases}
        vars(module).update(given)
        self._execute(block, module)
        for database in vars(module)["DATABASES"].values():
            if database != own:
                assert warnings_about(database) == [], f"{title(self._page)}:{block.line}"
        if hasattr(module, "DURABLE_JOBS"):
            self._undo.enter_context(override_settings(DURABLE_JOBS=module.DURABLE_JOBS))
            found = [message for message in run_checks() if message.level >= ERROR]
            assert not found, f"{title(self._page)}:{block.line}: {found}"

    # Files of a project -------------------------------------------------------------------------------------

    def _module(self, name: str, *, folder: Path | None = None) -> ModuleType:
        module = ModuleType(name)
        module.__file__ = str((folder or self._folder) / "__init__.py")
        module.__package__ = name if folder is not None else name.rpartition(".")[0]
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            module.__path__ = [str(folder)]
        parent, _dot, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
        sys.modules[name] = module
        self._undo.callback(sys.modules.pop, name, None)
        return module

    def _file(self, name: str) -> ModuleType:
        """Return the module of a file, made with the packages around it when it is new."""
        words = name.split(".")
        for length in range(1, len(words)):
            package = ".".join(words[:length])
            if package not in sys.modules:
                self._module(package, folder=self._folder.joinpath(*words[:length]))
                if length == 1:
                    self._install(package)
        return sys.modules.get(name) or self._module(name)

    def _install(self, package: str) -> None:
        self._undo.callback(_forget_models, package)
        self._undo.enter_context(modify_settings(INSTALLED_APPS={"append": package}))

    def _create_tables(self, package: str) -> None:
        connection = connections["default"]
        present = connection.introspection.table_names()
        for model in apps.get_app_config(package).get_models():
            if model._meta.db_table not in present:
                with connection.schema_editor() as editor:
                    editor.create_model(model)
                self._undo.callback(_drop_table, model)


def warnings_about(database: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what the checks say about an entry of ``DATABASES``; of other vendors than SQLite they ask the server."""
    if not database["ENGINE"].endswith("sqlite3"):
        return []
    connections.settings[_CHECKED] = {**connections["default"].settings_dict, "OPTIONS": {}, **database}
    try:
        return dialect_of(_CHECKED).database_warnings()
    finally:
        del connections.settings[_CHECKED], connections[_CHECKED]


def _drop_table(model: Any) -> None:
    with connections["default"].schema_editor() as editor:
        editor.delete_model(model)


def _forget_models(package: str) -> None:
    apps.all_models.pop(package, None)
    apps.clear_cache()


@contextmanager
def stage(page: Path, folder: Path) -> Iterator[Stage]:
    """Give the stage for a page, and clear it afterwards: modules, apps, tables, registered jobs, receivers, clock."""
    definitions = dict(registry._definitions)
    environment = dict(os.environ)
    with ExitStack() as undo:
        undo.callback(os.environ.update, environment)
        undo.enter_context(contextlib.chdir(folder))
        undo.enter_context(mock.patch("time.sleep", _sleep_shortly))
        undo.callback(registry._definitions.update, definitions)
        undo.callback(registry._definitions.clear)
        for signal in SIGNALS.values():
            undo.callback(setattr, signal, "receivers", list(signal.receivers))
        yield Stage(page, folder, undo)


def _sleep_shortly(seconds: float, *, really: Callable[[float], None] = time.sleep) -> None:
    really(min(seconds, LONGEST_SLEEP))


@contextmanager
def worker_beside() -> Iterator[None]:
    """Run a worker of all queues beside the page, as in another terminal."""
    worker = Worker(WorkerOptions(name=f"beside-{os.getpid()}"))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run)
        try:
            yield
        finally:
            worker.stop()
            running.result()


def drain() -> None:
    """Let a real worker run everything that is pending, on every queue."""
    if Queue.objects.exists():
        Worker(WorkerOptions(name=f"docs-{os.getpid()}", concurrency=4, drain=True)).run()
        with warnings.catch_warnings():
            # A worker that ran async jobs leaves its stopped event loop to the collector; its process would end here.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    open_ones = Job.objects.pending().exclude(queue__in=paused_queues().values("name"))
    assert not open_ones.exists()
    assert not Job.objects.running().exists()


def run_tests(package: str, where: str) -> None:
    """Run the test cases that the page has written into a package, as ``manage.py test`` would."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith(f"{package}.")]
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromModule, modules))
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun > 0, f"{where}: no tests in {package}"
    assert result.wasSuccessful(), f"{where}: {result.errors + result.failures}"
