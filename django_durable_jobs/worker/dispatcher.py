"""The heart of a worker: one round stores what has ended and claims what there is room for, in one commit.

Endings gather while a round is on its way, so an idle worker writes each at once and a loaded one writes many
together. The same thread hands claimed jobs to the lanes. It never runs user code.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..dialects.rows import Claim, Claimed, Want
from ..durable.frames import fields_of
from ..errors import Interrupted
from ..faults import fault
from ..operations.database import jobs
from ..operations.finish import Ending, finish
from ..operations.leases import release_unknown
from ..operations.limited_claim import claim_limited
from ..operations.queues import queue_names
from ..outcomes import BackedOff, Lost, Outcome, Parked, Released, Snoozed
from ..rendering import safe_str
from .chunks import ChunkExecutor
from .held_back import HeldBack
from .lanes import Lane
from .leases import Leases
from .looks import Looks
from .options import WorkerOptions
from .pool import Loop, ThreadPool
from .storing import is_passing, store_one

logger = logging.getLogger(__name__)

TICK: Final = 0.01
"""Seconds until jobs that wait beside free slots get more threads."""
HELD_TOO_LONG: Final = 0.5
"""Seconds after which prefetched jobs that did not begin are handed back to the queue."""
MOST_AT_ONCE: Final = 500
NO_TIME: Final = timedelta(0)


class Dispatcher:
    """Claims jobs, hands them out, and stores how they ended."""

    name = "dispatcher"

    def __init__(
        self,
        options: WorkerOptions,
        worker_id: int,
        leases: Leases,
        executor: ChunkExecutor,
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        """Take what was asked for on the command line and what is shared with the other services."""
        self._options = options
        self._worker_id = worker_id
        self._leases = leases
        self._executor = executor
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        for queue, concurrency in (options.queues or {}).items():
            self.serve(queue, concurrency)
        self._ended: deque[tuple[Claimed, Outcome]] = deque()
        threads = options.threads or max(sum((options.queues or {}).values()), options.concurrency)
        self.threads = ThreadPool(threads, executor, self.ended, clock=clock)
        self.loop = Loop(executor, self.ended, clock=clock)
        self._unwritten: list[Ending] = []
        self._unsure = False
        self._accepting = True
        self.held_back = HeldBack(leases)
        self._claimed = 0
        self.looks = Looks(options, clock)
        self.listening = False
        self.wake: Callable[[], None] = lambda: None
        self.due_later: Callable[[float], None] = lambda _seconds: None
        self.drained = threading.Event()

    # What others may ask ------------------------------------------------------------------------------------

    def serve(self, queue: str, concurrency: int) -> None:
        """Begin to take jobs of this queue; nothing changes for one that is served already."""
        if queue not in self._lanes:
            self._lanes = {**self._lanes, queue: Lane(queue, concurrency)}

    @property
    def queues(self) -> list[str]:
        """The queues that are served."""
        return list(self._lanes)

    @property
    def open_queues(self) -> list[str]:
        """Those of them that are not paused here."""
        return [queue for queue in self._lanes if queue not in self.held_back]

    def look_now(self) -> None:
        """Ask the queues at once: somebody said that there is work."""
        self.looks.at_once()
        self.wake()

    def ended(self, job: Claimed, outcome: Outcome) -> None:
        """Take an outcome; from any thread."""
        self._leases.code_is_over(job)
        self._ended.append((job, outcome))
        self.wake()

    def stop_claiming(self) -> None:
        """Claim nothing more; what has not begun goes back at the next round."""
        self._accepting = False
        self.wake()

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing is left to write."""
        return not self._ended and not self._unwritten and not len(self._leases)

    def abandon_running(self) -> int:
        """Hand back the jobs whose code still runs; its later results are refused. Returns their number."""
        held = set(self._leases.held())
        interrupted = self._leases.interrupt(held, Interrupted("The worker stops."))
        self.loop.cancel_all()
        for job, outcome in self._leases.given_up():
            self.ended(job, outcome)
        return interrupted

    # The round ----------------------------------------------------------------------------------------------

    def run_once(self) -> float:
        """Do one round; return the seconds until the next unless woken."""
        paused = self.held_back.paused
        pause = self._round()
        self.held_back.note_obeyed(paused)
        return pause

    def _round(self) -> float:
        self._collect()
        self._give_back()
        if self._unsure:
            # A claim whose answer was lost may have given us jobs that we do not know of.
            release_unknown(self._worker_id, self._leases.held())
            self._unsure = False
        wants = self._wants()
        if not self._unwritten and not wants:
            self._hand_out(at_once=True)
            self._accepting &= not (self._options.drain and self.idle and not self.open_queues)
            return self._pause()
        limited = [want for want in wants if self.looks.is_limited(want.queue)]
        plain = [want for want in wants if want not in limited]
        claimed = self._write_and_claim(self._order(plain) if plain else None)
        self._take_in(claimed)
        self.looks.came(len(claimed), sum(want.amount for want in plain), told=self.listening)
        if limited:
            claimed = claimed + self._claim_limited(limited)
        if wants and not claimed and self._options.drain and self.idle:
            self._accepting = self._anything_left()
        return self._pause()

    def _collect(self) -> None:
        fresh: dict[int, tuple[Claimed, Outcome]] = {}
        while self._ended:
            job, outcome = self._ended.popleft()
            # A job that was given up at the stop and ended in the same moment: what it did counts.
            if not (isinstance(outcome, Released | Lost) and id(job) in fresh):
                fresh[id(job)] = job, outcome
        for job, outcome in fresh.values():
            if isinstance(outcome, Lost):
                self._leases.end([job])
            else:
                self._unwritten.append(Ending(job, outcome, self._options.name, self._leases.took(job)))

    def _write_and_claim(self, claim: Claim | None) -> list[Claimed]:
        endings = self._unwritten[:MOST_AT_ONCE]
        fault("before-finish")
        try:
            stored, claimed = finish(endings, claim)
        except Exception as error:
            self._unsure = True
            if not endings or is_passing(error):
                raise
            logger.warning("A group of endings was refused, storing one by one: %s", safe_str(error, 500))
            for ending in endings:
                self._written([ending], store_one(ending))
            return []
        fault("after-finish")
        self._written(endings, stored)
        return claimed

    def _written(self, endings: list[Ending], stored: set[UUID]) -> None:
        done = {id(ending) for ending in endings}
        self._unwritten = [ending for ending in self._unwritten if id(ending) not in done]
        self._leases.end([ending.job for ending in endings])
        self.looks.ended({ending.job.queue for ending in endings})
        for ending in endings:
            if isinstance(ending.outcome, (BackedOff, Snoozed)):
                self.due_later(ending.outcome.delay.total_seconds())
            elif isinstance(ending.outcome, Parked) and ending.outcome.until is not None:
                # When exactly is the database's to say.
                self.due_later(0.0)
            if ending.job.id not in stored:
                fields = fields_of(ending.job, ending.worker_name)
                text = "Job %s ended here after its lease was lost; nothing was stored"
                logger.info(text, ending.job.id, extra=fields)

    # Claiming -----------------------------------------------------------------------------------------------

    def _wants(self) -> list[Want]:
        if not self._accepting:
            return []
        left = MOST_AT_ONCE
        if self._options.max_jobs is not None:
            left = min(left, self._options.max_jobs - self._claimed)
        if self._options.alone:
            # Nothing else may be in this process, not even an ending that is not stored yet.
            left = 0 if len(self._leases) > 0 else min(left, 1)
        wants = []
        for lane in self._lanes.values():
            if lane.queue in self.held_back or not self.looks.is_due(lane.queue, anyway=bool(self._unwritten)):
                continue
            amount = min(left, lane.room())
            if amount > 0:
                wants.append(Want(lane.queue, amount))
                left -= amount
        return wants

    def _order(self, wants: list[Want]) -> Claim:
        return Claim(self._worker_id, self._options.lease, wants, rescued=self._options.alone)

    def _claim_limited(self, wants: list[Want]) -> list[Claimed]:
        try:
            taken = claim_limited(self._order(wants))
        except Exception:
            self._unsure = True
            raise
        self._take_in(taken.jobs)
        self.looks.came_limited(wants, taken, told=self.listening)
        return taken.jobs

    def _take_in(self, claimed: list[Claimed]) -> None:
        fault("after-claim")
        self._claimed += len(claimed)
        self._leases.add(claimed)
        self._deliver(claimed)

    def _anything_left(self) -> bool:
        if self._options.queues is None:
            # A job that was just run may have been the first to use a queue.
            for name in queue_names():
                self.serve(name, self._options.concurrency)
        # What is paused is not waited for: it may stay so.
        here = jobs().on_queues(self.open_queues)
        if self._options.alone:
            return here.pending().filter(rescues__gt=0).exists()
        return here.pending().exists() or here.running().exists()

    # Handing out --------------------------------------------------------------------------------------------

    def _deliver(self, claimed: Iterable[Claimed]) -> None:
        now = self._clock.monotonic()
        for job in claimed:
            lane = self._lanes[job.queue]
            definition = self._executor.definition_of(job)
            if definition is None or (size := definition.options.chunk) is None:
                lane.add(job, for_loop=definition is not None and definition.is_async)
            else:
                growing = 0.0 if self._options.alone else (definition.options.chunk_timeout or NO_TIME).total_seconds()
                lane.gather(job, size, now + growing, for_loop=definition.is_async)
            lane.delivered_at = now
        self._hand_out(at_once=False)

    def _hand_out(self, *, at_once: bool) -> None:
        for lane in self._lanes.values():
            if lane.forms_until is not None:
                lane.form(self._clock.monotonic())
            if (count := lane.threads_wanted(at_once=at_once)) > 0:
                self.threads.send(lane, count)
            if lane.has_work_for_loop():
                self.loop.pump(lane)

    def _give_back(self) -> None:
        """Return to their queues the jobs that have not begun: when the worker stops, or when they wait too long."""
        too_late = self._clock.monotonic() - HELD_TOO_LONG
        for lane in self._lanes.values():
            late = lane.waiting and lane.delivered_at < too_late
            closed = not self._accepting or lane.queue in self.held_back
            if late or closed:
                if not closed:
                    lane.slow_down(HELD_TOO_LONG)
                back = lane.give_back(forming=closed)
                self._claimed -= len(back)
                self._unwritten += [Ending(job, Released(begun=False), self._options.name) for job in back]

    def _pause(self) -> float:
        pause = self._pause_without_chunks()
        for lane in self._lanes.values():
            if (due := lane.forms_until) is not None:
                pause = min(pause, max(0.0, due - self._clock.monotonic()))
        return pause

    def _pause_without_chunks(self) -> float:
        if self._ended or self._unwritten:
            return 0.0
        most = self._options.max_jobs
        over = not self._accepting or (most is not None and self._claimed >= most)
        if over and self.idle:
            self.drained.set()
        if any(lane.waiting for lane in self._lanes.values()):
            return TICK
        if over:
            return 1.0
        looks = (self.looks.seconds(lane.queue) for lane in self._lanes.values() if lane.room() > 0)
        return max(0.0, min(looks, default=1.0))
