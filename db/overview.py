"""Jobs as people look at them: of what and by what, how long, and what was failed and flagged."""

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.reports import Progress, progress
from ecgbatch.db.schema import archives, chunks, failures, job_items, jobs, models, predictions, recordings
from ecgbatch.records.recording import flag_of


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
        counts.update(dict.fromkeys(map(flag_of, flags.split(",")), records))
    return dict(counts.most_common())


TYPICAL_OF_ARCHIVES = 1.0
"""Millivolts: what the recordings of sound archives have, give or take."""
LOWEST_OF_ARCHIVES, HIGHEST_OF_ARCHIVES = 0.5, 2.5
AMPLITUDE_CHUNKS = 64


def typical_amplitude(connection: Connection, job_id: int) -> float | None:
    """The median amplitude of a job's scored records, in mV; None if none was measured.

    Of a job of many chunks, that of the records of some AMPLITUDE_CHUNKS, evenly spread: all would take a minute of
    an archive of ten million.
    """
    of_job = sa.select(sa.func.count()).select_from(chunks).where(chunks.c.job_id == job_id)
    every = max(1, connection.execute(of_job).scalar_one() // AMPLITUDE_CHUNKS)
    predicted = (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == jobs.c.model_id)
    source = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(predictions, predicted)
    of_some = (job_items.c.job_id == job_id) & (job_items.c.chunk % every == 0)
    amplitudes = sa.select(predictions.c.amplitude).select_from(source)
    found = connection.execute(amplitudes.where(of_some, predictions.c.amplitude.is_not(None))).scalars().all()
    return sorted(found)[len(found) // 2] if found else None


def doubt_about(amplitude: float | None) -> str | None:
    """What is wrong with a job whose typical amplitude no archive has, and the likely cause; else None."""
    if amplitude is None or LOWEST_OF_ARCHIVES <= amplitude <= HIGHEST_OF_ARCHIVES:
        return None
    is_large = amplitude > TYPICAL_OF_ARCHIVES
    times = amplitude / TYPICAL_OF_ARCHIVES if is_large else TYPICAL_OF_ARCHIVES / max(amplitude, 1e-6)
    return (
        f"the records' typical amplitude is {amplitude:.2g} mV, and no archive has less than {LOWEST_OF_ARCHIVES:g} or "
        f"more than {HIGHEST_OF_ARCHIVES:g}: gains or units in the files are probably wrong, the waves about "
        f"{times:.0f} times too {'large' if is_large else 'small'}; believe no probability before that is mended"
    )


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
