"""Makes a job, and does with a chunk by hand what a worker does: takes it, and makes up what its records come to."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from ecgbatch.db import chunks, dispatch, jobs
from ecgbatch.db.chunks import Claim, Outcome
from ecgbatch.db.dispatch import QueuedChunk
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import Failure, Prediction
from ecgbatch.db.terms import JobOptions, Priority
from ecgbatch.records.recording import Record

LEASE = timedelta(seconds=30)
THRESHOLDS = {"norm": 0.9, "mi": 0.05, "sttc": 0.25, "cd": 0.3, "hyp": 0.5}


def make_job(database: Database, records: int, chunk_size: int = 4, archive: str = "/archive", model: str = "a") -> int:
    """A job of records named r0, r1, …"""

    def make(connection: sa.Connection) -> int:
        archive_id = jobs.register_archive(connection, Path(archive).name, archive)
        model_id = jobs.register_model(connection, "m", "1", model, {"thresholds": THRESHOLDS})
        job_id, _ = jobs.open_job(connection, archive_id, model_id, JobOptions())
        jobs.add_records(connection, job_id, [Record(f"r{n}", 50.0, 1) for n in range(records)], chunk_size)
        jobs.all_enqueued(connection, job_id)
        return job_id

    return database.write(make)


def take(database: Database, room: int = 1000) -> list[QueuedChunk]:
    return database.write(dispatch.queue_pending, Priority.NORMAL, room)


def claim(
    database: Database, chunk: QueuedChunk, worker: str = "host:1", lease: timedelta = LEASE, task: str = "task"
) -> Claim | None:
    plan = database.write(chunks.plan_of, chunk.job_id)
    assert plan is not None
    return database.write(chunks.claim, plan, chunk.number, worker, task, lease)


def prediction(record: Record) -> Prediction:
    assert record.id is not None
    return Prediction(record.id, (0.9, 0.1, 0.2, 0.3, 0.4), "00", "")


def failure(record: Record) -> Failure:
    assert record.id is not None
    return Failure(record.id, "read", "truncated", "too short", 1)


def outcomes(records: Sequence[Record], failing: frozenset[str] = frozenset()) -> list[Outcome]:
    return [failure(record) if record.path in failing else prediction(record) for record in records]


def score(database: Database, chunk: QueuedChunk, failing: frozenset[str] = frozenset()) -> None:
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, outcomes(mine.records, failing), LEASE)
