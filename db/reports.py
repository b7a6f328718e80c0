"""How far jobs are, and what came of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db import classes
from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.db.schema import (
    chunks,
    class_probabilities,
    failures,
    job_items,
    jobs,
    model_classes,
    models,
    predictions,
    recordings,
)
from ecgbatch.db.terms import JobState
from ecgbatch.settings import EcgbatchError


@dataclass(frozen=True)
class Progress:
    """One row of the view job_progress: counts are records, `scored` includes the `reused`."""

    job_id: int
    state: str
    total: int
    scored: int
    reused: int
    failed: int
    remaining: int
    records_per_second: float | None

    @property
    def ended(self) -> bool:
        return self.state in (JobState.FINISHED, JobState.CANCELLED)


def progress(connection: Connection, job_id: int | None = None) -> list[Progress]:
    """How far jobs are: one, or all, the newest last; raises EcgbatchError when there is no such job."""
    where = "" if job_id is None else "WHERE job_id = :job_id"
    query = sa.text(f"SELECT * FROM job_progress {where} ORDER BY job_id")
    rows = connection.execute(query, {} if job_id is None else {"job_id": job_id}).mappings()
    found = [Progress(**row) for row in rows]
    if job_id is not None and not found:
        raise EcgbatchError(f"there is no job {job_id}; `ecgbatch status` lists the jobs")
    return found


def failures_of(connection: Connection, job_id: int) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
    """The columns and rows of what failed in a job."""
    columns = [failures.c[name] for name in ("stage", "reason", "detail", "attempts", "failed_at")]
    query = sa.select(recordings.c.path, *columns).join_from(failures, recordings)
    result = connection.execute(query.where(failures.c.job_id == job_id).order_by(recordings.c.path))
    return list(result.keys()), iter(result)


def model_fingerprint(connection: Connection, job_id: int) -> str:
    """The fingerprint of the model that scores a job."""
    query = sa.select(models.c.fingerprint).join_from(jobs, models).where(jobs.c.id == job_id)
    return str(connection.execute(query).scalar_one())


def probabilities(connection: Connection, job_id: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Path and probabilities, in the order of the model's classes, of each record that it has scored, as they come."""
    scored = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(
        predictions,
        (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == jobs.c.model_id),
    )
    columns = classes.probabilities_of(connection, classes.model_of(connection, job_id)).values()
    records = scored.join(recordings, recordings.c.id == job_items.c.recording_id)
    query = sa.select(recordings.c.path, *columns).select_from(records).where(job_items.c.job_id == job_id)
    for path, *values in connection.execute(query.execution_options(yield_per=1000)):
        yield path, tuple(values)


def found(connection: Connection, job_id: int) -> dict[str, int]:
    """How many of a job's records have each class of its model, at the model's thresholds, in the model's order."""
    if tuple(classes.thresholds_of(connection, classes.model_of(connection, job_id))) != LABEL_COLUMNS:
        return _own_classes_found(connection, job_id)
    counts = [sa.func.coalesce(sa.func.sum(chunks.c[name]), 0).label(name) for name in LABEL_COLUMNS]
    return dict(connection.execute(sa.select(*counts).where(chunks.c.job_id == job_id)).mappings().one())


def _own_classes_found(connection: Connection, job_id: int) -> dict[str, int]:
    of_job = sa.join(jobs, model_classes, model_classes.c.model_id == jobs.c.model_id)
    of_job = of_job.join(job_items, job_items.c.job_id == jobs.c.id)
    same = (class_probabilities.c.recording_id == job_items.c.recording_id) & (
        class_probabilities.c.model_id == jobs.c.model_id
    )
    source = of_job.outerjoin(class_probabilities, same & (class_probabilities.c.position == model_classes.c.position))
    reaches = class_probabilities.c.probability >= model_classes.c.threshold
    counts = sa.select(model_classes.c.name, sa.func.count().filter(reaches)).select_from(source)
    counts = counts.where(jobs.c.id == job_id).group_by(model_classes.c.position, model_classes.c.name)
    return dict(connection.execute(counts.order_by(model_classes.c.position)).tuples().all())
