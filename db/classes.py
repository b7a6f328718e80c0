"""What a model tells: the superclasses, which are columns of `predictions`, or classes of its own, rows beside them.

A model with classes of its own has rows in `model_classes`, its thresholds in `models` are null, and so are the
superclasses in its rows of `predictions`.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.db.schema import class_probabilities, jobs, model_classes, models, predictions


def thresholds_of(connection: Connection, model_id: int) -> dict[str, float]:
    """The classes of a model, in its order, and from which probability on each counts as found."""
    names, thresholds = model_classes.c.name, model_classes.c.threshold
    own = sa.select(names, thresholds).where(model_classes.c.model_id == model_id).order_by(model_classes.c.position)
    if found := connection.execute(own).all():
        return dict(row.tuple() for row in found)
    columns = (models.c[f"threshold_{name}"] for name in LABEL_COLUMNS)
    values = connection.execute(sa.select(*columns).where(models.c.id == model_id)).one()
    return dict(zip(LABEL_COLUMNS, values, strict=True))


def model_of(connection: Connection, job_id: int) -> int:
    """The id of a job's model."""
    return int(connection.execute(sa.select(jobs.c.model_id).where(jobs.c.id == job_id)).scalar_one())


def probabilities_of(
    connection: Connection, model_id: int, of: sa.FromClause = predictions
) -> dict[str, sa.ColumnElement[float]]:
    """The probability of each class of a model, in its order, as a column beside those of `of`, its predictions."""
    names = tuple(thresholds_of(connection, model_id))
    if names == LABEL_COLUMNS:
        return {name: of.c[name] for name in names}
    return {name: _own(of, position).label(name) for position, name in enumerate(names)}


def _own(of: sa.FromClause, position: int) -> sa.ScalarSelect[Any]:
    own = class_probabilities.alias()
    this = (own.c.recording_id == of.c.recording_id) & (own.c.model_id == of.c.model_id) & (own.c.position == position)
    return sa.select(own.c.probability).where(this).correlate(of).scalar_subquery()
