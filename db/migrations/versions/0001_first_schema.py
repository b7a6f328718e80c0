"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)

RESULTS = """
CREATE VIEW results AS
SELECT a.name AS archive, r.path, r.age, r.sex, m.name AS model, m.version,
       p.norm, p.mi, p.sttc, p.cd, p.hyp, p.scored_at, p.flags
FROM predictions p
JOIN recordings r ON r.id = p.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = p.model_id
"""

JOB_PROGRESS = """
CREATE VIEW job_progress AS
SELECT job_id, state, total, scored + reused AS scored, reused, failed,
       total - scored - reused - failed AS remaining,
       CASE WHEN seconds > 0 THEN scored / seconds END AS records_per_second
FROM (
    SELECT j.id AS job_id, j.state, j.total,
           COALESCE(SUM(c.scored), 0) AS scored,
           COALESCE(SUM(c.reused), 0) AS reused,
           COALESCE(SUM(c.failed), 0) AS failed,
           {seconds} AS seconds
    FROM jobs j LEFT JOIN chunks c ON c.job_id = j.id
    GROUP BY j.id
) AS job
"""

SECONDS = {  # from a job's first claim to its end, or to now
    "sqlite": "(julianday(COALESCE(j.finished_at, 'now')) - julianday(j.started_at)) * 86400",
    "postgresql": "EXTRACT(EPOCH FROM COALESCE(j.finished_at, now()) - j.started_at)::float8",
}


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("root"),
    )
    op.create_table(
        "models",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("fingerprint"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", BigId, nullable=False),
        sa.Column("archive_id", BigId, nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("started_at", Time, nullable=True),
        sa.Column("finished_at", Time, nullable=True),
        sa.ForeignKeyConstraint(["archive_id"], ["archives.id"]),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "recordings",
        sa.Column("id", BigId, nullable=False),
        sa.Column("archive_id", BigId, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("age", sa.Float(), nullable=True),
        sa.Column("sex", sa.SmallInteger(), nullable=True),
        sa.ForeignKeyConstraint(["archive_id"], ["archives.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("archive_id", "path"),
    )
    op.create_table(
        "chunks",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("scored", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reused", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("queued_at", Time, nullable=True),
        sa.Column("lease_until", Time, nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    op.create_index("chunks_by_state", "chunks", ["state", "job_id", "number"])
    op.create_table(
        "failures",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("recording_id", BigId, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failed_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"]),
        sa.PrimaryKeyConstraint("job_id", "recording_id"),
    )
    op.create_index("failures_by_recording", "failures", ["recording_id"])
    op.create_table(
        "job_items",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("recording_id", BigId, nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"]),
        sa.PrimaryKeyConstraint("job_id", "recording_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("job_items_by_chunk", "job_items", ["job_id", "chunk"])
    op.create_table(
        "predictions",
        sa.Column("recording_id", BigId, nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("norm", sa.Float(), nullable=False),
        sa.Column("mi", sa.Float(), nullable=False),
        sa.Column("sttc", sa.Float(), nullable=False),
        sa.Column("cd", sa.Float(), nullable=False),
        sa.Column("hyp", sa.Float(), nullable=False),
        sa.Column("input_sha256", sa.Text(), nullable=False),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.Column("scored_at", Time, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"]),
        sa.PrimaryKeyConstraint("recording_id", "model_id"),
        sqlite_with_rowid=False,
    )
    op.execute(RESULTS)
    op.execute(JOB_PROGRESS.format(seconds=SECONDS[op.get_bind().dialect.name]))
