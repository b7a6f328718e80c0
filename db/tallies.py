"""What the records of a chunk come to, counted as they are stored, so that no question need read a million rows.

A chunk's tallies are of all its records that the job's model has scored, in this job or before: how many have each
superclass, how many are flagged, and the margin: how near any probability is to its threshold. Of a model that tells
classes of its own only the flagged are counted.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.functions import Least, Now
from ecgbatch.db.outcomes import LABEL_COLUMNS, Prediction, Probabilities
from ecgbatch.db.schema import chunks, job_items, job_workers, jobs, models, predictions

FARTHEST = 1.0
"""The margin of a chunk of whose superclasses nothing is known: no probability is farther from a threshold."""


def tally(scored: Sequence[Prediction], thresholds: Probabilities | None) -> dict[str, Any]:
    """The tallies of some predictions, as `added` takes them; without thresholds they are of no superclasses."""
    import numpy as np

    flagged = sum(prediction.flags != "" for prediction in scored)
    if thresholds is None:
        return dict.fromkeys((f"new_{name}" for name in LABEL_COLUMNS), 0) | {
            "new_flagged": flagged,
            "new_margin": FARTHEST,
        }
    values = np.fromiter(chain.from_iterable(p.probabilities for p in scored), np.float64, 5 * len(scored))
    margins = values.reshape(-1, 5) - thresholds
    counts = dict(zip((f"new_{name}" for name in LABEL_COLUMNS), (margins >= 0).sum(axis=0).tolist(), strict=True))
    return counts | {"new_flagged": flagged, "new_margin": float(np.abs(margins).min(initial=FARTHEST))}


def added() -> dict[str, sa.ColumnElement[Any]]:
    """A chunk's tallies with those of new records, bound by the names that `tally` gives them."""
    counts = {n: chunks.c[n] + sa.bindparam(f"new_{n}", type_=sa.Integer) for n in (*LABEL_COLUMNS, "flagged")}
    return counts | {"margin": Least(chunks.c.margin, sa.bindparam("new_margin", type_=sa.Float))}


def count_anew(connection: Connection, job_id: int, numbers: Sequence[int]) -> None:
    """Tallies chunks of a job by what is stored of their records."""
    of_model = (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == jobs.c.model_id)
    of_model &= ~job_items.c.rescore | (predictions.c.job_id == job_items.c.job_id)
    source = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(models).outerjoin(predictions, of_model)
    thresholds = {name: models.c[f"threshold_{name}"] for name in LABEL_COLUMNS}
    nearest = Least(*(sa.func.abs(predictions.c[name] - threshold) for name, threshold in thresholds.items()))
    found = sa.select(
        job_items.c.chunk,
        *(sa.func.count().filter(predictions.c[name] >= at).label(name) for name, at in thresholds.items()),
        sa.func.count().filter(predictions.c.flags != "").label("flagged"),
        sa.func.coalesce(sa.func.min(nearest), FARTHEST).label("margin"),
    )
    these = (job_items.c.job_id == job_id) & job_items.c.chunk.in_(numbers)
    found_in = found.select_from(source).where(these).group_by(job_items.c.chunk).subquery()
    this = (chunks.c.job_id == job_id) & (chunks.c.number == found_in.c.chunk)
    tallies = {name: found_in.c[name] for name in (*LABEL_COLUMNS, "flagged", "margin")}
    connection.execute(chunks.update().where(this).values(tallies))


def count_others_anew(connection: Connection, job_id: int, model_id: int, recording_ids: Sequence[int]) -> None:
    """Tallies the chunks of the model's other jobs that have these recordings, once they are scored again."""
    others = sa.select(job_items.c.job_id, job_items.c.chunk).distinct().join_from(jobs, job_items)
    others = others.where(jobs.c.model_id == model_id, jobs.c.id != job_id, job_items.c.recording_id.in_(recording_ids))
    for other, number in connection.execute(others.order_by(*others.selected_columns)).all():
        this = (chunks.c.job_id == other) & (chunks.c.number == number)
        connection.execute(sa.select(chunks.c.number).where(this).with_for_update())  # then it sees what others stored
        count_anew(connection, other, [number])


def credit(connection: Connection, job_id: int, worker: str, records: int) -> None:
    """Writes down that a worker process has scored so many more records of a job."""
    connection.exec_driver_sql(_credit(connection.dialect), {"job": job_id, "worker": worker, "records": records})


@cache
def _credit(dialect: sa.Dialect) -> str:
    """The statement as the driver takes it, built once: to build it takes longer than to run it."""
    job, worker, records = (
        f":{name}" if dialect.name == "sqlite" else f"%({name})s" for name in ("job", "worker", "records")
    )
    now = str(Now().compile(dialect=dialect))
    return (
        f"INSERT INTO {job_workers.name} (job_id, worker, records, first_scored_at, last_scored_at) "
        f"VALUES ({job}, {worker}, {records}, {now}, {now}) ON CONFLICT (job_id, worker) DO UPDATE "
        f"SET records = {job_workers.name}.records + excluded.records, last_scored_at = excluded.last_scored_at"
    )
