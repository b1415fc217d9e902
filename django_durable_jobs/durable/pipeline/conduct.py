"""Running a pipeline, in the thread of its job or in the task of an async one; ``run`` says what comes next."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...errors import NoRetry, Snooze
from ..frames import calling_frame
from ..running import MISUSE, Call, body, body_in_time, recorded_async, store, store_async
from ..running import run_async as call_async
from ..running import run_sync as call_sync
from .run import Running
from .tries import Rest, Tried, Try

if TYPE_CHECKING:
    from ...operations.reports import RunOutcome
    from .declaration import Pipeline


def run_sync(pipeline: Pipeline, /, *args: Any, **kwargs: Any) -> str:
    """Run a pipeline in the thread of its job; returns its outcome."""
    run = Running(pipeline, calling_frame(f"Pipeline {pipeline.name}", None), args, kwargs)
    try:
        run.begin()
        _hook(run, run.start_hook())
        outcome = _steps(run)
    except Exception as error:
        ending = run.outcome_of(error)
        if ending is None:
            raise
        _hook(run, run.end_hook(run.write(ending)))
        raise NoRetry(error) from error
    _hook(run, run.end_hook(run.write(outcome)))
    return outcome


def _steps(run: Running) -> RunOutcome:
    if run.pipeline.mode == "parallel":
        return run.gather()
    steps, answer = run.steps(), None
    try:
        while True:
            order = steps.send(answer)
            answer = None
            if isinstance(order, Rest):
                run.rest(order)
            else:
                answer = _try(order)
    except StopIteration as end:
        return cast("RunOutcome", end.value)


def _try(one: Try) -> Tried:
    recorded = one.recorded()
    if recorded is not None:
        return cast("Tried", one.replayed(recorded))
    one.begin()
    try:
        text = one.ended(one.encode(body(one)))
    except (*MISUSE, Snooze):
        raise
    except Exception as error:  # noqa: BLE001 -- it is recorded
        text = one.ended(None, error)
    return cast("Tried", store(one, text))


def _hook(run: Running, call: Call | None) -> None:
    if call is None:
        return
    try:
        call_sync(call)
    except Exception as error:  # noqa: BLE001 -- it is recorded
        if rows := run.hook_failed(call, error):
            run.job.recorder.record(rows)


async def run_async(pipeline: Pipeline, /, *args: Any, **kwargs: Any) -> str:
    """Run a pipeline with async tasks in the task of its job."""
    run = Running(pipeline, calling_frame(f"Pipeline {pipeline.name}", asyncio.current_task()), args, kwargs)
    run_in_thread = run.helpers.run
    try:
        await run_in_thread(run.begin)
        await _ahook(run, run.start_hook())
        outcome = await _asteps(run)
    except Exception as error:
        ending = run.outcome_of(error)
        if ending is None:
            raise
        await _ahook(run, run.end_hook(await run_in_thread(partial(run.write, ending))))
        raise NoRetry(error) from error
    await _ahook(run, run.end_hook(await run_in_thread(partial(run.write, outcome))))
    return outcome


async def _asteps(run: Running) -> RunOutcome:
    helpers = run.helpers
    steps, answer = run.steps(), None
    try:
        while True:
            order = steps.send(answer)
            answer = None
            if isinstance(order, Rest):
                await helpers.run(partial(run.rest, order))
            else:
                answer = await _atry(order)
    except StopIteration as end:
        return cast("RunOutcome", end.value)


async def _atry(one: Try) -> Tried:
    helpers = one.job.helpers
    recorded = await recorded_async(one)
    if recorded is not None:
        return cast("Tried", one.replayed(recorded))
    await helpers.run(one.begin)
    try:
        text = await helpers.run(partial(one.ended, one.encode(await body_in_time(one, helpers))))
    except (*MISUSE, Snooze):
        raise
    except Exception as error:  # noqa: BLE001 -- it is recorded
        text = await helpers.run(partial(one.ended, None, error))
    return cast("Tried", await store_async(one, text, helpers))


async def _ahook(run: Running, call: Call | None) -> None:
    if call is None:
        return
    helpers = run.helpers
    try:
        await call_async(call)
    except Exception as error:  # noqa: BLE001 -- it is recorded
        if rows := run.hook_failed(call, error):
            await helpers.record(rows)
