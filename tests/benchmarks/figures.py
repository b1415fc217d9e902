"""What is compared with what: the figures by name, each with its contenders, ours first.

``count`` bounds the slow contenders, so that one round stays short; rates do not depend on it much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SYSTEMS = "tests.benchmarks.systems"
PGQUEUER = ("pgqueuer", "asyncpg", "uvloop")
DJANGO_TASKS = ("django-tasks", "django-tasks-db")
OURS = "django_durable_jobs"


@dataclass(frozen=True)
class Metric:
    """A number that a measure returns, and whether more of it is better."""

    name: str
    unit: str
    more_is_better: bool = True


@dataclass(frozen=True)
class Contender:
    """One system in one variant, and the distributions it needs."""

    label: str
    system: str
    variant: str = ""
    needs: tuple[str, ...] = ()
    count: int | None = None
    redis: bool = False

    @property
    def ours(self) -> bool:
        """Whether the others are compared with this one."""
        return self.system == "ours:Ours"


@dataclass(frozen=True)
class Figure:
    """One table: a measure, its metrics, and the contenders."""

    name: str
    title: str
    measure: str
    metrics: tuple[Metric, ...]
    count: int
    contenders: tuple[Contender, ...]
    database: str = "postgresql"
    seconds: float = 120.0


RATE = (Metric("rate", "jobs/s"),)
CALLS = (Metric("rate", "calls/s"),)


def limit(label: str, variant: str = "", count: int | None = None) -> Contender:
    """Plain psycopg on the same server."""
    return Contender(f"limit: {label}", "limit:Limit", variant, count=count)


def ours(label: str, variant: str = "") -> Contender:
    """Ours."""
    return Contender(f"**ours**, {label}", "ours:Ours", variant, needs=(OURS,))


PEER_PGQUEUER = Contender("pgqueuer, body in a thread", "pgqueuer:Pgqueuer", "thread", PGQUEUER)
PEER_PGQUEUER_ASYNC = replace(PEER_PGQUEUER, label="pgqueuer, async", variant="async")
PEER_PROCRASTINATE = Contender(
    "procrastinate, sync task", "procrastinate:Procrastinate", "sync", ("procrastinate",), 2_000
)
PEER_PROCRASTINATE_ASYNC = replace(PEER_PROCRASTINATE, label="procrastinate, async task", variant="async")
PEER_DJANGO_TASKS = Contender("django-tasks-db", "django_tasks:DjangoTasks", "", DJANGO_TASKS, 1_500)
PEER_DBOS = Contender("DBOS", "dbos:Dbos", "", ("dbos",), 2_000)
PEER_HUEY = Contender("huey on Redis (not durable)", "redis_queues:Huey", "", ("huey", "redis"), 10_000, redis=True)
PEER_CELERY = Contender(
    "Celery on Redis (not durable)", "redis_queues:Celery", "", ("celery", "redis"), 4_000, redis=True
)

SQLITE_OURS = ours("sync on threads, SQLite")
ALL = (
    Figure(
        "claim",
        "Sync no-op jobs, one worker process",
        "Claim",
        RATE,
        50_000,
        (
            ours("sync on threads"),
            limit("two statements, batch 100", "100"),
            limit("two statements, batch 10", "10", 20_000),
            limit("two statements, one at a time", "1", 4_000),
            PEER_PGQUEUER,
            PEER_PROCRASTINATE,
            PEER_DJANGO_TASKS,
            PEER_HUEY,
        ),
    ),
    Figure(
        "claim-async",
        "`async def` no-op jobs, one worker process",
        "Claim",
        RATE,
        50_000,
        (
            ours("`async def`", "async"),
            limit("two statements, batch 100", "100"),
            PEER_PGQUEUER_ASYNC,
            PEER_PROCRASTINATE_ASYNC,
            PEER_DBOS,
            PEER_CELERY,
        ),
    ),
    Figure(
        "claim-two",
        "Sync no-op jobs, two worker processes",
        "ClaimTwo",
        RATE,
        100_000,
        (
            ours("sync on threads"),
            limit("two statements, batch 100", "100"),
            PEER_PGQUEUER,
            PEER_PGQUEUER_ASYNC,
            PEER_PROCRASTINATE,
            PEER_DJANGO_TASKS,
        ),
    ),
    Figure(
        "enqueue",
        "Enqueue one by one",
        "EnqueueEach",
        RATE,
        4_000,
        (
            ours("`.enqueue()`"),
            limit("single-row INSERT commits"),
            replace(PEER_PGQUEUER, label="pgqueuer", count=None),
            replace(PEER_PROCRASTINATE, label="procrastinate"),
            PEER_DJANGO_TASKS,
            replace(PEER_DBOS, count=1_000),
        ),
    ),
    Figure(
        "enqueue-many",
        "Enqueue in bulk (10,000 a call)",
        "EnqueueMany",
        RATE,
        50_000,
        (
            ours("`enqueue_many`"),
            limit("COPY of 1,000"),
            replace(PEER_PGQUEUER, label="pgqueuer"),
            replace(PEER_PROCRASTINATE, label="procrastinate", count=20_000),
        ),
    ),
    Figure(
        "latency",
        "Pick-up on an idle queue, enqueue to body",
        "Latency",
        (Metric("p50", "ms", more_is_better=False), Metric("p99", "ms", more_is_better=False)),
        400,
        (
            ours("sync on threads"),
            limit("NOTIFY, then claim", "1"),
            PEER_PGQUEUER,
            replace(PEER_PROCRASTINATE, count=400),
            replace(PEER_DJANGO_TASKS, count=60),
            replace(PEER_DBOS, count=100),
        ),
        seconds=180,
    ),
    Figure(
        "steps",
        "Durable calls, one workflow",
        "Steps",
        CALLS,
        2_000,
        (ours("`call()`"), Contender("limit: single-row commits", "limit:StepLimit"), replace(PEER_DBOS, count=500)),
    ),
    Figure(
        "steps-eight",
        "Durable calls, eight workflows at once",
        "StepsEight",
        CALLS,
        8_000,
        (ours("`call()`"), Contender("limit: single-row commits", "limit:StepLimit"), replace(PEER_DBOS, count=1_600)),
    ),
    Figure(
        "fan-out",
        "Fan-out and fan-in: a parent with 10,000 or 1,000 no-op children, one worker process",
        "FanOut",
        (Metric("rate", "children/s"), Metric("seconds", "s", more_is_better=False)),
        10_000,
        (
            ours("`gather()` of 10,000"),
            replace(ours("`gather()` of 1,000"), count=1_000),
            Contender("limit: COPY, then batches of 100; 10,000", "limit:FamilyLimit", "100"),
            Contender("limit: COPY, then batches of 100; 1,000", "limit:FamilyLimit", "100", count=1_000),
        ),
    ),
    Figure(
        "wake",
        "Sleeping jobs, one due every 20 ms: how late each goes on",
        "Wake",
        (Metric("p50", "ms", more_is_better=False), Metric("p99", "ms", more_is_better=False)),
        300,
        (ours("`sleep_until()`"),),
    ),
    Figure(
        "memory",
        "Memory of a worker over 200,000 no-op jobs",
        "Memory",
        tuple(Metric(name, "MiB", more_is_better=False) for name in ("first", "last", "highest")),
        200_000,
        (ours("sync on threads"),),
        seconds=300,
    ),
    Figure(
        "idle",
        "Idle worker",
        "Idle",
        (Metric("rss", "MiB", more_is_better=False), Metric("rate", "transactions/s", more_is_better=False)),
        30,
        (
            ours("one process"),
            Contender("bare Django process, same project", "ours:BareDjango", needs=(OURS,)),
            replace(PEER_PGQUEUER, label="pgqueuer"),
            replace(PEER_PROCRASTINATE, label="procrastinate", count=None),
            replace(PEER_DJANGO_TASKS, count=None),
        ),
    ),
    Figure(
        "rescue",
        "Job runs again after `kill -9` of its worker, defaults",
        "Rescue",
        (Metric("seconds", "s", more_is_better=False),),
        1,
        (
            ours("defaults"),
            replace(PEER_PGQUEUER, label="pgqueuer"),
            PEER_PROCRASTINATE,
            PEER_DJANGO_TASKS,
            PEER_DBOS,
        ),
        seconds=110,
    ),
    Figure(
        "throttled",
        "1,000 jobs/s over four worker processes",
        "Throttled",
        (
            Metric("rate", "jobs/s"),
            Metric("most", "in any second", more_is_better=False),
            Metric("transactions", "transactions per 1,000 jobs", more_is_better=False),
        ),
        10_000,
        (
            ours("a queue limited to it", "limited"),
            ours("the same, 100 at one moment", "limited smoothly"),
            ours("no limit, enqueued at that rate", "paced"),
        ),
    ),
    Figure(
        "sqlite",
        "Sync no-op jobs on SQLite (WAL), one worker process",
        "Claim",
        RATE,
        20_000,
        (
            SQLITE_OURS,
            Contender("limit: batch 100, synchronous NORMAL", "sqlite_limit:SqliteLimit", "100"),
            Contender("limit: one at a time, synchronous NORMAL", "sqlite_limit:SqliteLimit", "1"),
            Contender("limit: batch 100, synchronous FULL", "sqlite_limit:SqliteLimit", "100 FULL"),
            Contender("limit: one at a time, synchronous FULL", "sqlite_limit:SqliteLimit", "1 FULL"),
        ),
        database="sqlite",
    ),
    Figure(
        "sqlite-enqueue",
        "Enqueue one by one on SQLite (WAL)",
        "EnqueueEach",
        RATE,
        4_000,
        (
            ours("`.enqueue()`, SQLite"),
            Contender("limit: INSERT, synchronous NORMAL", "sqlite_limit:SqliteLimit"),
            Contender("limit: INSERT, synchronous FULL", "sqlite_limit:SqliteLimit", "FULL"),
        ),
        database="sqlite",
    ),
)
BY_NAME = {figure.name: figure for figure in ALL}
