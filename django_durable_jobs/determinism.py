"""How strictly a job's code is held to what earlier attempts have recorded; the matching is ``durable/replay.py``."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Determinism(StrEnum):
    """What happens when a job's code, run again, does not make the calls that are recorded.

    In no mode does a call get the value of another call.
    """

    EXPLICIT = "explicit"
    """Another call at a recorded place stops the job with ``NonDeterminism``. The last ones may be left out."""
    STRICT = "strict"
    """The same, and it is an error too when the code returns without having made every recorded call."""
    BEST_EFFORT = "best_effort"
    """Another call at a recorded place is logged and run, and so is all that comes after: a new generation begins."""
