"""Scoring again: what has changed since takes the place of what was stored, and every record keeps one outcome."""

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from commands import Command
from scoring import LEASE, THRESHOLDS, claim, failure, prediction, score, take

from ecgbatch.db import chunks, jobs, reports
from ecgbatch.db.engine import Database
from ecgbatch.db.select import select
from ecgbatch.db.terms import JobOptions, Rescore
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

RECORDS = [Record(f"r{n}", 50.0, 1) for n in range(6)]


def open_job(database: Database, rescore: Rescore = Rescore.NONE) -> int:
    def make(connection: sa.Connection) -> int:
        archive_id = jobs.register_archive(connection, "archive", "/archive")
        model_id = jobs.register_model(connection, "m", "1", "a", {"thresholds": THRESHOLDS})
        return jobs.open_job(connection, archive_id, model_id, JobOptions(rescore=rescore))[0]

    return database.write(make)


def add(database: Database, job_id: int, records: list[Record], rescore: set[str]) -> None:
    database.write(jobs.add_records, job_id, records, 4, rescore)
    database.write(jobs.all_enqueued, job_id)


def rows(database: Database, sql: str) -> list[tuple[object, ...]]:
    with select(database, sql) as (_, found):
        return [tuple(row) for row in found]


def progress(database: Database, job_id: int) -> tuple[str, int, int, int, int]:
    with database.read() as connection:
        [now] = reports.progress(connection, job_id)
    return now.state, now.scored, now.reused, now.failed, now.remaining


OUTCOMES = """SELECT path, p.job_id, f.job_id FROM recordings r LEFT JOIN predictions p ON p.recording_id = r.id
    LEFT JOIN failures f ON f.recording_id = r.id ORDER BY path"""


def test_outcomes_take_the_place_of_older_ones(database: Database) -> None:
    first = open_job(database)
    add(database, first, RECORDS, set())
    for chunk in take(database):
        score(database, chunk)
    again = open_job(database, Rescore.CHANGED)
    assert again != first
    renewed = [Record("r0", 60.0, None), *RECORDS[1:]]
    add(database, again, renewed, {"r0", "r1", "r4"})
    assert progress(database, again) == ("running", 3, 3, 0, 3)
    assert rows(database, "SELECT age, sex FROM recordings WHERE path = 'r0'") == [(60, None)]
    one, two = take(database)
    mine = claim(database, one)
    assert mine is not None
    assert [record.path for record in mine.records] == ["r0", "r1"]
    assert rows(database, OUTCOMES) == [(f"r{n}", first, None) for n in range(6)]  # until there is another
    database.write(chunks.store, mine, [prediction(mine.records[0]), failure(mine.records[1])], LEASE)
    score(database, two)
    assert progress(database, again) == ("finished", 5, 3, 1, 0)
    assert progress(database, first)[0] == "finished"
    assert rows(database, OUTCOMES) == [
        *(("r0", again, None), ("r1", None, again), ("r2", first, None)),
        *(("r3", first, None), ("r4", again, None), ("r5", first, None)),
    ]


def test_a_worker_that_dies_leaves_what_it_has_not_scored_again(database: Database) -> None:
    first = open_job(database)
    add(database, first, RECORDS[:3], set())
    score(database, take(database)[0])
    again = open_job(database, Rescore.ALL)
    add(database, again, RECORDS[:3], {"r0", "r1", "r2"})
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, [prediction(mine.records[0])], LEASE)
    database.write(chunks.give_up, again, chunk.number, "task")
    left = claim(database, chunk, worker="host:2")
    assert left is not None
    assert [record.path for record in left.records] == ["r1", "r2"]
    database.write(chunks.store, left, [prediction(record) for record in left.records], LEASE)
    assert progress(database, again) == ("finished", 3, 0, 0, 0)
    assert rows(database, "SELECT job_id FROM predictions") == [(again,)] * 3


def test_an_unfinished_job_goes_on_as_it_was_made(database: Database) -> None:
    job_id = open_job(database)
    with pytest.raises(EcgbatchError, match="is not finished; the same command without --rescore goes on with it"):
        open_job(database, Rescore.ALL)
    add(database, job_id, RECORDS[:1], set())
    score(database, take(database)[0])
    again = open_job(database, Rescore.CHANGED)
    assert open_job(database) == again == open_job(database, Rescore.CHANGED)
    assert database.write(jobs.options_of, again).rescore == Rescore.CHANGED


def test_what_has_changed_in_an_archive_is_scored_again(command: Command, archive: Path) -> None:
    command("run", archive)
    shutil.copy(archive / "synthetic_0005.dat", archive / "synthetic_0001.dat")  # the same rate and length
    header = archive / "synthetic_0002.hea"
    header.write_text(header.read_text().replace("# Sex: Male", "# Sex: X").replace("Female", "Male"))
    (archive / "synthetic_0003.dat").unlink()
    assert "nothing to do" not in command("run", archive, "--rescore", "changed", status=3).stdout
    newer = "SELECT path FROM recordings r JOIN predictions p ON p.recording_id = r.id WHERE job_id = 2 ORDER BY path"
    changed = [row["path"] for row in command.rows(newer)]
    assert changed == ["synthetic_0001", "synthetic_0002"]
    assert [row["reason"] for row in command.rows("SELECT reason FROM failures")] == ["missing_signal_file"]
    assert command.rows("SELECT count(*) AS n FROM predictions") == [{"n": 63}]
