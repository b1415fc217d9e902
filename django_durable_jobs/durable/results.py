"""What became of the children of a ``gather()``, in the order in which they were given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload
from uuid import UUID

from ..errors import ChildFailed
from ..states import Status

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class ChildResult(Generic[R_co]):
    """How one child ended. ``error`` is how its last error begins, at most 500 characters; ``None`` after success."""

    index: int
    id: UUID
    definition: str
    status: Status
    error: str | None
    _value: R_co

    @property
    def succeeded(self) -> bool:
        """Whether the child completed."""
        return self.status is Status.COMPLETED

    @property
    def value(self) -> R_co:
        """The child's result; raises ``ChildFailed`` when it has none."""
        if not self.succeeded:
            raise ChildFailed(
                f"Child {self.index} ({self.definition}, {self.id}) is {self.status}: "
                f"{self.error or 'no error is recorded'}"
            )
        return self._value


class Results(Sequence[ChildResult[R_co]]):
    """What became of all children: a sequence of ``ChildResult``, in the order in which ``gather`` was given them."""

    __slots__ = ("_children",)

    def __init__(self, children: Iterable[ChildResult[R_co]]) -> None:
        """Take the children's results."""
        self._children = tuple(children)

    def values(self) -> list[R_co]:
        """Return the children's results; raises ``ChildFailed``, naming the first, when one did not succeed."""
        return [child.value for child in self._children]

    def failures(self) -> list[ChildResult[R_co]]:
        """Return the children that did not succeed: failed, cancelled or expired."""
        return [child for child in self._children if not child.succeeded]

    @property
    def all_succeeded(self) -> bool:
        """Whether every child completed; also when there are none."""
        return all(child.succeeded for child in self._children)

    @property
    def statuses(self) -> list[Status]:
        """The children's statuses."""
        return [child.status for child in self._children]

    @overload
    def __getitem__(self, index: int) -> ChildResult[R_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Results[R_co]: ...
    def __getitem__(self, index: int | slice) -> ChildResult[R_co] | Results[R_co]:
        """Return one child's result, or a stretch of them."""
        if isinstance(index, slice):
            return Results(self._children[index])
        return self._children[index]

    def __iter__(self) -> Iterator[ChildResult[R_co]]:
        """Go through the children."""
        return iter(self._children)

    def __len__(self) -> int:
        """Return the number of children."""
        return len(self._children)

    def __eq__(self, other: object) -> bool:
        """Compare child by child."""
        return isinstance(other, Results) and self._children == other._children

    def __hash__(self) -> int:
        """Agree with ``==``."""
        return hash(tuple(child.id for child in self._children))

    def __repr__(self) -> str:
        """Show how many succeeded."""
        return f"<Results of {len(self)} children, {len(self.failures())} without success>"
