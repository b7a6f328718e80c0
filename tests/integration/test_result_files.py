"""`ecgbatch export`: a row for each record in every kind of file, whole or not at all."""

import csv
import json
import tracemalloc
from pathlib import Path

import pytest
from commands import Command
from scoring import THRESHOLDS, make_job, score, take

from ecgbatch.db.engine import Database
from ecgbatch.db.export import TOGETHER, Which, export
from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.records.synthetic import write_archive
from ecgbatch.settings import EcgbatchError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command where a job of 64 records and one that is not there has finished."""
    folder = tmp_path_factory.mktemp("exported")
    write_archive(folder / "archive")
    with open(folder / "archive/RECORDS", "a") as listed:
        listed.write('go"ne,1\n')
    command = Command(folder)
    command("run", folder / "archive", status=3)
    return command


def test_the_same_rows_in_each_kind_of_file(finished: Command) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert "65 records" in finished("export", "1", f"out.{suffix}").stdout
    with open(finished.folder / "out.csv", newline="") as file:
        in_csv = list(csv.DictReader(file))
    in_jsonl = [json.loads(line) for line in (finished.folder / "out.jsonl").read_text().splitlines()]
    in_parquet = parquet.read_table(finished.folder / "out.parquet").to_pylist()
    assert list(in_csv[0]) == list(in_jsonl[0]) == list(in_parquet[0])
    assert list(in_csv[0])[:12] == ["path", "age", "sex", "format", "device", *LABEL_COLUMNS, "has_norm", "has_mi"]
    stored = finished.rows("SELECT path, norm, mi, sttc, cd, hyp, flags FROM results ORDER BY path")
    scored = sorted((row for row in in_jsonl if row["reason"] is None), key=lambda row: str(row["path"]))
    assert [{name: row[name] for name in stored[0]} for row in scored] == stored
    assert {len(row["input_sha256"]) for row in scored} == {64}
    assert [(row["path"], row["reason"]) for row in in_jsonl if row["norm"] is None] == [('go"ne,1', "missing_header")]
    for a, b, c in zip(in_csv, in_jsonl, in_parquet, strict=True):
        assert a["path"] == b["path"] == c["path"]
        assert (float(a["mi"]) if a["mi"] else None) == b["mi"] == c["mi"]
    assert [path.name for path in finished.folder.glob(".out*")] == []


def test_what_was_scored_or_what_failed_alone(finished: Command) -> None:
    paths = {}
    for what, count in (("results", 64), ("failures", 1), ("all", 65)):
        assert f"{count} records" in finished("export", "1", "some.csv", "--what", what).stdout
        with open(finished.folder / "some.csv", newline="") as file:
            paths[what] = [row["path"] for row in csv.DictReader(file)]
    assert paths["failures"] == ['go"ne,1']
    assert sorted(paths["results"] + paths["failures"]) == sorted(paths["all"])


def test_each_record_is_in_one_part(database: Database, tmp_path: Path) -> None:
    """On each kind of database, of a job of which a record failed and another is to go."""
    job = make_job(database, 6)
    score(database, take(database)[0], frozenset({"r2"}))
    with database.read() as connection:
        counts = [export(connection, job, tmp_path / "out.csv", which) for which in Which]
    assert dict(zip(Which, counts, strict=True)) == {"results": 3, "failures": 1, "all": 6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1", "out.xlsx"], ".csv, .jsonl, .parquet"),
        (["7", "out.csv"], "there is no job 7"),
        (["1", "no/folder/out.csv"], "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_one_line(finished: Command, arguments: list[str], message: str) -> None:
    said = finished("export", *arguments, status=1).stderr
    assert message in said
    assert len(said.splitlines()) == 1


def test_memory_stays_the_same(database: Database, tmp_path: Path) -> None:
    """Four times as many records as are held at once take no more than twice what these take."""
    peaks = []
    for job_id, records in ((1, TOGETHER), (2, 4 * TOGETHER)):
        database.write(_make_job, job_id, records)
        with database.read() as connection:
            tracemalloc.start()
            assert export(connection, job_id, tmp_path / "out.csv") == records
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def _make_job(connection, job_id: int, records: int) -> None:  # type: ignore[no-untyped-def]
    from ecgbatch.db import jobs
    from ecgbatch.db.terms import JobOptions
    from ecgbatch.records.recording import Record

    archive = jobs.register_archive(connection, f"a{job_id}", f"/a{job_id}")
    model = jobs.register_model(connection, "m", "1", "f", {"thresholds": THRESHOLDS})
    assert jobs.open_job(connection, archive, model, JobOptions()) == (job_id, False)
    jobs.add_records(connection, job_id, [Record(f"record/{n:08}") for n in range(records)], 256)


def test_without_pyarrow_it_says_what_to_install(finished: Command, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('pyarrow')")
    finished.environment["PYTHONPATH"] = str(tmp_path)
    try:
        assert "pip install 'ecgbatch[parquet]'" in finished("export", "1", "out.parquet", status=1).stderr
    finally:
        del finished.environment["PYTHONPATH"]


def test_another_suffix_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/t.db").read() as connection, pytest.raises(EcgbatchError, match="suffixes"):
        export(connection, 1, tmp_path / "out.txt")
