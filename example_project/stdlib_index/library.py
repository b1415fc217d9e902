"""The source of the running interpreter's standard library: which files there are, and what is in one."""

from __future__ import annotations

import ast
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SKIPPED: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})
"""Folders that hold other people's packages, or no source."""

NOT_PARSED: Final = (SyntaxError, ValueError, RecursionError, MemoryError, OSError)
"""What reading and parsing a strange file may raise; the parser says MemoryError for too deep nesting."""

LONGEST_REASON: Final = 300


def stdlib() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def packages() -> dict[str, list[str]]:
    """Return the source files below each top-level name, as sorted paths relative to the library's folder."""
    root = stdlib()
    found: dict[str, list[str]] = {}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in SKIPPED)
        for name in sorted(names):
            if name.endswith(".py"):
                path = Path(folder, name).relative_to(root)
                found.setdefault(path.parts[0].removesuffix(".py"), []).append(path.as_posix())
    return {name: found[name] for name in sorted(found)}


@dataclass(frozen=True)
class Facts:
    """What is in one source file; ``problem`` says why it could not be parsed."""

    path: str
    lines: int = 0
    classes: int = 0
    functions: int = 0
    imports: int = 0
    problem: str | None = None


def examine(path: str) -> Facts:
    """Parse a file of the library and count."""
    try:
        source = (stdlib() / path).read_bytes()
        tree = ast.parse(source, filename=path)
    except NOT_PARSED as error:
        return Facts(path, problem=_printable(f"{type(error).__name__}: {error}"))
    classes = functions = imports = 0
    for statement in _statements(tree):
        match statement:
            case ast.ClassDef():
                classes += 1
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.Import() | ast.ImportFrom():
                imports += len(statement.names)
    return Facts(path, len(source.splitlines()), classes, functions, imports)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every statement; a walk that goes into expressions too takes as long as parsing."""
    blocks: list[ast.AST] = [tree]
    while blocks:
        block = blocks.pop()
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(block, field, ())
            yield from inner
            blocks += inner


def _printable(text: str) -> str:
    """Make sure that every database can store the text."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return " ".join(text.split())[:LONGEST_REASON]
