"""PostgreSQL (14 or later) through psycopg 3: each of the worker's hot steps is one statement and one commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.db import IntegrityError

from ..outcomes import LINED_UP
from ..states import TRANSITIONS, Status
from .locks import shut
from .postgresql_session import CHANNEL, PostgreSQLSession
from .rows import Claim, Claimed, Completion, Held, NewCheckpoint, Promoted, Saved

if TYPE_CHECKING:
    from uuid import UUID

_RUNNING: Final = Status.RUNNING.value
_PAUSE, _CANCEL = 1, 2
_ORDER: Final = (
    f"CASE WHEN cancel_requested_at IS NOT NULL THEN {_CANCEL} WHEN pause_requested_at IS NOT NULL THEN {_PAUSE} END"
)
"""What a running job is ordered to do."""
_CHECKPOINT: Final = "job_id, generation, key, name, kind, result, error, created_at"


class PostgreSQL(PostgreSQLSession):
    """PostgreSQL."""

    # Claim and finish ---------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> list[Claimed]:
        """Claim in one statement; see ``_claim_sql``."""
        with self.hot_cursor() as cursor:
            sql = f"WITH {self._claim_sql(claim)} SELECT * FROM claimed ORDER BY rank, id"
            cursor.execute(sql, _claim_params(claim))
            return list(map(Claimed._make, cursor.fetchall()))

    def complete(self, completions: Sequence[Completion]) -> set[UUID]:
        """Finish in one statement; see ``_complete_sql``."""
        with self.hot_cursor() as cursor:
            cursor.execute(f"WITH {self._complete_sql()} SELECT id FROM done", _complete_params(completions))
            return {id_ for (id_,) in cursor.fetchall()}

    def complete_and_claim(self, completions: Sequence[Completion], claim: Claim) -> tuple[set[UUID], list[Claimed]]:
        """Finish these and claim those in one statement: one round trip and one commit for both."""
        sql = (
            f"WITH {self._complete_sql()}, {self._claim_sql(claim)} "
            f"SELECT {', '.join(Claimed._fields)} FROM claimed "
            f"UNION ALL SELECT id, {', '.join(['NULL'] * (len(Claimed._fields) - 1))} FROM done ORDER BY rank, id"
        )
        with self.hot_cursor() as cursor:
            cursor.execute(sql, {**_complete_params(completions), **_claim_params(claim)})
            rows = cursor.fetchall()
        return {row[0] for row in rows if row[1] is None}, [Claimed._make(row) for row in rows if row[1] is not None]

    def _complete_sql(self) -> str:
        verb = TRANSITIONS["complete"]
        return f"""
            done AS (
                UPDATE {self.table("Job")} AS job SET
                    status = '{verb.target}', result = given.result, finished_at = {self.now_sql()},
                    worker_id = NULL, lease_expires_at = NULL, expires_at = NULL
                FROM unnest(%(done_ids)b::uuid[], %(done_tokens)b::int[], %(results)s::text[])
                    AS given(id, token, result)
                WHERE job.id = ANY (%(done_ids)b::uuid[]) AND job.id = given.id
                    AND job.token = given.token AND job.status = '{_RUNNING}'
                RETURNING job.id
            )"""

    def _claim_sql(self, claim: Claim) -> str:
        """Build the claim: lock the first rows of each queue in index order, then move them.

        MATERIALIZED keeps the planner from running the locking subquery more than once, which would lock and
        return more rows than the limit. ANY (ARRAY(...)) keeps it on the primary key: joined, the rows of a LIMIT
        that is not a constant are guessed as a tenth of the queue, and the whole table is read to hash it.

        A pause is a barrier: the rows of the queues and of the worker are locked for sharing, which reads them as they
        are now, not as the statement's snapshot has them. So a pause waits for claims that are on their way, and a
        claim that has begun before a pause but comes later takes nothing. A row that somebody is about to change is not
        waited for: then nothing is taken this time. Nothing is locked where nothing is pending.
        Whether one is paused is asked outside of what locks: a condition in there is asked of the snapshot first.
        Limits are heeded in the same way: a limited queue is closed to claims that have not checked its limit.
        """
        only = "" if claim.only is None else " AND job.id = ANY (%(only)b::uuid[])"
        queue_shut, worker_shut = shut(claim.queue_checked), shut(claim.fleet_checked)
        verb = TRANSITIONS["claim"]
        (source,) = verb.sources
        now = self.now_sql()
        columns = ", ".join(f"job.{name}" for name in Claimed._fields)
        return f"""
            wanted AS MATERIALIZED (
                SELECT queue, amount FROM unnest(%(queues)s::text[], %(amounts)s::int[]) AS wanted(queue, amount)
                WHERE NOT EXISTS (
                    SELECT FROM {self.table("Queue")} WHERE name = wanted.queue AND {queue_shut}
                ) AND NOT EXISTS (
                    SELECT FROM {self.table("Worker")} WHERE id = %(worker)s AND {worker_shut}
                )
            ),
            picked AS MATERIALIZED (
                SELECT job.id, job.queue
                FROM wanted CROSS JOIN LATERAL (
                    SELECT id, queue FROM {self.table("Job")} AS job
                    WHERE job.status = '{source}' AND job.queue = wanted.queue
                        AND job.rescues {"> 0" if claim.rescued else "= 0"}{only}
                        AND (job.expires_at IS NULL OR job.expires_at > {now})
                    ORDER BY job.rank, job.id LIMIT wanted.amount
                    FOR UPDATE SKIP LOCKED
                ) AS job
            ),
            gates AS MATERIALIZED (
                SELECT name, paused_at, limited FROM {self.table("Queue")}
                WHERE name = ANY (ARRAY(SELECT DISTINCT queue FROM picked)) ORDER BY name FOR SHARE SKIP LOCKED
            ),
            holder AS MATERIALIZED (
                SELECT paused_at, limited FROM {self.table("Worker")}
                WHERE id = %(worker)s AND EXISTS (SELECT FROM picked) FOR SHARE SKIP LOCKED
            ),
            closed AS MATERIALIZED (
                SELECT name FROM {self.table("Queue")} WHERE name = ANY (ARRAY(SELECT DISTINCT queue FROM picked))
                    AND name <> ALL (ARRAY(SELECT name FROM gates WHERE NOT {queue_shut}))
            ),
            claimed AS (
                UPDATE {self.table("Job")} AS job SET
                    status = '{verb.target}', token = token + 1, attempt = attempt + 1,
                    max_attempts = greatest(max_attempts, attempt + 1), worker_id = %(worker)s,
                    started_at = {now}, lease_expires_at = {now} + %(lease)s
                WHERE job.id = ANY (ARRAY(
                    SELECT id FROM picked WHERE queue <> ALL (ARRAY(SELECT name FROM closed)) AND (
                        EXISTS (SELECT FROM holder WHERE NOT {worker_shut})
                        OR NOT EXISTS (SELECT FROM {self.table("Worker")} WHERE id = %(worker)s)
                    )
                )) AND job.status = '{source}'
                RETURNING {columns}
            )"""

    # Due times ----------------------------------------------------------------------------------------------

    def promote(self, most: int, *, notify: bool) -> Promoted:
        """Move, announce and look for the next due time in one statement: a sleeper waits for one round trip."""
        verb = TRANSITIONS["promote"]
        # Letter by letter as in the index of due times, which is partial.
        clocked = " OR ".join(f"status = '{status}'" for status in sorted(verb.sources))
        due = f"({clocked}) AND run_at <= {self.now_sql()}"
        lines = TRANSITIONS["line_up_due"]
        lined = f"waiting_for IS NOT DISTINCT FROM '{LINED_UP}' AND status <> '{lines.target}'"
        told = f", pg_notify('{CHANNEL}', queue)" if notify else ""
        sql = f"""
            WITH picked AS MATERIALIZED (
                SELECT id FROM {self.table("Job")} WHERE {due} ORDER BY run_at LIMIT %s FOR UPDATE SKIP LOCKED
            ), moved AS (
                UPDATE {self.table("Job")} SET
                    status = CASE WHEN {lined} THEN '{lines.target}' ELSE '{verb.target}' END,
                    run_at = CASE WHEN NOT ({lined}) THEN run_at END,
                    waiting_for = CASE WHEN {lined} THEN waiting_for END, finished_at = NULL
                WHERE id = ANY (ARRAY(SELECT id FROM picked)) AND {due}
                RETURNING queue, CASE WHEN waiting_for IS NOT NULL THEN sequence_key END AS line
            ), told AS (
                SELECT queue, count(*) AS number{told} FROM moved GROUP BY queue
            )
            SELECT coalesce((SELECT sum(number) FROM told), 0)::int, (
                SELECT run_at - {self.now_sql()} FROM {self.table("Job")}
                WHERE ({clocked}) AND run_at IS NOT NULL AND id <> ALL (ARRAY(SELECT id FROM picked))
                ORDER BY run_at LIMIT 1
            ), ARRAY(SELECT DISTINCT line FROM moved WHERE line IS NOT NULL)
        """
        with self.hot_cursor() as cursor:
            cursor.execute(sql, [most])
            return Promoted._make(cursor.fetchall()[0])

    # Leases and checkpoints ---------------------------------------------------------------------------------

    def renew(self, worker_id: int, leases: Sequence[Held], length: timedelta) -> set[Held]:
        """Extend leases in one statement. Rows are locked in id order, as every statement over many rows does.

        ANY keeps it on the primary key whatever the planner believes to know of the table, as in ``_complete_sql``.
        """
        sql = f"""
            WITH mine AS MATERIALIZED (
                SELECT job.id FROM {self.table("Job")} AS job
                JOIN unnest(%(ids)s::uuid[], %(tokens)s::int[]) AS held(id, token)
                    ON job.id = held.id AND job.token = held.token
                WHERE job.id = ANY (%(ids)s::uuid[]) AND job.status = '{_RUNNING}' AND job.worker_id = %(worker)s
                ORDER BY job.id FOR NO KEY UPDATE OF job
            )
            UPDATE {self.table("Job")} AS job SET lease_expires_at = {self.now_sql()} + %(length)s
            WHERE job.id = ANY (ARRAY(SELECT id FROM mine))
            RETURNING job.id, job.token
        """
        with self.hot_cursor() as cursor:
            ids, tokens = [held.id for held in leases], [held.token for held in leases]
            cursor.execute(sql, {"ids": ids, "tokens": tokens, "worker": worker_id, "length": length})
            return {Held(*row) for row in cursor.fetchall()}

    def save_checkpoints(self, rows: Sequence[NewCheckpoint]) -> Saved:
        """Lock the jobs by their tokens and insert, in one statement and one commit."""
        if self.connection.in_atomic_block:
            return super().save_checkpoints(rows)
        if len(rows) == 1:
            return self._save_checkpoint(rows[0])
        sql = f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(
                    %s::uuid[], %s::int[], %s::smallint[],
                    %s::text[], %s::text[], %s::text[], %s::text[], %s::text[]
                )
                    AS given(job_id, token, generation, key, name, kind, result, error)
            ), held AS MATERIALIZED (
                SELECT job.id, job.token, {_ORDER} AS ordered FROM {self.table("Job")} AS job
                WHERE job.id IN (SELECT job_id FROM given) AND job.status = '{_RUNNING}'
                ORDER BY job.id FOR SHARE
            ), added AS (
                INSERT INTO {self.table("Checkpoint")} ({_CHECKPOINT})
                SELECT job_id, generation, key, name, kind, result, error, {self.now_sql()}
                FROM given JOIN held ON held.id = given.job_id AND held.token = given.token
                RETURNING job_id, key
            )
            SELECT job_id, key, ordered FROM added JOIN held ON id = job_id
        """
        found = self._insert_checkpoints(sql, [list(column) for column in zip(*rows, strict=True)])
        if found is None:
            return super().save_checkpoints(rows)
        return Saved(
            {row[:2] for row in found},
            {row[0] for row in found if row[2] == _CANCEL},
            {row[0] for row in found if row[2] == _PAUSE},
        )

    def _save_checkpoint(self, row: NewCheckpoint) -> Saved:
        """Do the same for one row: most workflows are alone, and this runs in two thirds of the time."""
        sql = f"""
            WITH held AS MATERIALIZED (
                SELECT id, {_ORDER} AS ordered FROM {self.table("Job")} AS job
                WHERE job.id = %b AND job.token = %s AND job.status = '{_RUNNING}' FOR SHARE
            ), added AS (
                INSERT INTO {self.table("Checkpoint")} ({_CHECKPOINT})
                SELECT id, %s, %s, %s, %s, %s, %s, {self.now_sql()} FROM held
            )
            SELECT ordered FROM held
        """
        found = self._insert_checkpoints(sql, row)
        if found is None:
            return super().save_checkpoints([row])
        if not found:
            return Saved(set(), set(), set())
        (order,) = found[0]
        this = {row.job_id}
        return Saved({(row.job_id, row.key)}, this if order == _CANCEL else set(), this if order == _PAUSE else set())

    def _insert_checkpoints(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """Run one statement and return its rows; ``None`` when a key is there already.

        That is an earlier try of ours whose answer was lost. The portable way sorts it out.
        """
        try:
            with self.hot_cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall()
        except IntegrityError:
            return None


def _claim_params(claim: Claim) -> dict[str, Any]:
    return {
        "queues": [want.queue for want in claim.wants],
        "amounts": [want.amount for want in claim.wants],
        "worker": claim.worker_id,
        "lease": claim.lease,
        **({} if claim.only is None else {"only": list(claim.only)}),
    }


def _complete_params(completions: Sequence[Completion]) -> dict[str, Any]:
    return {
        "done_ids": [row.id for row in completions],
        "done_tokens": [row.token for row in completions],
        "results": [row.result for row in completions],
    }
