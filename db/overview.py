"""Jobs as people look at them: of what and by what, how long, and what was failed and flagged."""

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.reports import Progress, progress
from ecgbatch.db.schema import archives, failures, job_items, jobs, models, predictions, recordings


@dataclass(frozen=True)
class Overview:
    """One job. `worked_seconds` are those in which something was scored."""

    progress: Progress
    archive: str
    model: str
    worked_seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None for a job that has ended, or of which nothing is scored yet."""
        rate = self.progress.records_per_second
        return self.progress.remaining / rate if rate and not self.progress.ended else None


@dataclass(frozen=True)
class FailedFor:
    """How many records of a job failed for one reason, and one of them."""

    reason: str
    records: int
    path: str
    detail: str


def overviews(connection: Connection, job_id: int | None = None) -> list[Overview]:
    """One job, or all, the newest last. Raises EcgbatchError when there is no such job."""
    query = sa.select(jobs.c.id, archives.c.name, models.c.name, models.c.version, jobs.c.worked_seconds)
    query = query.select_from(jobs.join(archives).join(models))
    rows = connection.execute(query if job_id is None else query.where(jobs.c.id == job_id))
    about = {id_: (archive, f"{model}:{version}", seconds) for id_, archive, model, version, seconds in rows}
    return [Overview(each, *about[each.job_id]) for each in progress(connection, job_id) if each.job_id in about]


def flags_of(connection: Connection, job_id: int) -> dict[str, int]:
    """How many of a job's scored records have each flag, the most frequent first."""
    predicted = (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == jobs.c.model_id)
    source = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(predictions, predicted)
    query = sa.select(predictions.c.flags, sa.func.count()).select_from(source)
    query = query.where(job_items.c.job_id == job_id, predictions.c.flags != "").group_by(predictions.c.flags)
    counts: Counter[str] = Counter()
    for flags, records in connection.execute(query):
        counts.update(dict.fromkeys(flags.split(","), records))
    return dict(counts.most_common())


def failures_by_reason(connection: Connection, job_id: int) -> list[FailedFor]:
    """Why records of a job failed, the most frequent reason first, each with its first record as an example."""
    counted = sa.select(
        failures.c.reason, sa.func.count().label("records"), sa.func.min(failures.c.recording_id).label("first")
    )
    counted_of_job = counted.where(failures.c.job_id == job_id).group_by(failures.c.reason).subquery()
    example = (failures.c.job_id == job_id) & (failures.c.recording_id == counted_of_job.c.first)
    source = counted_of_job.join(failures, example).join(recordings, recordings.c.id == failures.c.recording_id)
    columns = (counted_of_job.c.reason, counted_of_job.c.records, recordings.c.path, failures.c.detail)
    query = sa.select(*columns).select_from(source).order_by(counted_of_job.c.records.desc(), columns[0])
    return [FailedFor(*row) for row in connection.execute(query)]
