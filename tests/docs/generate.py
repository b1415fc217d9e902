"""Write what the reference pages take from the code: ``python -m tests.docs.generate``.

A page holds regions between ``<!-- generated:NAME -->`` and ``<!-- generated:end -->``. ``FACTS`` says which
function makes a region; everything around it is written by hand. Pages that are made as a whole come from
`tests.reference`. A test sees that the pages are up to date.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import django

from tests import reference
from tests.databases import ROOT

REGION: Final = re.compile(r"<!-- generated:(?P<name>[\w-]+) -->\n.*?<!-- generated:end -->", re.DOTALL)


def facts() -> dict[str, Callable[[], str]]:
    """Return what makes each region; looked up late, as the facts need loaded apps."""
    from tests.docs.facts import api, command, errors, signals, statuses, tables  # noqa: PLC0415 -- Django is set up first

    return {
        "checks": command.checks,
        "constraints": tables.constraints,
        "error-tree": errors.tree,
        "errors": errors.table,
        "indexes": tables.indexes,
        "options": api.options,
        "public-names": api.names,
        "runjobs-options": command.options,
        "signals": signals.table,
        "statuses": statuses.table,
        "tables": tables.columns,
        "transitions": statuses.transitions,
    }


def expected_files() -> dict[Path, str]:
    """Return every file that is generated, or has generated regions, with the text that it should have."""
    from tests.docs.facts import statuses  # noqa: PLC0415 -- as above

    known = facts()
    files = {ROOT / "docs" / "reference" / statuses.PICTURE_NAME: statuses.picture()}
    files |= {reference.FOLDER / name: make() for name, make in reference.PAGES.items()}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        if "_build" in page.parts or not REGION.search(text):
            continue
        files[page] = REGION.sub(
            lambda region: (
                f"<!-- generated:{region['name']} -->\n\n{known[region['name']]().strip()}\n\n<!-- generated:end -->"
            ),
            text,
        )
    return files


def main() -> int:
    """Write the files whose text has changed."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    for path, text in expected_files().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
