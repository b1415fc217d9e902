"""Command lines in the documentation, read by the programs' own parsers, never run.

They stand in shell blocks, in ``Exec`` lines of systemd units, and in the text between single backticks.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError

from tests import lanes
from tests.databases import LANES, ROOT
from tests.docs.markdown import SHELL, blocks, title

UNITS: Final = frozenset({"ini", "systemd", "yaml", "dockerfile"})
_SEPARATORS: Final = frozenset({"&&", "||", "|", ";", "&"})
_INLINE: Final = re.compile(r"(?<!`)`((?:[\w./-]*python[\d.]* -m |[\w./]*manage\.py |runjobs )[^`\n]*)`")


def problems_of_commands(page: Path) -> list[str]:
    """Return what is wrong with the command lines of a page, each with its place."""
    return [
        f"{title(page)}:{line}: {text.strip()}: {problem}"
        for line, text in _command_lines(page)
        for words in _commands(text)
        if (problem := _problem(words))
    ]


def _command_lines(page: Path) -> Iterator[tuple[int, str]]:
    fenced = set()
    for block in blocks(page):
        lines = block.text.splitlines()
        fenced |= set(range(block.line, block.line + len(lines)))
        for number, text in enumerate(lines, block.line):
            if block.language in UNITS and (found := re.match(r"(?:Exec\w+=|CMD |command: )(.+)", text.strip())):
                yield number, found[1]
            elif block.language in SHELL:
                yield number, text.removeprefix("$ ")
    for number, text in enumerate(page.read_text().splitlines(), 1):
        if number not in fenced:
            yield from ((number, inline) for inline in _INLINE.findall(text))


def _commands(text: str) -> Iterator[list[str]]:
    """Split a line at ``&&`` and the like; a line that is no command line gives nothing."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, "&&"]:
        if word in _SEPARATORS:
            if command:
                yield command
            command = []
        else:
            command.append(word.removesuffix(";"))


def _problem(words: list[str]) -> str | None:
    """Return what is wrong with a command, if it is one of this project and something is."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]  # variables set for the command
    if "…" in words or "..." in words:
        words = [word for word in words if word not in {"…", "..."}]
    for index, word in enumerate(words):
        if word.endswith("manage.py") and index + 1 < len(words):
            return _management(words[index + 1 :], example="example_project" in word)
        if word == "-m" and index + 1 < len(words):
            return _module(words[index + 1], words[index + 2 :])
    if words and words[0] == "runjobs":
        return _management(words, example=False)
    return None


def _management(words: list[str], *, example: bool) -> str | None:
    name, *arguments = words
    if name not in get_commands():
        return _unknown_in(_help_of(("example_project/manage.py", name) if example else (name,)), arguments)
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    for action in parser._actions:
        if action.dest == "database":
            action.choices = None  # the aliases of this process are not those of the reader's project
    parser.called_from_command_line = False  # else the parser would end the process
    try:
        parser.parse_args(arguments)
    except CommandError as error:
        return str(error)
    return None


def _module(name: str, arguments: list[str]) -> str | None:
    if name == "django":
        return _management(arguments, example=False)
    if name == "tests.lanes":
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        names = [word for word in own if not word.startswith("-") and not word.isdigit()]
        if strange := set(names) - set(LANES):
            return f"no lane is called {', '.join(strange)}"
        return _unknown_in(_help_of_lanes(), own)
    if name.partition(".")[0] in {"tests", "django_durable_jobs"}:
        return _unknown_in(_help_of(("-m", name)), arguments)
    return None


def _unknown_in(text: str, arguments: list[str]) -> str | None:
    known = set(re.findall(r"--[a-z-]+", text))
    unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option is called {unknown[0]}" if unknown else None


@functools.cache
def _help_of_lanes() -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        lanes.main(["--help"])
    return text.getvalue()


@functools.cache
def _help_of(program: tuple[str, ...]) -> str:
    """Ask a program for its help; a program that does not exist is an error of its own."""
    command = [sys.executable, *program, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)  # the example project has its own
    asked = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert asked.returncode == 0, f"{' '.join(command)}: {asked.stderr}"
    return asked.stdout
