"""Chunks on their way into Redis and out of it: pending, queued, lost and found again."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.functions import Now, SecondsFromNow
from ecgbatch.db.jobs import OPEN, finish_if_complete
from ecgbatch.db.schema import archives, chunks, jobs, models
from ecgbatch.db.terms import ChunkState, JobState, Priority

RECONCILE_LOCK = 0x0ECC
"""The PostgreSQL lock under which lost work is looked for."""


@dataclass(frozen=True)
class QueuedChunk:
    """A chunk to be published: its job and number, how many records it has, how many chunks the job has.

    archive, model: the names of what the job scores and by what, for people.
    """

    job_id: int
    number: int
    records: int
    of: int
    archive: str
    model: str


def queue_pending(connection: Connection, priority: Priority, room: int) -> list[QueuedChunk]:
    """Marks up to `room` pending chunks as queued, shared evenly among the jobs, and returns them."""
    choice = _fair_choice(connection, priority, room)
    numbers: dict[int, list[int]] = {}
    for job_id, number in choice:
        numbers.setdefault(job_id, []).append(number)
    queued: dict[tuple[int, int], QueuedChunk] = {}
    for job_id, of_job in numbers.items():
        pending = (chunks.c.job_id == job_id) & chunks.c.number.in_(of_job) & (chunks.c.state == ChunkState.PENDING)
        queue = chunks.update().where(pending).values(state=ChunkState.QUEUED, queued_at=Now())
        sizes = connection.execute(queue.returning(chunks.c.number, chunks.c.size)).all()
        count = connection.execute(sa.select(sa.func.count()).where(chunks.c.job_id == job_id)).scalar_one()
        names = _names(connection, job_id)
        queued |= {(job_id, number): QueuedChunk(job_id, number, size, count, *names) for number, size in sizes}
    return [queued[key] for key in choice if key in queued]


def _names(connection: Connection, job_id: int) -> tuple[str, str]:
    """The names of a job's archive and model."""
    query = sa.select(archives.c.name, models.c.name, models.c.version).select_from(jobs.join(archives).join(models))
    archive, model, version = connection.execute(query.where(jobs.c.id == job_id)).one()
    return archive, f"{model}:{version}"


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


def any_chunk(connection: Connection, state: ChunkState) -> bool:
    """Whether any chunk is in this state."""
    return bool(connection.execute(sa.select(sa.exists().where(chunks.c.state == state))).scalar_one())


def requeue(connection: Connection, job_id: int, number: int) -> None:
    """Says that a chunk is put at the end of its queue again."""
    queued = (chunks.c.job_id == job_id) & (chunks.c.number == number) & (chunks.c.state == ChunkState.QUEUED)
    connection.execute(chunks.update().where(queued).values(queued_at=Now()))


def unqueue_all(connection: Connection) -> None:
    """Makes pending again all that is queued: for a Redis that has only just started, and is empty."""
    connection.execute(chunks.update().where(chunks.c.state == ChunkState.QUEUED).values(state=ChunkState.PENDING))


def find_lost(connection: Connection, waiting: dict[Priority, int], patience: timedelta) -> int:
    """Makes pending again what was lost on the way and ends what is complete; returns how many chunks.

    `waiting` are the messages in Redis by priority. A chunk that left its queue and is not claimed within `patience`
    counts as lost on the way. One process at a time does it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(RECONCILE_LOCK)))
    lost = _end_expired_leases(connection)
    lost += sum(_unqueue_lost(connection, priority, messages, patience) for priority, messages in waiting.items())
    for job_id in connection.execute(sa.select(jobs.c.id).where(jobs.c.state == JobState.RUNNING)).scalars().all():
        finish_if_complete(connection, job_id)
    return lost


def _end_expired_leases(connection: Connection) -> int:
    """Makes pending again the chunks whose workers have been silent too long."""
    expired = chunks.update().where(chunks.c.state == ChunkState.RUNNING, chunks.c.lease_until < Now())
    return connection.execute(expired.values(state=ChunkState.PENDING, lease_until=None)).rowcount


def _unqueue_lost(connection: Connection, priority: Priority, waiting: int, patience: timedelta) -> int:
    """Makes pending again the chunks that are queued in SQL but no longer among the `waiting` messages in Redis.

    The queue is first in, first out, so the oldest are those that are gone.
    """
    queued = chunks.join(jobs, jobs.c.id == chunks.c.job_id)
    here = (chunks.c.state == ChunkState.QUEUED) & (jobs.c.priority == priority)
    total = connection.execute(sa.select(sa.func.count()).select_from(queued).where(here)).scalar_one()
    if total <= waiting:
        return 0
    overdue = chunks.c.queued_at < SecondsFromNow(-patience.total_seconds())
    oldest = sa.select(chunks.c.job_id, chunks.c.number, overdue).select_from(queued).where(here)
    oldest = oldest.order_by(chunks.c.queued_at).limit(total - waiting)
    lost = [(job_id, number) for job_id, number, is_overdue in connection.execute(oldest) if is_overdue]
    back = chunks.update().where(
        sa.tuple_(chunks.c.job_id, chunks.c.number).in_(lost), chunks.c.state == ChunkState.QUEUED
    )
    return connection.execute(back.values(state=ChunkState.PENDING)).rowcount
