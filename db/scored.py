"""What a job has scored, record by record as they come, and what it was: for pages that show a whole job."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.classes import model_of, probabilities_of
from ecgbatch.db.functions import SecondsBetween, WholePart
from ecgbatch.db.outcomes import Probabilities
from ecgbatch.db.schema import UtcTime, archives, job_items, job_workers, jobs, models, predictions, recordings

AT_ONCE = 1000
PARTS = 60
"""Of the time that a job took, for its rate."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A record and its prediction; age in years, sex 0 male and 1 female, amplitude in mV, None if not known."""

    path: str
    age: float | None
    sex: int | None
    probabilities: Probabilities
    flags: tuple[str, ...]
    amplitude: float | None
    input_sha256: str


@dataclass(frozen=True)
class About:
    """What ran on what, with which model and when; `description` is the model's, as it was when the job was made."""

    archive: str
    root: str
    model: str
    fingerprint: str
    description: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Rate:
    """How many records a job scored in each of PARTS equal parts of the time from its first to its last."""

    began: datetime
    ended: datetime
    records: list[int]

    @property
    def seconds(self) -> float:
        """Of a part."""
        return (self.ended - self.began).total_seconds() / PARTS


def about(connection: Connection, job_id: int) -> About:
    """Of a job that is there."""
    times = (jobs.c.created_at, jobs.c.started_at, jobs.c.finished_at)
    model = (models.c.name, models.c.version, models.c.fingerprint, models.c.config)
    query = sa.select(archives.c.name, archives.c.root, *model, *times).select_from(jobs.join(archives).join(models))
    archive, root, name, version, *more = connection.execute(query.where(jobs.c.id == job_id)).one()
    return About(archive, root, f"{name}:{version}", *more)


def scored(connection: Connection, job_id: int) -> Iterator[Scored]:
    """What a job's model has scored of its records, in the order in which they were enqueued; memory stays flat."""
    predicted = (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == jobs.c.model_id)
    source = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(predictions, predicted)
    source = source.join(recordings, recordings.c.id == job_items.c.recording_id)
    about_record = (recordings.c.path, recordings.c.age, recordings.c.sex)
    found = (predictions.c.flags, predictions.c.amplitude, predictions.c.input_sha256)
    columns = (*about_record, *found, *probabilities_of(connection, model_of(connection, job_id)).values())
    query = sa.select(*columns).select_from(source).where(job_items.c.job_id == job_id)
    query = query.order_by(job_items.c.recording_id).execution_options(yield_per=AT_ONCE)
    for path, age, sex, flags, amplitude, sha256, *probabilities in connection.execute(query):
        yield Scored(path, age, sex, tuple(probabilities), tuple(filter(None, flags.split(","))), amplitude, sha256)


def rate_of(connection: Connection, job_id: int) -> Rate | None:
    """None of a job that scored nothing itself, or all of it at once."""
    ends = sa.select(sa.func.min(job_workers.c.first_scored_at), sa.func.max(job_workers.c.last_scored_at))
    began, ended = connection.execute(ends.where(job_workers.c.job_id == job_id)).one()
    if began is None or began == ended:
        return None
    rate = Rate(began, ended, [0] * PARTS)
    part = WholePart(SecondsBetween(sa.literal(began, UtcTime), predictions.c.scored_at) / rate.seconds).label("part")
    own = (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.job_id == job_items.c.job_id)
    query = sa.select(part, sa.func.count()).select_from(job_items.join(predictions, own))
    for number, records in connection.execute(query.where(job_items.c.job_id == job_id).group_by(part)):
        rate.records[min(max(number, 0), PARTS - 1)] += records
    return rate
