"""An identity for the database, measures of predictions, windows of long records, working time of jobs, workers."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)

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

SPAN = {  # seconds from a job's first claim to its end
    "sqlite": "(julianday(finished_at) - julianday(started_at)) * 86400",
    "postgresql": "EXTRACT(EPOCH FROM finished_at - started_at)::float8",
}

WORKED = {  # the seconds that are written down, and those since then of a job that is worked on
    "sqlite": """j.worked_seconds + CASE WHEN j.finished_at IS NULL AND j.active_at IS NOT NULL
               THEN MIN((julianday('now') - julianday(j.active_at)) * 86400, 1) ELSE 0 END""",
    "postgresql": """j.worked_seconds + CASE WHEN j.finished_at IS NULL AND j.active_at IS NOT NULL
               THEN LEAST(EXTRACT(EPOCH FROM now() - j.active_at)::float8, 1) ELSE 0 END""",
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    identity = op.create_table("database_identity", sa.Column("id", sa.Text(), primary_key=True))
    op.bulk_insert(identity, [{"id": uuid4().hex}])
    for name in ("format", "device"):
        op.add_column("recordings", sa.Column(name, sa.Text()))
    for name in ("amplitude", "limb_residual"):
        op.add_column("predictions", sa.Column(name, sa.Float()))
    op.add_column("jobs", sa.Column("windows", sa.Text(), nullable=False, server_default="first"))
    op.add_column("jobs", sa.Column("rescore", sa.Text(), nullable=False, server_default="none"))
    op.add_column("jobs", sa.Column("active_at", Time))
    op.add_column("jobs", sa.Column("worked_seconds", sa.Float(), nullable=False, server_default="0"))
    op.execute(f"UPDATE jobs SET worked_seconds = COALESCE({SPAN[dialect]}, 0), active_at = finished_at")
    op.create_table(
        "windows",
        sa.Column("recording_id", BigId, nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("start_s", sa.Float(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("norm", "mi", "sttc", "cd", "hyp")),
        sa.ForeignKeyConstraint(["recording_id", "model_id"], ["predictions.recording_id", "predictions.model_id"]),
        sa.PrimaryKeyConstraint("recording_id", "model_id", "start_s"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("seen_at", Time, nullable=False),
        sa.Column("expected_by", Time),
        sa.Column("processes", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute("DROP VIEW job_progress")
    op.execute(JOB_PROGRESS.format(seconds=WORKED[dialect]))
