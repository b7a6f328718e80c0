"""Jobs that score records with fewer than twelve leads."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("leads_missing", sa.Text(), nullable=False, server_default="refuse"))
