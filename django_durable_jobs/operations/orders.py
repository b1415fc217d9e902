"""What orders have in common: who gives them and why, how they reach a worker, and how it is known that they did."""

from __future__ import annotations

from typing import Final, Literal, get_args
from uuid import UUID

from ..conf import get_settings
from ..dialects.rows import Held
from ..errors import OptionError
from ..rendering import safe_repr
from ..serialization import encode
from .database import dialect

Mode = Literal["graceful", "aggressive"]
"""How a pause treats what runs: lets it come to its next durable call, or takes it away at once."""

LONGEST_BY: Final = 200
LONGEST_REASON: Final = 10_000

CANCEL: Final = "cancel "
PAUSE: Final = "pause "
SEIZE: Final = "seize "
ABORT: Final = "abort "
"""How a notification begins that tells the holder of a running job of an order; the job's id follows, and for a lease
that was taken away (and for good: ``ABORT``) its token."""
LOOK: Final = "! look"
"""The notification after which every worker looks what is paused."""


def check_text(what: str, text: object, longest: int) -> str:
    """Return a text that an order carries, or raise ``OptionError``."""
    if not isinstance(text, str) or len(text) > longest:
        raise OptionError(f"{what} must be a text of at most {longest} characters, not {safe_repr(text, 80)}.")
    encode(text, limit=8 * longest, what=what)  # refuses what some databases do
    return text


def check_flag(what: str, value: object) -> bool:
    """Return a yes or no, also given as a text, or raise ``OptionError``."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise OptionError(f"{what} must be true or false, not {safe_repr(value, 80)}.")


def check_mode(mode: object) -> Mode:
    """Return the mode of a pause, or raise ``OptionError``."""
    for known in get_args(Mode):
        if mode == known:
            return known  # type: ignore[no-any-return]  # a literal of Mode
    raise OptionError(f"mode must be {' or '.join(map(repr, get_args(Mode)))}, not {safe_repr(mode, 80)}.")


def tell(*payloads: str) -> None:
    """Notify workers, where the database can, when the present transaction commits. A hint: they look by themselves."""
    if get_settings().notify:
        dialect().notify(payloads)


def seized(lease: Held, how: str = SEIZE) -> str:
    """Return the notification that a lease was taken away."""
    return f"{how}{lease.id} {lease.token}"


def read_seized(payload: str) -> Held | None:
    """Read one back; ``None`` for what is none."""
    _how, _blank, lease = payload.partition(" ")
    job_id, _blank, token = lease.partition(" ")
    try:
        return Held(UUID(job_id), int(token))
    except ValueError:
        return None
