"""What a running job stores beside its checkpoints: named values and its progress. Both may be overwritten.

Every write locks the job's row under its token first, so an attempt whose lease was lost changes nothing.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ..dialects.now import DatabaseNow
from ..dialects.rows import Claimed
from ..models import NamedValue
from .database import alias, dialect, jobs
from .steps import hold


def save_value(job: Claimed, name: str, text: str, *, heed: bool) -> None:
    """Store a value under a name of the job, in place of the one that is there. To be called in a transaction."""
    hold(job, heed=heed)
    values = NamedValue.objects.using(alias())
    # Nobody else adds one meanwhile: the job's row is locked.
    if not values.filter(job_id=job.id, name=name).update(value=text, saved_at=DatabaseNow()):
        values.create(job_id=job.id, name=name, value=text)


def load_value(job_id: UUID, name: str) -> str | None:
    """Return the value under this name, in its stored form; ``None`` when there is none."""
    found = NamedValue.objects.using(alias()).filter(job_id=job_id, name=name)
    return found.values_list("value", flat=True).first()


def save_progress(job: Claimed, progress: dict[str, Any], *, heed: bool, wait: bool = True) -> bool:
    """Store how far a job has come. To be called in a transaction.

    Without ``wait`` nothing is done, and ``False`` returned, while somebody else has the job's row locked.
    """
    this = jobs().filter(id=job.id)
    if not wait and not this.select_for_update(skip_locked=dialect().has_skip_locked).values_list("id").first():
        return False
    hold(job, heed=heed)
    this.update(progress=progress)
    return True
