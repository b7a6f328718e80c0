"""What two jobs of the same archive, by different models, say of the records that both have scored."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.browse import Job
from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.db.schema import job_items, models, predictions, recordings
from ecgbatch.settings import EcgbatchError

MOST = 1_000_000
"""Records that are compared, the first of the jobs: more would take longer than a page may."""


@dataclass(frozen=True)
class Agreement:
    """On one superclass: how many records it was found in by both, by the first alone, by the second alone.

    difference: of the probabilities, on average, without its sign.
    """

    both: int
    first: int
    second: int
    difference: float


@dataclass(frozen=True)
class Comparison:
    """On how many records, and by superclass."""

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
    limits = (_thresholds(connection, first), _thresholds(connection, second))
    for name in LABEL_COLUMNS:
        found, also = a.c[name] >= limits[0][name], b.c[name] >= limits[1][name]
        columns += [sa.func.count().filter(each) for each in (found & also, found & ~also, also & ~found)]
        columns += [sa.func.coalesce(sa.func.avg(sa.func.abs(a.c[name] - b.c[name])), 0.0)]
    records, *figures = connection.execute(sa.select(*columns).select_from(source)).one()
    of_each = {name: Agreement(*figures[4 * at : 4 * at + 4]) for at, name in enumerate(LABEL_COLUMNS)}
    return Comparison(records, of_each)


def apart(connection: Connection, first: Job, second: Job, superclass: str, count: int) -> list[Apart]:
    """The records that change side of one superclass, those of the largest differences first."""
    _refuse_strangers(first, second)
    source, a, b = _both(first, second)
    mine, other = a.c[superclass], b.c[superclass]
    found = mine >= _thresholds(connection, first)[superclass]
    also = other >= _thresholds(connection, second)[superclass]
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


def _thresholds(connection: Connection, job: Job) -> dict[str, float]:
    config = connection.execute(sa.select(models.c.config).where(models.c.id == job.model_id)).scalar_one()
    return dict(config["thresholds"])
