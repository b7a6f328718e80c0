"""The index of a chunk's records holds all that is asked of them: without it SQLite went through all of the job's."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.drop_index("job_items_by_chunk", "job_items")
    op.create_index("job_items_by_chunk", "job_items", ["job_id", "chunk", "rescore"])
