"""Chunks on their way through Redis and the workers: queued, claimed, stored, found again when lost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.functions import After, NeedNotLast, Now
from ecgbatch.db.jobs import OPEN, finish_if_complete, insert_new, recount
from ecgbatch.db.schema import (
    ChunkState,
    JobState,
    Priority,
    archives,
    chunks,
    failures,
    job_items,
    jobs,
    models,
    predictions,
    recordings,
)

IN_TRANSIT = timedelta(seconds=20)
"""A chunk that left the queue and is not claimed after this long counts as lost on the way."""

RECONCILE_LOCK = 0x0ECC
"""The PostgreSQL lock under which lost work is given back."""


class Record(NamedTuple):
    """A recording in a message: `path` relative to the archive's root, age in years, sex 0 or 1."""

    id: int
    path: str
    age: float | None
    sex: int | None


@dataclass(frozen=True)
class WaitingChunk:
    """What a worker must know to score a chunk; `chunks` is how many the job has."""

    job_id: int
    number: int
    chunks: int
    model: str
    root: str
    records: list[Record]


@dataclass(frozen=True)
class Claim:
    """A worker's right to a chunk: `attempt` counts from 1, `ended` are the recordings with an end."""

    job_id: int
    number: int
    model_id: int
    worker: str
    attempt: int
    ended: frozenset[int]


# The statements that each chunk costs, built once: to build one takes longer than to run it.

_THIS = (chunks.c.job_id == sa.bindparam("this_job")) & (chunks.c.number == sa.bindparam("this_number"))
_OPEN_JOB = sa.exists().where(jobs.c.id == sa.bindparam("this_job"), jobs.c.state.in_(OPEN))
_RENEWED = After(sa.bindparam("lease", type_=sa.Float))
_MINE = (chunks.c.state == ChunkState.RUNNING) & (chunks.c.worker == sa.bindparam("by"))


def _take() -> sa.UpdateBase:
    """Takes a chunk that is free, if its job is open.

    Its commit need not reach the disk. Should the server crash and undo the claim, then all that was stored under it is
    undone too, since the log is written in order; the worker cannot store any more, since the chunk is not RUNNING, and
    the chunk is found like any other whose message is gone.
    """
    expired = chunks.c.lease_until < Now()
    waiting = chunks.c.state.in_((ChunkState.PENDING, ChunkState.QUEUED))
    mine_again = chunks.c.worker == sa.bindparam("by")
    free = waiting | ((chunks.c.state == ChunkState.RUNNING) & (expired | mine_again))
    take = chunks.update().where(_THIS, free, _OPEN_JOB)
    take = take.values(
        state=ChunkState.RUNNING,
        attempts=chunks.c.attempts + 1,
        lease_until=_RENEWED,
        worker=sa.bindparam("by"),
        task_id=sa.bindparam("task"),
    )
    this_job = jobs.c.id == sa.bindparam("this_job")
    return take.returning(
        chunks.c.attempts,
        chunks.c.size,
        (chunks.c.scored + chunks.c.reused + chunks.c.failed).label("ended"),
        sa.select(jobs.c.model_id).where(this_job).scalar_subquery().label("model_id"),
        sa.exists().where(this_job, jobs.c.started_at.is_not(None)).label("started"),
        NeedNotLast(),
    )


def _store() -> sa.UpdateBase:
    """Counts new ends, renews the lease or ends the chunk; does nothing once it is lost or the job cancelled.

    Tells whether the model has any failures that could be superseded and the job any chunks that are still pending.
    """
    scored = chunks.c.scored + sa.bindparam("new_scored", type_=sa.Integer)
    failed = chunks.c.failed + sa.bindparam("new_failed", type_=sa.Integer)
    complete = scored + failed + chunks.c.reused == chunks.c.size
    store = chunks.update().where(_THIS, _MINE, _OPEN_JOB)
    store = store.values(
        scored=scored,
        failed=failed,
        state=sa.case((complete, ChunkState.DONE), else_=ChunkState.RUNNING),
        lease_until=sa.case((complete, sa.null()), else_=_RENEWED),
    )
    other = chunks.alias("other")
    pending = sa.exists().where(other.c.job_id == sa.bindparam("this_job"), other.c.state == ChunkState.PENDING)
    failed_before = sa.exists().where(failures.c.job_id == jobs.c.id, jobs.c.model_id == sa.bindparam("of_model"))
    return store.returning(chunks.c.state, pending.label("pending"), failed_before.label("failures"))


_TAKE = _take()
_STORE = _store()
_RENEW = chunks.update().where(_THIS, _MINE, _OPEN_JOB).values(lease_until=_RENEWED)


class LeaseLost(Exception):
    """Another worker has the chunk now, or its job was cancelled: nothing more is to be written."""


def take_pending(connection: Connection, priority: Priority, room: int) -> list[WaitingChunk]:
    """Marks up to `room` pending chunks as queued, shared evenly among the jobs, and returns them."""
    choice = _fair_choice(connection, priority, room)
    numbers: dict[int, list[int]] = {}
    for job_id, number in choice:
        numbers.setdefault(job_id, []).append(number)
    taken: set[tuple[int, int]] = set()
    for job_id, of_job in numbers.items():
        pending = (chunks.c.job_id == job_id) & chunks.c.number.in_(of_job) & (chunks.c.state == ChunkState.PENDING)
        queue = chunks.update().where(pending).values(state=ChunkState.QUEUED, queued_at=Now())
        queued = connection.execute(queue.returning(chunks.c.number)).scalars()
        taken |= {(job_id, number) for number in queued}
    return _load(connection, [key for key in choice if key in taken])


def _fair_choice(connection: Connection, priority: Priority, room: int) -> list[tuple[int, int]]:
    """The next chunks (job, number): always of the job that has the fewest queued or running."""
    open_jobs = sa.select(jobs.c.id).where(jobs.c.state.in_(OPEN), jobs.c.priority == priority)
    waiting: dict[int, list[int]] = {}
    for job_id in connection.execute(open_jobs.order_by(jobs.c.id)).scalars():
        pending = sa.select(chunks.c.number).where(chunks.c.job_id == job_id, chunks.c.state == ChunkState.PENDING)
        numbers = connection.execute(pending.order_by(chunks.c.number).limit(room)).scalars()
        waiting[job_id] = list(numbers)[::-1]
    under_way = sa.select(chunks.c.job_id, sa.func.count()).where(
        chunks.c.state.in_((ChunkState.QUEUED, ChunkState.RUNNING)), chunks.c.job_id.in_(list(waiting))
    )
    load: Counter[int] = Counter(dict(connection.execute(under_way.group_by(chunks.c.job_id)).all()))
    choice: list[tuple[int, int]] = []
    while len(choice) < room and any(waiting.values()):
        job_id = min((job for job, numbers in waiting.items() if numbers), key=lambda job: load[job])
        load[job_id] += 1
        choice.append((job_id, waiting[job_id].pop()))
    return choice


def _load(connection: Connection, keys: Sequence[tuple[int, int]]) -> list[WaitingChunk]:
    """The chunks (job, number) with their records, in the order of their paths' first enqueueing."""
    numbers: dict[int, list[int]] = {}
    for job_id, number in keys:
        numbers.setdefault(job_id, []).append(number)
    found: dict[tuple[int, int], WaitingChunk] = {}
    for job_id, of_job in numbers.items():
        count = sa.select(sa.func.count()).where(chunks.c.job_id == job_id).scalar_subquery()
        about = sa.select(models.c.fingerprint, archives.c.root, count).select_from(jobs).where(jobs.c.id == job_id)
        about = about.join(models, models.c.id == jobs.c.model_id).join(archives, archives.c.id == jobs.c.archive_id)
        fingerprint, root, total = connection.execute(about).one()
        for number in of_job:
            found[job_id, number] = WaitingChunk(job_id, number, total, fingerprint, root, [])
        items = sa.select(job_items.c.chunk, *(recordings.c[name] for name in ("id", "path", "age", "sex")))
        items = items.join_from(job_items, recordings, recordings.c.id == job_items.c.recording_id)
        items = items.where(job_items.c.job_id == job_id, job_items.c.chunk.in_(of_job)).order_by(recordings.c.id)
        for number, *record in connection.execute(items).all():
            found[job_id, number].records.append(Record._make(record))
    return [found[key] for key in keys]


def claim(
    connection: Connection,
    job_id: int,
    number: int,
    worker: str,
    task_id: str,
    lease: timedelta,
) -> Claim | None:
    """Takes the chunk for `worker`, counting the attempt; None when it is done, cancelled or another's."""
    what = dict(this_job=job_id, this_number=number, by=worker, task=task_id, lease=lease.total_seconds())
    taken = connection.execute(_TAKE, what).one_or_none()
    if taken is None:
        return None
    if not taken.started:
        start = jobs.update().where(jobs.c.id == job_id, jobs.c.started_at.is_(None))
        connection.execute(start.values(started_at=Now()))
    ended: frozenset[int] = frozenset()
    if taken.attempts > 1 or taken.ended:
        ended = _ended(connection, job_id, number, taken.model_id)
        if len(ended) == taken.size and _end_if_complete(connection, job_id, number, taken.model_id):
            return None
    return Claim(job_id, number, taken.model_id, worker, taken.attempts, ended)


def _ended(connection: Connection, job_id: int, number: int, model_id: int) -> frozenset[int]:
    items = sa.select(job_items.c.recording_id).where(job_items.c.job_id == job_id, job_items.c.chunk == number)
    scored = items.join(predictions, predictions.c.recording_id == job_items.c.recording_id)
    failed = items.join(failures, failures.c.recording_id == job_items.c.recording_id)
    ended = sa.union(scored.where(predictions.c.model_id == model_id), failed.where(failures.c.job_id == job_id))
    return frozenset(connection.execute(ended).scalars())


def renew(connection: Connection, claim: Claim, lease: timedelta) -> None:
    """Makes the lease run from now; raises LeaseLost."""
    if connection.execute(_RENEW, _by(claim) | dict(lease=lease.total_seconds())).rowcount == 0:
        raise LeaseLost


def _by(claim: Claim) -> dict[str, Any]:
    return dict(this_job=claim.job_id, this_number=claim.number, by=claim.worker)


def store(
    connection: Connection,
    claim: Claim,
    scored: Sequence[dict[str, Any]],
    failed: Sequence[dict[str, Any]],
    lease: timedelta,
) -> None:
    """Writes the ends of a batch's records with the renewed lease, and the chunk's end if they are the last.

    Rows of `scored` are those of `predictions` without job, model, worker and time, rows of `failed` those
    of `failures` without job and time. Raises LeaseLost, with nothing written.
    """
    job_id, model_id = claim.job_id, claim.model_id
    whose = dict(job_id=job_id, model_id=model_id, worker=claim.worker)
    new_scored = insert_new(connection, predictions, scored, at="scored_at", **whose)
    unscored = _unscored(connection, claim, failed)
    new_failed = insert_new(connection, failures, unscored, at="failed_at", job_id=job_id)
    new = dict(new_scored=new_scored, new_failed=new_failed, of_model=model_id, lease=lease.total_seconds())
    stored = connection.execute(_STORE, _by(claim) | new).one_or_none()
    if stored is None:
        raise LeaseLost
    if new_scored < len(scored) or new_failed < len(failed):  # another job has scored some meanwhile
        _end_if_complete(connection, claim.job_id, claim.number, claim.model_id)
    elif stored.state == ChunkState.DONE:
        if stored.failures:
            _supersede_failures(connection, claim.job_id, claim.number, claim.model_id)
        if not stored.pending:
            finish_if_complete(connection, claim.job_id)


def _unscored(connection: Connection, claim: Claim, failed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those failures whose records no other job of the model has scored meanwhile."""
    if not failed:
        return []
    scored = sa.select(predictions.c.recording_id).where(predictions.c.model_id == claim.model_id)
    scored = scored.where(predictions.c.recording_id.in_([row["recording_id"] for row in failed]))
    known = set(connection.execute(scored).scalars())
    return [row for row in failed if row["recording_id"] not in known]


def _end_if_complete(connection: Connection, job_id: int, number: int, model_id: int) -> bool:
    """Ends a chunk whose records all have an end, and its job with the last of its chunks."""
    if not recount(connection, job_id, [number]):
        return False
    _supersede_failures(connection, job_id, number, model_id)
    finish_if_complete(connection, job_id)
    return True


def _supersede_failures(connection: Connection, job_id: int, number: int, model_id: int) -> None:
    """Removes what earlier jobs of the model could not score and this chunk did."""
    item, earlier = job_items.alias("item"), job_items.alias("earlier")
    query = sa.select(earlier.c.job_id, earlier.c.recording_id, earlier.c.chunk)
    query = query.join_from(item, predictions, predictions.c.recording_id == item.c.recording_id)
    query = query.join(failures, failures.c.recording_id == item.c.recording_id)
    same = (earlier.c.job_id == failures.c.job_id) & (earlier.c.recording_id == failures.c.recording_id)
    query = query.join(earlier, same).join(jobs, jobs.c.id == failures.c.job_id)
    query = query.where(item.c.job_id == job_id, item.c.chunk == number)
    query = query.where(predictions.c.model_id == model_id, jobs.c.model_id == model_id)
    for failed_in, recording_id, chunk in connection.execute(query).all():
        this = (failures.c.job_id == failed_in) & (failures.c.recording_id == recording_id)
        connection.execute(failures.delete().where(this))
        recount(connection, failed_in, [chunk])


def any_running(connection: Connection) -> bool:
    """Whether any worker has a chunk."""
    running = sa.exists().where(chunks.c.state == ChunkState.RUNNING)
    return bool(connection.execute(sa.select(running)).scalar_one())


def release(connection: Connection, job_id: int, number: int, task_id: str) -> None:
    """Gives back a chunk that a task holds, for another attempt."""
    held = (chunks.c.job_id == job_id) & (chunks.c.number == number) & (chunks.c.task_id == task_id)
    running = chunks.update().where(held, chunks.c.state == ChunkState.RUNNING)
    connection.execute(running.values(state=ChunkState.PENDING, lease_until=None))


def give_back_queued(connection: Connection) -> None:
    """Makes pending again all that is queued: for a Redis that has only just started, and is empty."""
    connection.execute(chunks.update().where(chunks.c.state == ChunkState.QUEUED).values(state=ChunkState.PENDING))


def give_back_lost(connection: Connection, waiting: dict[Priority, int]) -> int:
    """Makes pending again what was lost on the way and ends what is complete; returns how many chunks.

    `waiting` are the messages in Redis by priority. One process at a time does it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(RECONCILE_LOCK)))
    lost = _expire_leases(connection)
    lost += sum(_requeue_lost(connection, priority, messages) for priority, messages in waiting.items())
    for job_id in connection.execute(sa.select(jobs.c.id).where(jobs.c.state == JobState.RUNNING)).scalars().all():
        finish_if_complete(connection, job_id)
    return lost


def _expire_leases(connection: Connection) -> int:
    """Gives back the chunks whose workers have been silent too long."""
    expired = chunks.update().where(chunks.c.state == ChunkState.RUNNING, chunks.c.lease_until < Now())
    return connection.execute(expired.values(state=ChunkState.PENDING, lease_until=None)).rowcount


def _requeue_lost(connection: Connection, priority: Priority, waiting: int) -> int:
    """Gives back the chunks that are queued in SQL but no longer among the `waiting` messages in Redis.

    The queue is first in, first out, so the oldest are those that are gone.
    """
    queued = chunks.join(jobs, jobs.c.id == chunks.c.job_id)
    here = (chunks.c.state == ChunkState.QUEUED) & (jobs.c.priority == priority)
    total = connection.execute(sa.select(sa.func.count()).select_from(queued).where(here)).scalar_one()
    if total <= waiting:
        return 0
    overdue = chunks.c.queued_at < After(-IN_TRANSIT.total_seconds())
    oldest = sa.select(chunks.c.job_id, chunks.c.number, overdue).select_from(queued).where(here)
    oldest = oldest.order_by(chunks.c.queued_at).limit(total - waiting)
    lost = [(job_id, number) for job_id, number, is_overdue in connection.execute(oldest) if is_overdue]
    back = chunks.update().where(
        sa.tuple_(chunks.c.job_id, chunks.c.number).in_(lost), chunks.c.state == ChunkState.QUEUED
    )
    return connection.execute(back.values(state=ChunkState.PENDING)).rowcount
