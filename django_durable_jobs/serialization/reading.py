"""JSON text back to the value it was made from.

Here: ``decode`` and the walk that takes tags off. Not here: rebuilding annotated classes (``codec``).
"""

from __future__ import annotations

from typing import NoReturn, cast

from django_durable_jobs.errors import SerializationError
from django_durable_jobs.rendering import safe_repr

from .tags import READERS, UNREADABLE
from .values import from_json

_CLASS_TAGS = {"$enum": object, "$dataclass": dict, "$namedtuple": list}


def decode(text: str) -> object:
    """Return the value that ``encode`` was given.

    Raises ``SerializationError``, and nothing else, for a text that is not JSON, for a malformed or unknown tag,
    and for a tag of a class (``$enum``, ``$dataclass``, ``$namedtuple``), which only a ``Codec`` can read.
    """
    value = parse(text)
    return Untagger().untag(value) if '"$' in text else value


def parse(text: str) -> object:
    """Return the JSON of ``text``, tags and all; every failure is a ``SerializationError``."""
    try:
        return from_json(text)
    except UNREADABLE as error:
        message = f"The stored text is not JSON that can be read ({error}): {safe_repr(text, 80)}."
        raise SerializationError(message) from error


class Untagger:
    """One walk over parsed JSON. ``classes`` reads the tags of classes as their plain contents."""

    def __init__(self, *, classes: bool = False) -> None:
        """Say whether tags of classes may occur; ``found_classes`` tells afterwards whether they did."""
        self._classes = classes
        self.found_classes = False

    def untag(self, node: object) -> object:
        """Return the value, or raise ``SerializationError``."""
        try:
            return self._untag(node)
        except SerializationError:
            raise
        except UNREADABLE as error:
            message = f"A stored value cannot be read ({error}): {safe_repr(node, 80)}."
            raise SerializationError(message) from error

    def _untag(self, node: object) -> object:
        if type(node) is list:
            return [self._untag(item) for item in node]
        if type(node) is not dict:
            return node
        if len(node) == 1:
            ((key, content),) = node.items()
            if key[0:1] == "$":
                return self._tagged(key, content, node)
        for key in node:
            if key[0:1] == "$":
                self._refuse(node, "a tag stands alone in its object")
        return {key: self._untag(item) for key, item in node.items()}

    def _tagged(self, tag: str, content: object, node: object) -> object:
        reader = READERS.get(tag)
        if reader is not None:
            try:
                return reader(content)
            except UNREADABLE as error:
                self._refuse(node, str(error), error)
        if tag == "$dict" and type(content) is dict:
            return {key: self._untag(item) for key, item in content.items()}
        if tag in ("$tuple", "$set", "$frozenset") and type(content) is list:
            items = [self._untag(item) for item in content]
            return {"$tuple": tuple, "$set": set, "$frozenset": frozenset}[tag](items)
        if tag in _CLASS_TAGS and isinstance(content, _CLASS_TAGS[tag]):
            self.found_classes = True
            if not self._classes:
                self._refuse(node, "it was stored from a class that no annotation names any more")
            return self._class_content(tag, content)
        return self._refuse(node, "this tag is not known, or malformed")

    def _class_content(self, tag: str, content: object) -> object:
        if tag == "$dataclass":
            return {key: self._untag(item) for key, item in cast("dict[str, object]", content).items()}
        plain = self._untag(content)
        return tuple(cast("list[object]", plain)) if tag == "$namedtuple" else plain

    def _refuse(self, node: object, reason: str, cause: Exception | None = None) -> NoReturn:
        message = f"A stored value cannot be read ({reason}): {safe_repr(node, 80)}."
        raise SerializationError(message) from cause
