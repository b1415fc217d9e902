"""Identifiers: UUIDv7 for jobs (they sort by creation), UUIDv5 for what must be derived again and again.

Also here: how every order names the job it is for.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from uuid_utils.compat import uuid7

from .errors import JobNotFound
from .rendering import safe_repr

__all__ = ["Identified", "id_of", "idempotency_key", "is_job_id", "lowest_id_at", "new_job_id", "parse_id"]

CALL_NAMESPACE: Final = UUID("6a4f3a53-1d0e-5b6d-9d2b-0b8a5f1c7e11")
"""Our own namespace for keys of calls; a constant for ever, since outside systems remember the keys."""


class Identified(Protocol):
    """A job or a handle of one."""

    @property
    def id(self) -> UUID:
        """The job's id."""
        ...


def new_job_id() -> UUID:
    """Make an id for a job, to be stored with a row of yours and given by ``using(id=...)``.

    It is a UUIDv7 (RFC 9562), never smaller than one made before in this process.
    """
    return uuid7()


def is_job_id(value: UUID) -> bool:
    """Answer whether ``value`` sorts by its creation, as claims and the pruner expect of the ids of jobs."""
    return value.version == 7  # noqa: PLR2004 -- the version that new_job_id makes


def lowest_id_at(instant: datetime) -> UUID:
    """Return the smallest UUIDv7 of an instant: all ids made before are smaller (RFC 9562: milliseconds first)."""
    return UUID(int=max(0, int(instant.timestamp() * 1000)) << 80)


def idempotency_key(job_id: UUID, call_key: str = "", name: str = "", generation: int = 0) -> UUID:
    """Derive the key that outside systems may use to recognise a repeated call; without a call, the job's own.

    The same job, call and generation give the same key in every attempt, on every host. The place alone would not
    do: after a change of the code, or in a later generation, another call may stand there.
    """
    return uuid.uuid5(CALL_NAMESPACE, f"{job_id}/{call_key}" + (f"/{generation}/{name}" if call_key else ""))


def parse_id(value: object) -> UUID | None:
    """Read a job id from text; ``None`` when it is none (the caller says "no such job")."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except ValueError:
        return None


def id_of(job: Identified | UUID | str) -> UUID:
    """Return the id of a job that somebody names; ``JobNotFound`` for what cannot be one."""
    job_id = parse_id(getattr(job, "id", job))
    if job_id is None:
        raise JobNotFound(f"There is no job {safe_repr(job, 80)}.")
    return job_id
