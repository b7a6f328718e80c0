"""All that is known of one record: where it lies, what each model says of it and from what, and why it failed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.browse import NotThere
from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.db.schema import (
    archives,
    class_probabilities,
    failures,
    job_items,
    model_classes,
    models,
    predictions,
    recordings,
    windows,
)


@dataclass(frozen=True)
class Said:
    """What a model says of a record, and where that comes from; amplitude in mV."""

    model_id: int
    model: str
    fingerprint: str
    thresholds: dict[str, float]
    probabilities: dict[str, float]
    flags: tuple[str, ...]
    input_sha256: str
    job_id: int
    worker: str
    scored_at: datetime
    amplitude: float | None
    limb_residual: float | None


@dataclass(frozen=True)
class FailedAt:
    """Why a job could not score a record."""

    stage: str
    reason: str
    detail: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True)
class Whole:
    """A record; age in years, sex 0 male and 1 female. `failure` is that of the job it was asked of."""

    path: str
    archive: str
    root: str
    age: float | None
    sex: int | None
    format: str | None
    device: str | None
    failure: FailedAt | None
    said: list[Said]


def record_of(connection: Connection, job_id: int, recording_id: int) -> Whole:
    """Raises NotThere when it is not of the job."""
    about = [recordings.c[name] for name in ("age", "sex", "format", "device")]
    source = job_items.join(recordings).join(archives)
    query = sa.select(recordings.c.path, archives.c.name, archives.c.root, *about).select_from(source)
    mine = (job_items.c.job_id == job_id) & (job_items.c.recording_id == recording_id)
    row = connection.execute(query.where(mine)).one_or_none()
    if row is None:
        raise NotThere(f"job {job_id} has no record {recording_id}")
    failure, said = _failure(connection, job_id, recording_id), _said(connection, recording_id)
    path, archive, root, age, sex, kind, device = row
    return Whole(path, archive, root, age, sex, kind, device, failure, said)


def windows_of(connection: Connection, recording_id: int, model_id: int) -> list[tuple[float, dict[str, float]]]:
    """From which second on each window is, and its probabilities; none of a record that is no longer than one."""
    columns = (windows.c.start_s, *(windows.c[name] for name in LABEL_COLUMNS))
    mine = (windows.c.recording_id == recording_id) & (windows.c.model_id == model_id)
    rows = connection.execute(sa.select(*columns).where(mine).order_by(windows.c.start_s))
    return [(start, dict(zip(LABEL_COLUMNS, values, strict=True))) for start, *values in rows]


def _failure(connection: Connection, job_id: int, recording_id: int) -> FailedAt | None:
    columns = [failures.c[name] for name in ("stage", "reason", "detail", "attempts", "failed_at")]
    mine = (failures.c.job_id == job_id) & (failures.c.recording_id == recording_id)
    row = connection.execute(sa.select(*columns).where(mine)).one_or_none()
    return None if row is None else FailedAt(*row)


def _said(connection: Connection, recording_id: int) -> list[Said]:
    query = sa.select(predictions, models.c.name, models.c.version, models.c.fingerprint, models.c.config)
    query = query.select_from(predictions.join(models, models.c.id == predictions.c.model_id))
    rows = connection.execute(query.where(predictions.c.recording_id == recording_id).order_by(models.c.id))
    own = _own_classes_of(connection, recording_id)
    return [_said_by(row._mapping, own.get(row.model_id)) for row in rows]


def _own_classes_of(connection: Connection, recording_id: int) -> dict[int, dict[str, float]]:
    """The probabilities of the classes of models that tell their own, by model."""
    o, c = class_probabilities.c, model_classes.c
    same = (c.model_id == o.model_id) & (c.position == o.position)
    query = sa.select(o.model_id, c.name, o.probability).join_from(class_probabilities, model_classes, same)
    found: dict[int, dict[str, float]] = {}
    for model_id, name, probability in connection.execute(
        query.where(o.recording_id == recording_id).order_by(o.model_id, o.position)
    ):
        found.setdefault(model_id, {})[name] = probability
    return found


def _said_by(row: Any, own: dict[str, float] | None) -> Said:
    return Said(
        row["model_id"],
        f"{row['name']}:{row['version']}",
        row["fingerprint"],
        row["config"]["thresholds"],
        own or {name: row[name] for name in LABEL_COLUMNS},
        tuple(filter(None, row["flags"].split(","))),
        row["input_sha256"],
        row["job_id"],
        row["worker"],
        row["scored_at"],
        row["amplitude"],
        row["limb_residual"],
    )
