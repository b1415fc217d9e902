"""Which definitions exist in this process, by name. The only way from a stored name to code.

A worker, the admin or a command that meets a name in a row asks here; a miss is an answer
(``UnknownDefinition``), never an import. Names get in by importing the project's own ``jobs`` modules.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from .conf import get_settings
from .definitions import Definition
from .errors import DefinitionError, UnknownDefinition

_definitions: dict[str, Definition] = {}


def register(definition: Definition) -> None:
    """Add a definition; two different functions under one name are refused, naming both places.

    The same function seen again (its module was reloaded) replaces itself.
    """
    known = _definitions.get(definition.name)
    if known is not None and known.place != definition.place:
        raise DefinitionError(
            f"Two durable jobs have the name {definition.name!r}: {known.place} and {definition.place}. "
            "Give one of them another name: @durable_job(name=...)."
        )
    _definitions[definition.name] = definition


def get(name: str) -> Definition:
    """Return the definition of this name, or raise ``UnknownDefinition`` with the nearest known name."""
    try:
        return _definitions[name]
    except (KeyError, TypeError):
        near = difflib.get_close_matches(str(name), _definitions, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else " Is its module imported (a jobs.py in an installed app)?"
        raise UnknownDefinition(f"No durable job is registered as {str(name)[:80]!r}.{hint}") from None


def names() -> Iterator[str]:
    """Yield the registered names, sorted."""
    yield from sorted(_definitions)


def queues() -> list[str]:
    """Return the queues that registered definitions use by default, sorted."""
    default = get_settings().default_queue
    return sorted({definition.options.queue or default for definition in _definitions.values()})
