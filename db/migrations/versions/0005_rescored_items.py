"""Items of a job that are scored again although the model has scored them before."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("job_items", sa.Column("rescore", sa.Boolean(), nullable=False, server_default=sa.false()))
