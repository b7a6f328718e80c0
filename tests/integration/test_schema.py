"""The schema and its migrations, on SQLite and on PostgreSQL."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import progress, rows
from older import REVISIONS, make_older
from scoring import make_job
from sqlite_schema import made, script

from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import NEWEST_ON_SQLITE, current_revision, newest_revision, open_database, upgrade
from ecgbatch.db.schema import metadata
from ecgbatch.settings import EcgbatchError


def test_migrations_make_the_schema_that_the_code_uses(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


def test_upgrade_twice_changes_nothing(database: Database) -> None:
    make_job(database, 3)
    assert upgrade(database) == newest_revision() == current_revision(database)
    assert rows(database, "SELECT count(*) FROM job_items") == [(3,)]


def test_an_empty_sqlite_file_gets_what_the_migrations_make(sqlite: Database) -> None:
    assert NEWEST_ON_SQLITE.read_text() == script(), "run: python tests/support/sqlite_schema.py"
    with sqlite.read() as connection:
        assert made(connection) == script().split(";\n\n")[:-3]
    assert current_revision(sqlite) == newest_revision()


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_older_schema_is_upgraded_with_what_it_holds(database_url: str, revision: str) -> None:
    database = Database(database_url)
    make_older(database, revision)
    old_columns = "recording_id, model_id, job_id, norm, mi, sttc, cd, hyp, input_sha256, flags, scored_at, worker"
    of_results = "archive, path, age, sex, model, version, norm, mi, sttc, cd, hyp, scored_at, flags"
    held = {"results": of_results, "predictions": old_columns, "failures": "*"}
    before = {table: rows(database, f"SELECT {columns} FROM {table} ORDER BY 1, 2") for table, columns in held.items()}
    assert [len(found) for found in before.values()] == [2, 2, 1]
    upgrade(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []
    for table, columns in held.items():
        assert rows(database, f"SELECT {columns} FROM {table} ORDER BY 1, 2") == before[table]
    ended = progress(database, 1)
    assert (ended.state, ended.scored, ended.failed, ended.remaining) == ("finished", 2, 1, 0)
    assert ended.records_per_second == pytest.approx(0.5, rel=1e-4)  # SQLite keeps days
    assert make_job(database, 4) == 2
    assert (progress(database, 2).reused, progress(database, 2).remaining) == (2, 2)


def test_a_newer_schema_is_refused(database: Database, database_url: str) -> None:
    database.write(lambda c: c.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(EcgbatchError, match="newer"):
        open_database(database_url)


def test_postgresql_is_not_migrated_unasked(postgresql_url: str) -> None:
    with pytest.raises(EcgbatchError, match="no tables yet; run: ecgbatch db upgrade"):
        open_database(postgresql_url)


def test_an_unreachable_database_is_one_line() -> None:
    with pytest.raises(EcgbatchError, match="ECGBATCH_DATABASE_URL") as error:
        open_database("postgresql://user:secret@127.0.0.1:1/none")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "sqlite:////nowhere/at/all.db"])
def test_an_unusable_url_is_one_line(url: str) -> None:
    with pytest.raises(EcgbatchError):
        open_database(url)
