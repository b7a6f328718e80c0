"""What two jobs of the same archive, by different models, say of the records that both have scored."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.browse import Job
from ecgbatch.db.classes import probabilities_of, thresholds_of
from ecgbatch.db.schema import job_items, predictions, recordings
from ecgbatch.settings import EcgbatchError

MOST = 1_000_000
"""Records that are compared, the first of the jobs: more would take longer than a page may."""


@dataclass(frozen=True)
class Agreement:
    """On one class: how many records it was found in by both, by the first alone, by the second alone.

    difference: of the probabilities, on average, without its sign.
    """

    both: int
    first: int
    second: int
    difference: float


@dataclass(frozen=True)
class Comparison:
    """On how many records, and by each class that both models tell."""

    records: int
    agreements: dict[str, Agreement]


@dataclass(frozen=True, slots=True)
class Apart:
    """A record on which two models are on different sides of their thresholds, and their probabilities."""

    id: int
    path: str
    first: float
    second: float


def compare(connection: Connection, first: Job, second: Job) -> Comparison:
    """Raises EcgbatchError for jobs that have no records in common to compare."""
    _refuse_strangers(first, second)
    source, a, b = _both(first, second)
    columns: list[sa.ColumnElement[Any]] = [sa.func.count()]
    mine, other = (probabilities_of(connection, job.model_id, of) for job, of in ((first, a), (second, b)))
    limits, others = thresholds_of(connection, first.model_id), thresholds_of(connection, second.model_id)
    shared = classes_of_both(connection, first, second)
    for name in shared:
        found, also = mine[name] >= limits[name], other[name] >= others[name]
        columns += [sa.func.count().filter(each) for each in (found & also, found & ~also, also & ~found)]
        columns += [sa.func.coalesce(sa.func.avg(sa.func.abs(mine[name] - other[name])), 0.0)]
    records, *figures = connection.execute(sa.select(*columns).select_from(source)).one()
    of_each = {name: Agreement(*figures[4 * at : 4 * at + 4]) for at, name in enumerate(shared)}
    return Comparison(records, of_each)


def classes_of_both(connection: Connection, first: Job, second: Job) -> list[str]:
    """The classes that both models tell. Raises EcgbatchError where there is none."""
    other = thresholds_of(connection, second.model_id)
    shared = [name for name in thresholds_of(connection, first.model_id) if name in other]
    if not shared:
        raise EcgbatchError(f"jobs {first.id} and {second.id} are by models that have no class in common")
    return shared


def apart(connection: Connection, first: Job, second: Job, name: str, count: int) -> list[Apart]:
    """The records that change side of a class that both models tell, those of the largest differences first."""
    _refuse_strangers(first, second)
    source, a, b = _both(first, second)
    mine, other = (probabilities_of(connection, job.model_id, of)[name] for job, of in ((first, a), (second, b)))
    found = mine >= thresholds_of(connection, first.model_id)[name]
    also = other >= thresholds_of(connection, second.model_id)[name]
    source = source.join(recordings, recordings.c.id == a.c.recording_id)
    query = sa.select(recordings.c.id, recordings.c.path, mine, other).select_from(source).where(found != also)
    query = query.order_by(sa.func.abs(mine - other).desc(), recordings.c.id).limit(count)
    return [Apart(*row) for row in connection.execute(query)]


def _refuse_strangers(first: Job, second: Job) -> None:
    if first.archive_id != second.archive_id:
        raise EcgbatchError(f"jobs {first.id} and {second.id} are of different archives: they share no records")
    if first.model_id == second.model_id:
        raise EcgbatchError(f"jobs {first.id} and {second.id} are by the same model: they say the same of each record")


def _both(first: Job, second: Job) -> tuple[sa.Join, sa.FromClause, sa.FromClause]:
    """The predictions of both models for the records that both jobs have."""
    mine, other = job_items.alias(), job_items.alias()
    shared = sa.select(mine.c.recording_id).select_from(
        mine.join(other, (other.c.recording_id == mine.c.recording_id) & (other.c.job_id == second.id))
    )
    records = shared.where(mine.c.job_id == first.id).order_by(mine.c.recording_id).limit(MOST).subquery()
    a, b = predictions.alias(), predictions.alias()
    source = records.join(a, (a.c.recording_id == records.c.recording_id) & (a.c.model_id == first.model_id))
    source = source.join(b, (b.c.recording_id == records.c.recording_id) & (b.c.model_id == second.model_id))
    return source, a, b
