"""Every Python block of the documentation runs; every command line of it names options that exist."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

from tests.docs.commands import problems_of_commands
from tests.docs.markdown import PYTHON, Block, blocks, pages, title
from tests.docs.playing import stage

PAGES = pages()


def _python(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in PYTHON]


@pytest.mark.parametrize("page", [page for page in PAGES if _python(page)], ids=title)
@pytest.mark.django_db(transaction=True)
def test_the_python_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    with stage(page, tmp_path) as played:
        ran = played.play()
    left_out = [block for block in _python(page) if block.mark("not run") is not None]
    assert ran == len(_python(page)) - len(left_out)


@pytest.mark.parametrize("page", [page for page in PAGES if _python(page)], ids=title)
def test_python_blocks_that_are_not_run_give_a_reason_and_are_python(page: Path) -> None:
    for block in _python(page):
        ast.parse(block.text)
        reason = block.mark("not run")
        assert reason is None or len(reason.split()) > 2, f"{title(page)}:{block.line}: say why it is not run"


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=title)
def test_command_lines_name_options_that_exist(page: Path) -> None:
    assert problems_of_commands(page) == []


def test_the_documentation_has_blocks_to_run() -> None:
    """A harness that finds no blocks would pass every page."""
    assert len(list(itertools.chain.from_iterable(map(_python, PAGES)))) > 20
