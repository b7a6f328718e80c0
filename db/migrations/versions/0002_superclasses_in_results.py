"""The view `results` says which superclasses were found, by the thresholds of the model."""

from alembic import op

revision = "0002"
down_revision = "0001"

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

THRESHOLD = {
    "sqlite": "json_extract(m.config, '$.thresholds.{label}')",
    "postgresql": "(m.config -> 'thresholds' ->> '{label}')::float8",
}


def upgrade() -> None:
    threshold = THRESHOLD[op.get_bind().dialect.name]
    found = (
        f"CASE WHEN p.{label} >= {threshold.format(label=label)} THEN 1 ELSE 0 END AS has_{label}"
        for label in ("norm", "mi", "sttc", "cd", "hyp")
    )
    op.execute("DROP VIEW results")
    op.execute(RESULTS.format(found=",\n       ".join(found)))
