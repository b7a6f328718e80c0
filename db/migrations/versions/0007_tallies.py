"""Thresholds as columns of models; tallies of chunks and of workers, so that no question reads a million rows."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)
LABELS = ("norm", "mi", "sttc", "cd", "hyp")

RESULTS = """
CREATE VIEW results AS
SELECT a.name AS archive, r.path, r.age, r.sex, m.name AS model, m.version,
       p.norm, p.mi, p.sttc, p.cd, p.hyp, p.scored_at, p.flags,
       {found}
FROM predictions p
JOIN recordings r ON r.id = p.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = p.model_id
"""

IN_CONFIG = {
    "sqlite": "json_extract(config, '$.thresholds.{label}')",
    "postgresql": "(config -> 'thresholds' ->> '{label}')::float8",
}

TALLIES = """
UPDATE chunks SET flagged = t.flagged, margin = t.margin, {counts}
FROM (
    SELECT i.job_id, i.chunk, SUM(CASE WHEN p.flags <> '' THEN 1 ELSE 0 END) AS flagged,
           MIN({least}({distances})) AS margin, {found}
    FROM job_items i
    JOIN jobs j ON j.id = i.job_id
    JOIN models m ON m.id = j.model_id
    JOIN predictions p ON p.recording_id = i.recording_id AND p.model_id = j.model_id
    GROUP BY i.job_id, i.chunk
) AS t
WHERE chunks.job_id = t.job_id AND chunks.number = t.chunk
"""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    for label in LABELS:
        op.add_column("models", sa.Column(f"threshold_{label}", sa.Float(), nullable=False, server_default="0.5"))
        op.add_column("chunks", sa.Column(label, sa.Integer(), nullable=False, server_default="0"))
        threshold = IN_CONFIG[dialect].format(label=label)
        op.execute(f"UPDATE models SET threshold_{label} = COALESCE({threshold}, 0.5)")
    op.add_column("chunks", sa.Column("flagged", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("chunks", sa.Column("margin", sa.Float(), nullable=False, server_default="1"))
    op.create_table(
        "job_workers",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("first_scored_at", Time, nullable=False),
        sa.Column("last_scored_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "worker"),
    )
    op.execute(
        "INSERT INTO job_workers SELECT job_id, worker, COUNT(*), MIN(scored_at), MAX(scored_at) FROM predictions "
        "GROUP BY job_id, worker"
    )
    counts = ", ".join(f"{label} = t.{label}" for label in LABELS)
    found = ", ".join(f"SUM(CASE WHEN p.{n} >= m.threshold_{n} THEN 1 ELSE 0 END) AS {n}" for n in LABELS)
    distances = ", ".join(f"ABS(p.{label} - m.threshold_{label})" for label in LABELS)
    least = {"sqlite": "MIN", "postgresql": "LEAST"}[dialect]
    op.execute(TALLIES.format(counts=counts, found=found, distances=distances, least=least))
    has = (f"CASE WHEN p.{n} >= m.threshold_{n} THEN 1 ELSE 0 END AS has_{n}" for n in LABELS)
    op.execute("DROP VIEW results")
    op.execute(RESULTS.format(found=",\n       ".join(has)))
