"""Reading the pages: which code blocks stand on them, and what their marks say.

A mark is an HTML comment on a line of its own, so that readers do not see it:

``<!-- not run: reason -->``        the next block is not run, for this reason
``<!-- raises: OpenTransaction -->``  the next block ends with this exception
``<!-- run: drain -->``             a real worker runs everything that is pending here
``<!-- run: later 60 -->``          the same, after the database's clock went on by so many seconds
``<!-- run: worker -->``            from here on a worker of all queues runs beside the page
``<!-- run: tests shop.tests -->``  the test cases in the modules of this package pass
``<!-- check: expression -->``      the expression is true at this place of the page
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.databases import ROOT

PYTHON: Final = frozenset({"python", "py", "python3", "pycon"})
SHELL: Final = frozenset({"console", "sh", "shell", "bash", ""})

_FENCE: Final = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_MARK: Final = re.compile(r"^ *<!-- (?P<word>not run|raises|run|check): (?P<text>.+) -->$")
_DIRECTIVE: Final = re.compile(r"^\{(?:code-block|code|sourcecode)\} *(?P<language>\S*)$")


@dataclass(frozen=True)
class Mark:
    """An order to the test, invisible to readers."""

    line: int
    word: str
    text: str


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of content."""

    line: int
    language: str
    text: str
    marks: tuple[Mark, ...]
    """The marks that speak about this block: ``not run`` and ``raises``."""

    def mark(self, word: str) -> str | None:
        """Return the text of the block's mark, if it has it."""
        return next((mark.text for mark in self.marks if mark.word == word), None)


def pages() -> list[Path]:
    """Return every page of the documentation, and the README."""
    found = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
    return [ROOT / "README.md", *found]


def title(page: Path) -> str:
    """Name a page as users of the repository do."""
    return page.relative_to(ROOT).as_posix()


def parts(page: Path) -> Iterator[Block | Mark]:
    """Yield blocks and marks in the order of the page; marks about a block come with it."""
    lines = page.read_text().splitlines()
    about: list[Mark] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := _MARK.match(line):
            mark = Mark(number, found["word"], found["text"])
            if mark.word in {"not run", "raises"}:
                about.append(mark)
            else:
                yield mark
        elif (fence := _FENCE.match(line)) is not None:
            first = number
            end = re.compile(rf"^ *{fence['fence'][0]}{{{len(fence['fence'])},}} *$")
            while number < len(lines) and not end.match(lines[number]):
                number += 1
            text = textwrap.dedent("\n".join(lines[first:number]))
            number += 1
            yield Block(first + 1, _language(fence["info"]), text, tuple(about))
            about = []
        elif line.strip() and about:
            raise AssertionError(f"{title(page)}:{about[0].line}: the mark stands before no block")


def _language(info: str) -> str:
    info = info.strip()
    if (directive := _DIRECTIVE.match(info)) is not None:
        return directive["language"]
    return info.split(" ")[0]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    return [part for part in parts(page) if isinstance(part, Block)]
