"""A database as an earlier version of ecgbatch left it."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import MIGRATIONS

ROWS = """
INSERT INTO archives (name, root) VALUES ('archive', '/archive');
INSERT INTO models (name, version, fingerprint, config, created_at) VALUES ('m', '1', 'a', '
    {{"thresholds": {{"norm": 0.9, "mi": 0.05, "sttc": 0.25, "cd": 0.3, "hyp": 0.5}}}}', '{time}');
INSERT INTO recordings (archive_id, path, age, sex) VALUES (1, 'r0', 50, 1), (1, 'r1', NULL, NULL), (1, 'r2', 50, 1);
INSERT INTO jobs (archive_id, model_id, state, priority, total, created_at, started_at, finished_at)
    VALUES (1, 1, 'finished', 'normal', 3, '{time}', '{time}', '{later}');
INSERT INTO chunks (job_id, number, state, size, scored, failed, attempts) VALUES (1, 1, 'done', 3, 2, 1, 1);
INSERT INTO job_items (job_id, recording_id, chunk) VALUES (1, 1, 1), (1, 2, 1), (1, 3, 1);
INSERT INTO predictions
    (recording_id, model_id, job_id, norm, mi, sttc, cd, hyp, input_sha256, flags, scored_at, worker) VALUES
    (1, 1, 1, 0.9, 0.1, 0.2, 0.3, 0.4, '00', '', '{time}', 'w'),
    (3, 1, 1, 0.9, 0.1, 0.2, 0.3, 0.4, '00', '', '{time}', 'w');
INSERT INTO failures (job_id, recording_id, stage, reason, detail, attempts, failed_at) VALUES
    (1, 2, 'read', 'truncated', 'too short', 1, '{time}')
"""
"""A job that has ended: of three records two are scored, and one has failed."""


REVISIONS = sorted(path.name[:4] for path in MIGRATIONS.glob("versions/[0-9]*.py"))[:-1]
"""All but this version's."""


def make_older(database: Database, revision: str) -> None:
    """Makes the schema of a revision, with rows as they were then."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    zone = "" if database.is_sqlite else "+00"
    times = dict(time=f"2026-01-01 00:00:00.000000{zone}", later=f"2026-01-01 00:00:04.000000{zone}")

    def fill(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for statement in ROWS.format(**times).split(";"):
            connection.exec_driver_sql(statement)
        if revision >= "0004":  # which counts what is worked
            connection.exec_driver_sql("UPDATE jobs SET worked_seconds = 4")

    database.write(fill)
