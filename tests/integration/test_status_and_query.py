"""How jobs are shown, and what `query` takes and refuses, on both databases."""

import csv
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PATIENCE, Command, running
from terminal import in_terminal

from ecgbatch.db.engine import Database
from ecgbatch.db.select import select
from ecgbatch.settings import EcgbatchError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command where a job of 64 records and two that are not there has finished."""
    from ecgbatch.records.synthetic import write_archive

    folder = tmp_path_factory.mktemp("finished")
    write_archive(folder / "archive")
    with open(folder / "archive/RECORDS", "a") as listed:
        listed.write("gone/1\ngone/2\n")
    command = Command(folder)
    said = command("run", folder / "archive", status=3).stdout
    assert str(folder / "ecgbatch.db") in said
    assert "2, as gone/1: " in said
    assert "flag resampled" in said
    assert "archive" in said
    return command


def test_status_of_all_jobs(finished: Command) -> None:
    [job] = json.loads(finished("status", "--json").stdout)
    assert (job["archive"], job["model"], job["state"]) == ("archive", "xlstm-ecg:1.3.0", "finished")
    assert (job["total"], job["scored"], job["failed"], job["remaining"], job["seconds_left"]) == (66, 64, 2, 0, None)
    database = {"ECGBATCH_DATABASE_URL": f"sqlite:///{finished.folder}/ecgbatch.db"}
    lines = in_terminal([sys.executable, "-m", "ecgbatch", "status"], 140, finished.environment | database)
    assert max(map(len, lines)) <= 140
    assert "xlstm-ecg:1.3.0" in "".join(lines)


def test_status_of_one_job(finished: Command) -> None:
    job = json.loads(finished("status", "1", "--json").stdout)
    [failed] = job["failures"]
    assert (failed["reason"], failed["records"], failed["path"]) == ("missing_header", 2, "gone/1")
    assert "gone" in failed["detail"] or "1.hea" in failed["detail"]
    with sqlite3.connect(finished.folder / "ecgbatch.db") as connection:
        [(resampled,)] = connection.execute("SELECT count(*) FROM results WHERE flags LIKE '%resampled%'")
    assert job["flags"]["resampled"] == resampled > 0
    assert set(job["superclasses"]) == {"NORM", "MI", "STTC", "CD", "HYP"}
    assert job["worked_seconds"] > 0


def test_watching_jobs_that_have_ended_ends_at_once(finished: Command) -> None:
    assert "job 1: 100%, 66 of 66, 2 failed" in finished("status", "--watch", status=3).stderr


def test_query_as_csv_with_a_parameter(finished: Command) -> None:
    sql = "SELECT path, mi, age FROM results WHERE mi > :least AND path <> :path"
    done = finished("query", "--sql", sql, "--param", "least=0.01", "--param", "path=a=b", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    with sqlite3.connect(finished.folder / "ecgbatch.db") as connection:
        expected = connection.execute("SELECT path, mi FROM results WHERE mi > 0.01").fetchall()
    assert [(row["path"], float(row["mi"])) for row in rows] == expected


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["superclasses", "--param", "nonsense=1"], 1, "the statement has no parameter 'nonsense'"),
        (["--sql", "SELECT :a", "--param", "b=1"], 1, "the statement has no parameter 'b'; it has a"),
        (["--sql", "SELECT :a, :b", "--param", "b=1"], 1, "--param a=VALUE"),
        (["superclasses", "--param", "nonsense"], 2, "NAME=VALUE"),
        (["superclasses", "--csv", "--json"], 2, "not both"),
        (["--param", "a=1"], 2, "--param needs a statement"),
        (["superclasses", "--sql", "SELECT 1"], 2, "not both"),
    ],
)
def test_wrong_use_is_one_line(finished: Command, arguments: list[str], status: int, message: str) -> None:
    said = finished("query", *arguments, status=status).stderr
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "",
        " ;",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE jobs",
        "COMMIT; DELETE FROM jobs",
        "DELETE FROM jobs",
        "INSERT INTO archives (name, root) VALUES ('a', 'b') RETURNING id",
        "CREATE TEMPORARY TABLE mine (a int)",
        "ATTACH '{folder}/new.db' AS n",
        "VACUUM INTO '{folder}/new.db'",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('{folder}/new')",
        "COPY jobs TO PROGRAM 'touch {folder}/new'",
        "COPY jobs TO '{folder}/new'",
        "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT lo_create(0)",
        "SELECT 'a\0b",
    ],
)
def test_a_query_reads_and_does_nothing_else(database: Database, tmp_path: Path, statement: str) -> None:
    with database.read() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM archives").scalar()
    with pytest.raises(EcgbatchError), select(database, statement.format(folder=tmp_path)) as (_, rows):
        list(rows)
    assert not list(tmp_path.glob("new*"))
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM archives").scalar() == before
        assert connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar() == 0


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT '50%' AS a, '%s' AS b, ':x' AS c;", [("50%", "%s", ":x")]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2) SELECT i FROM n", [(1,), (2,)]),
        ("SELECT count(*) FROM results", [(0,)]),
    ],
)
def test_what_reads_is_answered(database: Database, statement: str, expected: list[tuple[object, ...]]) -> None:
    with select(database, statement) as (_, rows):
        assert [tuple(row) for row in rows] == expected


def test_sqlite_reads_its_own_tables_and_json(tmp_path: Path) -> None:
    from ecgbatch.db.migrate import open_database

    database = open_database(f"sqlite:///{tmp_path}/test.db")
    statements = ("PRAGMA table_info(jobs)", "SELECT value FROM json_each('[1, 2]')", "SELECT name FROM sqlite_master")
    for statement in statements:
        with select(database, statement) as (_, rows):
            assert len(list(rows)) >= 2


def test_without_a_worker_status_says_so_and_what_to_do(tmp_path: Path, redis_url: str, archive: Path) -> None:
    command = Command(tmp_path, ECGBATCH_REDIS_URL=redis_url)
    command("enqueue", archive)
    what_to_do = "no worker is there and there never was one: start one with `ecgbatch worker`"
    assert what_to_do in command("status").stderr
    assert f"0; {what_to_do}" in command("status", "1").stdout
    watching = command.start("status", "--watch", stderr=subprocess.PIPE)
    with running(watching):
        assert watching.stderr is not None
        seen = [watching.stderr.readline() for _ in range(2)]
        assert [seen[0][:6], seen[1].strip()] == ["job 1:", f"workers: {what_to_do}"]
        with running(command.start("worker", stderr=subprocess.DEVNULL)):
            assert watching.wait(PATIENCE) == 0
    again = Command(tmp_path, ECGBATCH_REDIS_URL=redis_url, ECGBATCH_MODEL="xlstm-ecg:1.0.0")
    again("enqueue", archive)
    assert "no worker is there since" in again("status").stderr
