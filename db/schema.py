"""The tables as this version uses them. Migrations make them, and the views results, class_results, job_progress."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.db.terms import LeadsMissing, Rescore, Windows


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, always UTC; SQLite keeps it as text without the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        time: datetime = value
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


metadata = sa.MetaData()
BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")

database_identity = sa.Table("database_identity", metadata, sa.Column("id", sa.Text, primary_key=True))

archives = sa.Table(
    "archives",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("root", sa.Text, nullable=False, unique=True),
)

recordings = sa.Table(
    "recordings",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("archive_id", BigId, sa.ForeignKey("archives.id"), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("age", sa.Float),
    sa.Column("sex", sa.SmallInteger),
    sa.Column("format", sa.Text),
    sa.Column("device", sa.Text),
    sa.UniqueConstraint("archive_id", "path"),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    *(sa.Column(f"threshold_{name}", sa.Float, server_default="0.5") for name in LABEL_COLUMNS),
)

model_classes = sa.Table(
    "model_classes",
    metadata,
    sa.Column("model_id", BigId, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("position", sa.SmallInteger, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("threshold", sa.Float, nullable=False),
    sa.UniqueConstraint("model_id", "name"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("archive_id", BigId, sa.ForeignKey("archives.id"), nullable=False),
    sa.Column("model_id", BigId, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("finished_at", UtcTime),
    sa.Column("windows", sa.Text, nullable=False, server_default=Windows.FIRST),
    sa.Column("rescore", sa.Text, nullable=False, server_default=Rescore.NONE),
    sa.Column("active_at", UtcTime),
    sa.Column("worked_seconds", sa.Float, nullable=False, server_default="0"),
    sa.Column("leads_missing", sa.Text, nullable=False, server_default=LeadsMissing.REFUSE),
    sa.Column("embeddings", sa.Boolean, nullable=False, server_default=sa.false()),
)

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("job_id", BigId, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("scored", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reused", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queued_at", UtcTime),
    sa.Column("lease_until", UtcTime),
    sa.Column("worker", sa.Text),
    sa.Column("task_id", sa.Text),
    *(sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in (*LABEL_COLUMNS, "flagged")),
    sa.Column("margin", sa.Float, nullable=False, server_default="1"),
    sa.Index("chunks_by_state", "state", "job_id", "number"),
)

job_items = sa.Table(
    "job_items",
    metadata,
    sa.Column("job_id", BigId, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("recording_id", BigId, sa.ForeignKey("recordings.id"), primary_key=True),
    sa.Column("chunk", sa.Integer, nullable=False),
    sa.Column("rescore", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("job_items_by_chunk", "job_id", "chunk", "rescore"),
    sqlite_with_rowid=False,
)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("recording_id", BigId, primary_key=True),
    sa.Column("model_id", BigId, primary_key=True),
    sa.Column("job_id", BigId, nullable=False),
    *(sa.Column(name, sa.Float) for name in LABEL_COLUMNS),
    sa.Column("input_sha256", sa.Text, nullable=False),
    sa.Column("flags", sa.Text, nullable=False),
    sa.Column("scored_at", UtcTime, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("amplitude", sa.Float),
    sa.Column("limb_residual", sa.Float),
    sa.ForeignKeyConstraint(["job_id", "recording_id"], ["job_items.job_id", "job_items.recording_id"]),
    sqlite_with_rowid=False,
)

failures = sa.Table(
    "failures",
    metadata,
    sa.Column("job_id", BigId, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("recording_id", BigId, sa.ForeignKey("recordings.id"), primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failed_at", UtcTime, nullable=False),
    sa.Index("failures_by_recording", "recording_id"),
)

windows = sa.Table(
    "windows",
    metadata,
    sa.Column("recording_id", BigId, primary_key=True),
    sa.Column("model_id", BigId, primary_key=True),
    sa.Column("start_s", sa.Float, primary_key=True),
    *(sa.Column(name, sa.Float, nullable=False) for name in LABEL_COLUMNS),
    sa.ForeignKeyConstraint(["recording_id", "model_id"], ["predictions.recording_id", "predictions.model_id"]),
    sqlite_with_rowid=False,
)

class_probabilities = sa.Table(
    "class_probabilities",
    metadata,
    sa.Column("recording_id", BigId, primary_key=True),
    sa.Column("model_id", BigId, primary_key=True),
    sa.Column("position", sa.SmallInteger, primary_key=True),
    sa.Column("probability", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(["recording_id", "model_id"], ["predictions.recording_id", "predictions.model_id"]),
    sqlite_with_rowid=False,
)

embeddings = sa.Table(
    "embeddings",
    metadata,
    sa.Column("recording_id", BigId, primary_key=True),
    sa.Column("model_id", BigId, primary_key=True),
    sa.Column("features", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["recording_id", "model_id"], ["predictions.recording_id", "predictions.model_id"]),
    sqlite_with_rowid=False,
)

job_workers = sa.Table(
    "job_workers",
    metadata,
    sa.Column("job_id", BigId, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("first_scored_at", UtcTime, nullable=False),
    sa.Column("last_scored_at", UtcTime, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),
    sa.Column("expected_by", UtcTime),
    sa.Column("processes", sa.Integer, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("kernel", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("problem", sa.Text),
)
