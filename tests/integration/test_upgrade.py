"""Workers whose database is upgraded under them by a later version."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from commands import PATIENCE, Command, wait_until, workers
from places import FAULTY_WORKER

from ecgbatch.db import reports
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import newest_revision


def set_revision(database: Database, revision: str) -> None:
    to = sa.text("UPDATE alembic_version SET version_num = :revision")
    database.write(lambda connection: connection.execute(to, {"revision": revision}))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_worker_of_the_version_before_says_so_and_leaves_the_rest(services: Command, archive: Path) -> None:
    database = Database(services.environment["ECGBATCH_DATABASE_URL"])

    def scored() -> int:
        with database.read() as connection:
            return reports.progress(connection, 1)[0].scored

    services.worker_script = FAULTY_WORKER
    services.environment |= {
        "FAULTS_SLOW": "0.1",
        "ECGBATCH_CHUNK_SIZE": "8",
        "ECGBATCH_RECONCILE_SECONDS": "1",
        "ECGBATCH_LEASE_SECONDS": "3",
    }
    services("enqueue", archive)
    with workers(services, processes=1) as worker:
        wait_until(lambda: scored() > 0)
        set_revision(database, "9999")
        assert worker.wait(PATIENCE) == 1
    log = (services.folder / "worker.log").read_text()
    [line] = [line for line in log.splitlines() if "9999" in line]
    assert f"newer than this ecgbatch knows ({newest_revision()}); install the newer ecgbatch" in line
    assert "Traceback" not in log
    assert "install the newer ecgbatch" in services("worker", status=1).stderr
    assert 0 < scored() < 64
    set_revision(database, newest_revision())
    services.environment["FAULTS_SLOW"] = "0"
    with workers(services, processes=1):
        wait_until(lambda: scored() == 64)
