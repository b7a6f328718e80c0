"""Records longer than ten seconds, scored window by window: rows of windows come and go with their prediction."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import sqlalchemy as sa
from commands import Command
from numpy.typing import NDArray
from scoring import LEASE, THRESHOLDS, claim, failure, prediction, take
from wfdb_files import write

from ecgbatch.db import chunks, jobs
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import Prediction, Window
from ecgbatch.db.terms import JobOptions, Rescore, Windows
from ecgbatch.records.recording import Record
from ecgbatch.records.synthetic import write_archive
from ecgbatch.settings import EcgbatchError

LABELS = ("norm", "mi", "sttc", "cd", "hyp")
RECORDS = [Record(f"r{n}", 50.0, 1) for n in range(3)]


def open_job(database: Database, windows: Windows, rescore: Rescore = Rescore.NONE) -> int:
    def make(connection: sa.Connection) -> int:
        archive_id = jobs.register_archive(connection, "archive", "/archive")
        model_id = jobs.register_model(connection, "m", "1", "a", {"thresholds": THRESHOLDS})
        return jobs.open_job(connection, archive_id, model_id, JobOptions(rescore=rescore, windows=windows))[0]

    return database.write(make)


def add(database: Database, job_id: int, again: set[str] | None = None) -> None:
    database.write(jobs.add_records, job_id, RECORDS, 4, again or set())
    database.write(jobs.all_enqueued, job_id)


def in_windows(record: Record, count: int) -> Prediction:
    starts = [10.0 * n for n in range(count)]
    return replace(prediction(record), windows=tuple(Window(start, (start / 100,) * 5) for start in starts))


def windows_by_record(database: Database) -> dict[str, list[float]]:
    query = """SELECT path, start_s FROM windows w JOIN recordings ON id = w.recording_id
        JOIN predictions p ON p.recording_id = w.recording_id AND p.model_id = w.model_id ORDER BY path, start_s"""
    found: dict[str, list[float]] = {}
    with database.read() as connection:
        for path, start in connection.execute(sa.text(query)):
            found.setdefault(path, []).append(start)
    return found


def test_windows_come_and_go_with_their_prediction(database: Database) -> None:
    first = open_job(database, Windows.ALL)
    add(database, first)
    mine = claim(database, take(database)[0])
    assert mine is not None
    database.write(chunks.store, mine, [in_windows(record, 3) for record in mine.records], LEASE)
    assert windows_by_record(database) == {f"r{n}": [0.0, 10.0, 20.0] for n in range(3)}

    again = open_job(database, Windows.ALL, Rescore.ALL)
    add(database, again, {"r0", "r1", "r2"})
    mine = claim(database, take(database)[0])
    assert mine is not None
    r0, r1, r2 = mine.records
    with pytest.raises(RuntimeError, match="killed"):
        database.write(_store_and_die, mine, [in_windows(r0, 2)])
    assert windows_by_record(database)["r0"] == [0.0, 10.0, 20.0]  # nothing of it is there
    database.write(chunks.store, mine, [in_windows(r0, 2), failure(r1), prediction(r2)], LEASE)
    assert windows_by_record(database) == {"r0": [0.0, 10.0]}


def _store_and_die(connection: sa.Connection, mine: chunks.Claim, outcomes: list[chunks.Outcome]) -> None:
    chunks.store(connection, mine, outcomes, LEASE)
    raise RuntimeError("killed")


def test_no_windows_beside_the_prediction_of_another_job(database: Database) -> None:
    first = open_job(database, Windows.FIRST)
    add(database, first)
    [chunk] = take(database)
    early = claim(database, chunk)
    assert early is not None
    database.write(jobs.cancel, first)
    late = open_job(database, Windows.ALL)
    add(database, late)
    mine = claim(database, take(database)[0])
    assert mine is not None
    database.write(_score_by, early, early.records[0])
    database.write(chunks.store, mine, [in_windows(record, 2) for record in mine.records], LEASE)
    assert windows_by_record(database) == {"r1": [0.0, 10.0], "r2": [0.0, 10.0]}


def _score_by(connection: sa.Connection, early: chunks.Claim, record: Record) -> None:
    """What another job would have stored meanwhile."""
    chunks._insert_predictions(connection, early, [prediction(record)])


def test_a_job_takes_its_records_in_one_way(database: Database) -> None:
    first = open_job(database, Windows.FIRST)
    with pytest.raises(EcgbatchError, match=f"job {first} .* has --windows first .*ecgbatch cancel {first}"):
        open_job(database, Windows.ALL)
    assert open_job(database, Windows.FIRST) == first
    database.write(jobs.cancel, first)
    late = open_job(database, Windows.ALL)
    assert late != first
    with pytest.raises(EcgbatchError, match=f"job {late} .* has --windows all"):
        open_job(database, Windows.FIRST)
    with pytest.raises(EcgbatchError, match=f"job {late} .* has --windows all"):
        database.write(jobs.retry, first, None)


@pytest.fixture
def long_records(tmp_path: Path) -> Path:
    """An archive of `long` (47 s), `rest` (23 s), and five more records that are its windows."""
    root, made = tmp_path / "long", tmp_path / "made"
    root.mkdir()
    write_archive(made)
    names = [f for f in sorted(made.glob("*.hea")) if f.read_text().split()[2] == "100"]
    pieces = [np.fromfile(f.with_suffix(".dat"), "<i2").reshape(-1, 12).astype(np.int64) for f in names[:5]]
    pieces[-1] = pieces[-1][:700]
    for n, piece in enumerate(pieces):
        write(root, piece, name=f"piece{n}")
    write(root, np.concatenate(pieces), name="long")
    write(root, np.concatenate(pieces)[:2300], name="rest")
    return root


def predicted(command: Command) -> dict[str, dict[str, object]]:
    found = command.rows("SELECT path, p.* FROM predictions p JOIN recordings ON id = recording_id ORDER BY path")
    return {str(row["path"]): row for row in found}


def told(row: dict[str, object]) -> set[str]:
    """The flags of what the file holds; `uncertain` is of what the model says."""
    return {flag for flag in str(row["flags"]).split(",") if not flag.startswith("uncertain:")}


def values(row: dict[str, object]) -> NDArray[np.float64]:
    return np.array([row[label] for label in LABELS], float)


def test_long_records_are_scored_window_by_window(command: Command, long_records: Path) -> None:
    command("run", long_records)
    before = predicted(command)
    assert told(before["long"]) == {"age_missing", "cropped", "sex_missing"}
    assert command.rows("SELECT * FROM windows") == []

    command("run", long_records, "--windows", "all")
    after = predicted(command)
    windows = command.rows(
        "SELECT path, w.* FROM windows w JOIN recordings ON id = recording_id ORDER BY path, start_s"
    )
    assert [(row["path"], row["start_s"]) for row in windows] == [
        *(("long", start) for start in (0, 10, 20, 30, 40)),
        *(("rest", start) for start in (0, 10)),
    ]
    for n, row in enumerate(windows):
        np.testing.assert_allclose(values(row), values(after[f"piece{n % 5}"]), atol=1e-6)
    for path, own in (("long", windows[:5]), ("rest", windows[5:])):
        means = [mean(row[label] for row in own) for label in LABELS]
        np.testing.assert_allclose(values(after[path]), means, atol=1e-12)
    assert told(after["long"]) == {"age_missing", "sex_missing"}
    assert told(after["rest"]) == {"age_missing", "cropped", "sex_missing"}
    assert {path: after[path] for path in after if "piece" in path} == {p: before[p] for p in before if "piece" in p}
    progress = "SELECT scored, reused FROM job_progress WHERE job_id = {}"
    assert command.rows(progress.format(2)) == [{"scored": 7, "reused": 5}]

    with sqlite3.connect(command.folder / "ecgbatch.db") as connection:
        connection.execute("UPDATE jobs SET state = 'running' WHERE id = 2")
    refused = command("run", long_records, status=1)
    assert "job 2 of this archive and model is not finished and has --windows all" in refused.stderr
    assert "job 2 (continued)" in command("run", long_records, "--windows", "all").stderr
    assert "nothing to do" in command("run", long_records).stdout
    assert predicted(command) == after
