"""What stands nowhere in the package, and what must be complete."""

from __future__ import annotations

import ast
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.architecture.test_house import SOURCES, relative

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "yaml", "jsonpickle", "dill"}
"""S10: a database writer must not become a code runner."""
FORBIDDEN_CALLS = {"eval", "exec", "compile", "mark_safe", "print", "breakpoint"}
"""S10, S26; and nothing is printed: commands write to their own stream, the rest logs."""
EMPTY_NAMES = {"utils.py", "helpers.py", "misc.py", "common.py", "compat.py"}
"""Names that say nothing of what stands in the file."""
LEFTOVERS = ("TODO", "FIXME", "XXX", "HACK")


def imported(tree: ast.Module) -> set[str]:
    """Return the top names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def called(tree: ast.Module) -> set[str]:
    """Return the plain names that a file calls."""
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


@pytest.mark.once
@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_forbidden_stands_in_a_file(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert imported(tree) & FORBIDDEN_MODULES == set()
    assert called(tree) & FORBIDDEN_CALLS == set()
    assert path.name not in EMPTY_NAMES
    assert [word for word in LEFTOVERS if word in text] == []


@pytest.mark.once
@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_says_what_lives_there(path: Path) -> None:
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text))


@pytest.mark.once
@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_import_is_tried(path: Path) -> None:
    """An optional package is imported at the top of the one room that needs it, never in a ``try``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            assert "ImportError" not in ast.dump(node.type)
            assert "ModuleNotFoundError" not in ast.dump(node.type)


@pytest.mark.django_db
def test_the_migrations_are_complete() -> None:
    out = StringIO()
    call_command("makemigrations", "django_durable_jobs", check_changes=True, dry_run=True, stdout=out)
    assert "No changes detected" in out.getvalue()
