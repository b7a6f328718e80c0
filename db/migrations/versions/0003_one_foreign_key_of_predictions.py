"""A prediction refers to its item of a job, which refers to the job and the recording: one key to check, not three.

PostgreSQL stores a fifth more records a second so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ITEM = ["job_id", "recording_id"]


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for column in ("job_id", "model_id", "recording_id"):
            op.drop_constraint(f"predictions_{column}_fkey", "predictions")
        op.create_foreign_key(None, "predictions", "job_items", ITEM, ITEM)
    else:
        _copy_predictions()


def _copy_predictions() -> None:
    """SQLite changes no constraint of a table, and renames none that a view names."""
    views = op.get_bind().execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'view'")).all()
    for name, _ in views:
        op.execute(f"DROP VIEW {name}")
    op.create_table(
        "new_predictions",
        *(sa.Column(name, BigId, nullable=False) for name in ("recording_id", "model_id", "job_id")),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("norm", "mi", "sttc", "cd", "hyp")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("input_sha256", "flags")),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(ITEM, [f"job_items.{column}" for column in ITEM]),
        sa.PrimaryKeyConstraint("recording_id", "model_id"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO new_predictions SELECT * FROM predictions")
    op.drop_table("predictions")
    op.rename_table("new_predictions", "predictions")
    for _, definition in views:
        op.execute(definition)
