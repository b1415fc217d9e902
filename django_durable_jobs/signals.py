"""Django signals that tell events in the process where they happen, after their commit; each at most once.

``@receiver(job_failed)`` or ``job_failed.connect(...)``, as with any signal of Django; receivers get ``sender`` and
``event``. The sender is a name: of the definition, the queue or the worker. Receivers may be async. One that raises is
logged, and changes nothing.

Outside of workers they are called by the thread that committed. In a worker they have a thread of their own
(``worker/announcer.py``): those that commit there must not wait for a project's code.

Whether anybody listens is asked before an event is made: ``EventSignal.anybody`` once for a batch, ``hears`` for each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import cache, partial, wraps
from inspect import iscoroutinefunction
from typing import Any, ClassVar, Generic, TypeVar

from django.db import transaction
from django.dispatch import Signal

from .conf import get_settings
from .errors import DefinitionError
from .events import (
    CheckpointSavedEvent,
    Event,
    JobCancelledEvent,
    JobCompletedEvent,
    JobEnqueuedEvent,
    JobExpiredEvent,
    JobFailedEvent,
    JobParkedEvent,
    JobPausedEvent,
    JobReleasedEvent,
    JobRescuedEvent,
    JobResumedEvent,
    JobRetryingEvent,
    JobSnoozedEvent,
    JobStartedEvent,
    QueuePausedEvent,
    QueueResumedEvent,
    WorkerPausedEvent,
    WorkerResumedEvent,
    WorkerStartedEvent,
    WorkerStoppedEvent,
)
from .rendering import safe_repr

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
Courier = Callable[["EventSignal[Any]", Event], object]

_senders: dict[str, str] = {}
"""Names that receivers were connected for: Django knows a sender by its identity, and equal names may be two texts."""
_couriers: list[Courier] = []


class EventSignal(Signal, Generic[E]):
    """A signal of one kind of event."""

    anybody: ClassVar[bool] = False
    """Whether somebody has ever connected to any of these signals: false in most processes, and cheap to ask."""

    def __init__(self, event: type[E]) -> None:
        """Take the class of the events."""
        super().__init__()
        self.event = event

    def connect(
        self,
        receiver: Callable[..., Any],
        sender: object = None,
        weak: bool = True,  # noqa: FBT001, FBT002 -- Django's signature
        dispatch_uid: Any = None,
    ) -> None:
        """Connect a receiver, for all senders or one: a durable job or its name, a queue, a worker.

        Raises ``DefinitionError`` for a sender without a name.
        """
        EventSignal.anybody = True
        super().connect(receiver, _name_of(sender), weak, dispatch_uid)

    def disconnect(
        self, receiver: Callable[..., Any] | None = None, sender: object = None, dispatch_uid: Any = None
    ) -> bool:
        """Disconnect it again, with what it was connected by; answer whether it was connected."""
        return super().disconnect(receiver, _name_of(sender), dispatch_uid)

    def hook(self, sender: object, function: Callable[[E], Any]) -> None:
        """Call a function with the events of one sender, from now on."""
        if iscoroutinefunction(function):

            async def receiver(*, event: E, **_more: object) -> None:
                await function(event)

        else:

            def receiver(*, event: E, **_more: object) -> None:  # type: ignore[misc]  # the other kind of function
                function(event)

        self.connect(wraps(function)(receiver), sender, weak=False)

    def hears(self, sender: str) -> bool:
        """Answer whether an event of this sender has a receiver."""
        return bool(self.receivers) and self.has_listeners(_senders.get(sender, sender))

    def tell(self, *events: E) -> None:
        """Tell of facts that are committed."""
        courier = _couriers[-1] if _couriers else EventSignal.deliver
        for event in events:
            try:
                courier(self, event)
            except Exception:  # such as no memory for a thread: what was committed goes on all the same
                logger.exception("%s could not be told", type(event).__name__, extra=event.log_fields())

    def tell_after_commit(self, events: Iterable[E]) -> None:
        """Tell of facts when the present transaction on the jobs' database commits; never, if it does not."""
        if found := [event for event in events if self.hears(event.sender)]:
            transaction.on_commit(partial(self.tell, *found), using=get_settings().database, robust=True)

    def deliver(self, event: E) -> None:
        """Call the receivers, here and now."""
        sender = _senders.get(event.sender, event.sender)
        try:
            answers = self.send_robust(sender, event=event)
        except Exception as error:  # noqa: BLE001 -- such as async receivers beside a running event loop
            answers = [(self.deliver, error)]
        for receiver, answer in answers:
            if isinstance(answer, Exception):
                name = getattr(receiver, "__qualname__", None) or safe_repr(receiver, 80)
                what = type(event).__name__
                text = "Receiver %s of %s failed; what it was told of has happened all the same"
                logger.error(text, name, what, exc_info=answer, extra=event.log_fields())

    def _log_robust_failure(self, receiver: object, err: Exception) -> None:
        # Django's own line would not say which job; ours comes from ``deliver``.
        pass


def _name_of(sender: object) -> str | None:
    if sender is None:
        return None
    name = getattr(sender, "name", sender)
    if not isinstance(name, str):
        raise DefinitionError(
            f"sender={safe_repr(sender, 80)} has no name: give a durable job, a queue or a worker, or the name of one."
        )
    return _senders.setdefault(name, name)


@cache
def _forget_couriers_in_forks() -> None:
    # A process that a job forks has none of its parent's threads.
    os.register_at_fork(after_in_child=_couriers.clear)


@contextmanager
def handing_over(courier: Courier) -> Generator[None]:
    """Have a courier call the receivers of what is told meanwhile in this process."""
    _forget_couriers_in_forks()
    _couriers.append(courier)
    try:
        yield
    finally:
        if courier in _couriers:
            _couriers.remove(courier)


job_enqueued = EventSignal(JobEnqueuedEvent)
job_started = EventSignal(JobStartedEvent)
checkpoint_saved = EventSignal(CheckpointSavedEvent)
job_completed = EventSignal(JobCompletedEvent)
job_failed = EventSignal(JobFailedEvent)
job_retrying = EventSignal(JobRetryingEvent)
job_snoozed = EventSignal(JobSnoozedEvent)
job_parked = EventSignal(JobParkedEvent)
job_released = EventSignal(JobReleasedEvent)
job_rescued = EventSignal(JobRescuedEvent)
job_cancelled = EventSignal(JobCancelledEvent)
job_expired = EventSignal(JobExpiredEvent)
job_paused = EventSignal(JobPausedEvent)
job_resumed = EventSignal(JobResumedEvent)
queue_paused = EventSignal(QueuePausedEvent)
queue_resumed = EventSignal(QueueResumedEvent)
worker_started = EventSignal(WorkerStartedEvent)
worker_stopped = EventSignal(WorkerStoppedEvent)
worker_paused = EventSignal(WorkerPausedEvent)
worker_resumed = EventSignal(WorkerResumedEvent)
