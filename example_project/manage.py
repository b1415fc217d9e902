"""The command line of the example project: `python example_project/manage.py demo` is the place to begin."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

NEEDED = ("django", "django_durable_jobs", "rich")


def main() -> None:
    """Run a management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f'{missing[0]} is not installed here. From the folder above: python -m pip install -e ".[demo]"')
    from config.databases import UnusableDatabase  # noqa: PLC0415 - of the example, like the settings that raise it
    from django.core.management import execute_from_command_line  # noqa: PLC0415 - only once it is known to be there

    try:
        execute_from_command_line(sys.argv)
    except UnusableDatabase as error:
        sys.exit(f"DEMO_DATABASE_URL: {error}")


if __name__ == "__main__":
    main()
