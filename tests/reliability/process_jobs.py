"""Job functions for tests with real processes. What they did is told by the lines of a file, the ledger.

`tests/jobs.py` imports this module, so that workers find the functions.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

from django.db import connection, connections, transaction

from django_durable_jobs import Backoff, ChunkItem, atomic_step, call, current_job, durable_job, sleep
from django_durable_jobs.models import Job, Message
from tests.reliability.orders import obey, wait_for

obey()
if os.environ.get("DURABLE_JOBS_TEST_BROKEN_CHILD") and "--parent-pid" in sys.argv:
    raise ImportError("broken on purpose")
if extra := os.environ.get("DURABLE_JOBS_TEST_MODULE"):
    sys.path.insert(0, str(Path(extra).parent))
    importlib.import_module(Path(extra).stem)


def note(ledger: str, line: str) -> None:
    """Append a line in one write: it is there even if the process dies at the next instruction."""
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@durable_job
def remember(ledger: str, text: str) -> str:
    """Note a text."""
    note(ledger, text)
    return text


@durable_job
def steps(ledger: str, names: list[str]) -> list[str]:
    """Make a durable call for each name, one after the other."""
    note(ledger, f"attempt {current_job().attempt}")
    return [call(remember, ledger, name) for name in names]


@durable_job
def hold(ledger: str, name: str, gate: str, seconds: float = 30.0) -> str:
    """Keep a slot until the file ``gate`` exists; never asks whether it should stop."""
    note(ledger, f"begin {name} {os.getpid()}")
    wait_for(Path(gate), seconds)
    note(ledger, f"end {name} {os.getpid()}")
    return name


@durable_job(retries=0)
def block(ledger: str, name: str) -> None:
    """Keep a slot in C, where no exception reaches the code."""
    note(ledger, f"begin {name} {os.getpid()}")
    threading.Event().wait(60)


@durable_job
def hold_then_call(ledger: str, name: str, gate: str) -> str:
    """Wait for the gate, then make a durable call: there a job whose lease is lost must stop."""
    note(ledger, f"begin {name} {os.getpid()}")
    wait_for(Path(gate))
    note(ledger, f"woke {name} {os.getpid()}")
    return call(remember, ledger, f"effect {name}")


@durable_job
def swallow(ledger: str, name: str, gate: str) -> str:
    """Do the same, but go on whatever is raised, as bad code does."""
    note(ledger, f"begin {name} {os.getpid()}")
    wait_for(Path(gate))
    try:
        call(remember, ledger, f"effect {name}")
    except BaseException as error:  # noqa: BLE001 -- the scenario
        note(ledger, f"swallowed {type(error).__name__} {os.getpid()}")
    return f"from {os.getpid()}"


@durable_job
async def hold_on_loop(ledger: str, name: str, gate: str) -> str:
    """Keep a slot on the event loop."""
    note(ledger, f"begin {name} {os.getpid()}")
    try:
        while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 -- another process makes it
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note(ledger, f"cancelled {name} {os.getpid()}")
        raise
    return name


@durable_job
def leave_a_thread(ledger: str) -> None:
    """Start a thread that never ends and is no daemon."""
    # It would inherit being a daemon from the worker's thread.
    threading.Thread(target=threading.Event().wait, daemon=False).start()


@durable_job
def fork_and_terminate(ledger: str) -> int:
    """Fork a process as `multiprocessing` may, send it SIGTERM, and return how it ended."""
    child = os.fork()
    if child == 0:
        note(ledger, f"forked {os.getpid()}")
        threading.Event().wait(20)
        os._exit(0)
    while not Path(ledger).exists() or f"forked {child}" not in Path(ledger).read_text():
        threading.Event().wait(0.01)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@durable_job
def fork_and_query(ledger: str) -> bool:
    """Fork while a connection is open; query in both processes, and close everything in the child."""
    before = Job.objects.count(), connection.connection
    child = os.fork()
    if child == 0:
        try:
            queried = Job.objects.count()
            note(ledger, f"child {queried} {'shared' if connection.connection is before[1] else 'own'}")
            connections.close_all()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return (Job.objects.count(), connection.connection) == before


@durable_job
def fork_and_name_sessions(ledger: str) -> bool:
    """Fork, query in both processes, and note whether the child's session was there before the fork."""
    before = _session(), connection.connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity")
        known = {pid for (pid,) in cursor.fetchall()}
    child = os.fork()
    if child == 0:
        try:
            note(ledger, f"child {'shared' if _session() in known else 'own'}")
            connections.close_all()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return (_session(), connection.connection) == before


@durable_job
def leave_transaction_open(ledger: str) -> None:
    """Leave a transaction open, in a session whose number is noted."""
    transaction.set_autocommit(False)
    note(ledger, f"session {_session()}")


def _session() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


@durable_job
def spin(seconds: float) -> int:
    """Compute, in Python alone."""
    turns, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        turns += 1
    return turns


@durable_job
def hold_the_interpreter(ledger: str, gate: str, seconds: float) -> None:
    """Stay in one C call that never lets another thread of this process run; not if the gate is there already."""
    note(ledger, f"begin {os.getpid()}")
    if not Path(gate).exists() and len(Path(ledger).read_text().splitlines()) == 1:
        ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1_000_000)))
    wait_for(Path(gate))


@durable_job
def say(text: str) -> None:
    """Print a line."""
    print(text)  # noqa: T201 -- the scenario


@durable_job
def stepping_out(names: list[str]) -> list[str | None]:
    """Return the process id and variables of the environment; then change that and the working folder."""
    found = [str(os.getpid()), *(os.environ.get(name) for name in names)]
    os.environ["LEFT_BY_JOB"] = "here"
    os.chdir("/")
    return found


@durable_job(backoff=Backoff.none())
def die(ledger: str, name: str, how: str) -> None:
    """End the process, or try to."""
    note(ledger, f"{name} {current_job().attempt} {os.getpid()}")
    match how:
        case "os._exit(9)":
            os._exit(9)
        case "os._exit(0)":
            os._exit(0)
        case "segfault":
            ctypes.string_at(0)
        case "sys.exit":
            sys.exit(3)
        case _:
            raise ValueError(how)


@atomic_step("an effect")
def effect(ledger: str, name: str) -> str:
    """Make an effect that can be counted, and note that this ran."""
    note(ledger, f"ran {name}")
    Message.objects.create(job_id=UUID(int=0), name=name, payload="null")
    return name


@durable_job(backoff=Backoff.none(), call_backoff=Backoff.none())
def effects_in_turn(ledger: str, names: list[str]) -> list[str]:
    """Make an effect for each name, each in a step of its own."""
    note(ledger, f"attempt {current_job().attempt}")
    return [effect(ledger, name) for name in names]


@durable_job(backoff=Backoff.none(), call_backoff=Backoff.none())
async def async_effects_in_turn(ledger: str, names: list[str]) -> list[str]:
    """Do the same on the event loop."""
    note(ledger, f"attempt {current_job().attempt}")
    return [await effect.acall(ledger, name) for name in names]


@durable_job(atomic=True, backoff=Backoff.none())
def effect_and_end(ledger: str, names: list[str]) -> list[str]:
    """Make an effect for each name, all in the commit that completes the job."""
    note(ledger, f"attempt {current_job().attempt}")
    return [effect.function(ledger, name) for name in names]


@durable_job(chunk=5, chunk_timeout=5)
def gathered(items: list[ChunkItem[list[str], str]]) -> None:
    """Note how many came together, and keep the slot until the file exists."""
    ledger, gate, _text = items[0].argument
    note(ledger, f"chunk of {len(items)}")
    wait_for(Path(gate), 30)
    for item in items:
        item.result = item.argument[2]


@durable_job
def sleep_long(n: int) -> int:
    """Wait for an hour, as a row."""
    sleep(3600)
    return n
