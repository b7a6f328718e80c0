"""The features of records, which a job may keep beside their probabilities."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PREDICTION = ["recording_id", "model_id"]


def upgrade() -> None:
    op.add_column("jobs", sa.Column("embeddings", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "embeddings",
        sa.Column("recording_id", BigId, nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(PREDICTION, [f"predictions.{column}" for column in PREDICTION]),
        sa.PrimaryKeyConstraint(*PREDICTION),
        sqlite_with_rowid=False,
    )
