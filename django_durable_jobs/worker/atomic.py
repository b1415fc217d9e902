"""Jobs with ``atomic=True``: what they write and their completion are one commit."""

from __future__ import annotations

from collections.abc import Callable

from ..dialects.rows import Claimed
from ..durable.recorder import Recorder
from ..operations.finish import complete_here, is_completed
from ..operations.one_commit import one_commit
from ..outcomes import Stored


def run_atomic(job: Claimed, recorder: Recorder, result: Callable[[], str | None]) -> Stored:
    """Run a job in a transaction that completes it; ``result`` calls its function. An error leaves nothing of it.

    Raises ``LeaseLost`` when the job is no longer held under its token, so that its writes are undone.
    """

    def store(text: str | None) -> bool:
        complete_here(job, text)
        return True

    one_commit(f"Job {job.id}", result, store, lambda: recorder.transact(lambda: is_completed(job)))
    return Stored()
