"""What the reference pages take from the code is what the code says now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from django_durable_jobs import errors
from django_durable_jobs.states import TRANSITIONS, Status
from tests.databases import ROOT
from tests.docs.facts.errors import classes
from tests.docs.facts.statuses import EFFECTS, MEANINGS, PICTURE_NAME
from tests.docs.generate import expected_files
from tests.docs.markdown import pages, title

pytestmark = pytest.mark.once

LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def test_generated_parts_of_the_pages_are_up_to_date() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in expected_files().items() if path.read_text() != text]
    assert stale == [], "run: python -m tests.docs.generate"


def test_every_status_and_verb_is_explained_and_drawn() -> None:
    assert MEANINGS.keys() == set(Status)
    assert EFFECTS.keys() == TRANSITIONS.keys()
    picture = (ROOT / "docs" / "reference" / PICTURE_NAME).read_text()
    assert [verb for verb in TRANSITIONS if verb not in picture] == []


def test_the_tree_in_the_docstring_of_the_errors_names_every_exception() -> None:
    named = set(re.findall(r"\w+", errors.__doc__ or ""))
    assert [one.__name__ for one in classes() if one.__name__ not in named] == []


@pytest.mark.parametrize("page", pages(), ids=title)
def test_links_to_files_lead_to_files(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []
