"""What the network makes of each record, kept beside its probabilities and exported, on both databases."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from commands import Command
from scoring import LEASE, THRESHOLDS, claim, prediction, take

from ecgbatch.db import chunks, jobs
from ecgbatch.db.chunks import LeaseLost
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import Prediction
from ecgbatch.db.select import select
from ecgbatch.db.terms import JobOptions
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

RECORDS = [Record(f"r{n}", 50.0, 1) for n in range(3)]


def open_job(database: Database, embeddings: bool, rescored: frozenset[str] = frozenset()) -> int:
    def make(connection: sa.Connection) -> int:
        archive = jobs.register_archive(connection, "archive", "/archive")
        model = jobs.register_model(connection, "m", "1", "a", {"thresholds": THRESHOLDS})
        job, _ = jobs.open_job(connection, archive, model, JobOptions(embeddings=embeddings))
        jobs.add_records(connection, job, RECORDS, 4, rescored)
        jobs.all_enqueued(connection, job)
        return job

    return database.write(make)


def with_features(record: Record, value: float) -> Prediction:
    made = prediction(record)
    return Prediction(made.recording_id, made.probabilities, "00", "", features=features(value))


def features(value: float) -> bytes:
    return np.full(288, value, "<f2").tobytes()


def stored(database: Database) -> list[bytes]:
    with select(database, "SELECT features FROM embeddings ORDER BY recording_id") as (_, rows):
        return [bytes(row[0]) for row in rows]


def test_features_are_stored_with_their_prediction_or_not_at_all(database: Database) -> None:
    open_job(database, embeddings=True)
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, [with_features(record, 0.5) for record in mine.records[:1]], LEASE)
    database.write(chunks.give_up, 1, chunk.number, "task")
    other = claim(database, chunk, worker="host:2")
    assert other is not None
    with pytest.raises(LeaseLost):
        database.write(chunks.store, mine, [with_features(record, 7) for record in mine.records[1:]], LEASE)
    assert stored(database) == [features(0.5)]
    database.write(chunks.store, other, [with_features(record, 65504) for record in other.records], LEASE)
    assert stored(database) == [features(0.5), features(65504), features(65504)]


def test_a_record_that_is_scored_again_has_its_new_features(database: Database) -> None:
    open_job(database, embeddings=True)
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, [with_features(record, 1) for record in mine.records], LEASE)
    open_job(database, embeddings=False, rescored=frozenset({"r0"}))
    with pytest.raises(EcgbatchError, match="no --embeddings"):
        open_job(database, embeddings=True)
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, [prediction(record) for record in mine.records], LEASE)
    assert stored(database) == [features(1), features(1)], "those of the older prediction went with it"


def test_a_job_keeps_and_exports_them(command: Command, archive: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    command("run", archive)
    assert "kept no embeddings" in command("export", "1", "out.parquet", "--embeddings", status=1).stderr
    command("run", archive, "--embeddings")
    before = command.rows("SELECT path, norm, mi FROM results ORDER BY path")
    assert len(before) == 64, "each record is scored once, again for the sake of its features"
    assert "exported to .parquet" in command("export", "2", "out.csv", "--embeddings", status=1).stderr
    assert "64 records" in command("export", "2", "out.parquet", "--embeddings").stdout
    rows = parquet.read_table(command.folder / "out.parquet").to_pylist()
    scorer = Scorer(Registry(SHIPPED).find("xlstm-ecg:1.3.0"))
    for row in rows[:3]:
        recording = read(archive, row["path"])
        cleaned, _ = scorer.clean(recording.signal[None])
        values, _ = scorer.metadata(row["age"], row["sex"])
        probabilities, expected = scorer.embed(cleaned, np.array([values], np.float32))
        assert probabilities[0].tolist() == [row[name] for name in ("norm", "mi", "sttc", "cd", "hyp")]
        assert row["embedding"] == expected[0].astype("<f2").astype(np.float32).tolist()
