"""Models that tell classes of their own: a row for each, and null where the superclasses stand."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LABELS = ("norm", "mi", "sttc", "cd", "hyp")
PREDICTION = ["recording_id", "model_id"]
NULLABLE = {"predictions": LABELS, "models": [f"threshold_{label}" for label in LABELS]}

RESULTS = """
CREATE VIEW results AS
SELECT a.name AS archive, r.path, r.age, r.sex, m.name AS model, m.version,
       p.norm, p.mi, p.sttc, p.cd, p.hyp, p.scored_at, p.flags,
       {found}
FROM predictions p
JOIN recordings r ON r.id = p.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = p.model_id
WHERE p.norm IS NOT NULL
"""

CLASS_RESULTS = """
CREATE VIEW class_results AS
SELECT a.name AS archive, r.path, r.age, r.sex, m.name AS model, m.version, c.name AS class, o.probability,
       CASE WHEN o.probability >= c.threshold THEN 1 ELSE 0 END AS has, p.scored_at, p.flags
FROM class_probabilities o
JOIN model_classes c ON c.model_id = o.model_id AND c.position = o.position
JOIN predictions p ON p.recording_id = o.recording_id AND p.model_id = o.model_id
JOIN recordings r ON r.id = o.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = o.model_id
"""


def upgrade() -> None:
    op.execute("DROP VIEW results")
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in NULLABLE.items():
            for column in columns:
                op.alter_column(table, column, nullable=True)
    else:
        _make_nullable_on_sqlite()
    op.create_table(
        "model_classes",
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.PrimaryKeyConstraint("model_id", "position"),
        sa.UniqueConstraint("model_id", "name"),
    )
    op.create_table(
        "class_probabilities",
        sa.Column("recording_id", BigId, nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(PREDICTION, [f"predictions.{column}" for column in PREDICTION]),
        sa.PrimaryKeyConstraint(*PREDICTION, "position"),
        sqlite_with_rowid=False,
    )
    has = (f"CASE WHEN p.{n} >= m.threshold_{n} THEN 1 ELSE 0 END AS has_{n}" for n in LABELS)
    op.execute(RESULTS.format(found=",\n       ".join(has)))
    op.execute(CLASS_RESULTS)


def _make_nullable_on_sqlite() -> None:
    """SQLite's own way to take a NOT NULL away (lang_altertable.html, section 7): no row is read or written."""
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for table, columns in NULLABLE.items():
        this = {"table": table}
        made = connection.execute(sa.text("SELECT sql FROM sqlite_master WHERE name = :table"), this).scalar_one()
        for column in columns:
            made, changed = re.subn(rf"\b({column} FLOAT[^,]*?) NOT NULL", r"\1", made)
            assert changed == 1, f"{table}.{column} is not what earlier versions made"
        update = sa.text("UPDATE sqlite_master SET sql = :made WHERE name = :table")
        connection.execute(update, this | {"made": made})
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
