"""The exceptions, as a tree and as a table, from `errors.py`."""

from __future__ import annotations

import django_durable_jobs
from django_durable_jobs import errors
from tests.docs.facts.markdown_tables import code, first_line, listed, markdown_table


def classes() -> list[type[BaseException]]:
    """Return the exceptions in the order of the tree."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BaseException)]
    return [one for one in found if one.__module__ == errors.__name__]


def _parent(one: type[BaseException]) -> type[BaseException]:
    return one.__mro__[1]


def tree() -> str:
    """Return the tree in the form of a listing."""
    ours = classes()
    roots = [one for one in ours if _parent(one) not in ours]
    lines = ["```text"]
    for root in roots:
        lines.append(f"{root.__name__} ({_parent(root).__name__})")
        children = [one for one in ours if _parent(one) is root]
        for child in children:
            others = [base.__name__ for base in child.__bases__ if base is not root]
            beside = f" ({', '.join(others)})" if others else ""
            lines.append(f"{'└' if child is children[-1] else '├'}── {child.__name__}{beside}")
    return "\n".join([*lines, "```"])


def table() -> str:
    """Return a table with the meaning of each."""
    rows = []
    for one in classes():
        public = one.__name__ in django_durable_jobs.__all__
        home = "django_durable_jobs" if public else "django_durable_jobs.errors"
        others = [base.__name__ for base in one.__bases__]
        rows.append([code(one.__name__), listed(others), first_line(one), code(home)])
    return markdown_table(["exception", "is a", "meaning", "import from"], rows)
