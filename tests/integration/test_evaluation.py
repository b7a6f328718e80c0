"""Evaluation: figures with their intervals, and the command on each kind of database."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import sqlalchemy as sa
from commands import Command
from labelled import THRESHOLDS, columns, some_records
from numpy.typing import NDArray
from ptbxl import STATEMENTS
from scoring import LEASE, claim, failure, prediction, take

from ecgbatch.db import chunks, jobs
from ecgbatch.db.engine import Database
from ecgbatch.db.terms import JobOptions
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.evaluation import metrics, snomed
from ecgbatch.models.evaluation.comparison import compare
from ecgbatch.models.evaluation.figures import METRICS, evaluate, rows_of
from ecgbatch.models.evaluation.labels import LabelledRecord, read_labels
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError


def test_every_figure_and_interval_is_that_of_a_plain_bootstrap() -> None:
    records, probabilities = some_records(40)
    evaluation = evaluate(records, probabilities, THRESHOLDS)
    labels, thresholds = columns(records), np.array(list(THRESHOLDS.values()))
    draws = np.random.default_rng(0).integers(40, size=(1000, 40))

    def plain(chosen: NDArray[np.int64]) -> dict[str, list[float]]:
        """A list a metric: five superclasses, macro, micro."""
        y, p = labels[chosen], probabilities[chosen]
        parts = [*zip(y.T, p.T, (p >= thresholds).T, strict=True), (y.ravel(), p.ravel(), (p >= thresholds).ravel())]
        found: dict[str, list[float]] = {}
        for metric, of in {
            "auc": lambda y, p, _: metrics.roc_auc(y, p),
            "average_precision": lambda y, p, _: metrics.average_precision(y, p),
            "f1": lambda y, _, f: metrics.confusion(y, f).f1,
            "precision": lambda y, _, f: metrics.confusion(y, f).precision,
            "recall": lambda y, _, f: metrics.confusion(y, f).recall,
            "calibration_error": lambda y, p, _: metrics.expected_calibration_error(y, p),
        }.items():
            *superclasses, micro = (float(of(*part)) for part in parts)
            found[metric] = [*superclasses, float(np.mean(superclasses)), micro]
        return found

    expected = plain(np.arange(40))
    drawn = [plain(draw) for draw in draws]
    for metric in METRICS:
        for at, row in enumerate(rows_of(LABELS)):
            values = np.array([each[metric][at] for each in drawn])
            if metric == "calibration_error":
                values = np.maximum(values - (values.mean() - expected[metric][at]), 0)
            low, high = np.nanpercentile(values, [2.5, 97.5])
            assert evaluation.figures[row][metric] == pytest.approx((expected[metric][at], low, high), abs=6e-5)
    exact = ((probabilities >= thresholds) == labels).all(axis=1)
    low, high = np.percentile(exact[draws].mean(axis=1), [2.5, 97.5])
    assert evaluation.exact_match == pytest.approx((exact.mean(), low, high), abs=6e-5)
    assert evaluation.positives == dict(zip(LABELS, labels.sum(axis=0), strict=True))


def test_who_knows_the_labels_makes_no_mistake() -> None:
    records, _ = some_records(50)
    evaluation = evaluate(records, columns(records).astype(np.float32), THRESHOLDS)
    assert evaluation.exact_match == (1, 1, 1)
    for figures in evaluation.figures.values():
        assert [figures[metric].value for metric in METRICS] == [1, 1, 1, 1, 1, 0]


def test_a_probability_at_the_threshold_counts_as_found() -> None:
    records, _ = some_records(30)
    at_threshold = np.where(columns(records) == 1, list(THRESHOLDS.values()), 0)
    assert evaluate(records, at_threshold, THRESHOLDS).exact_match.value == 1


def test_groups_are_evaluated_by_themselves() -> None:
    ages = [None, 0, 39.9, 40, 59, 60, 79.5, 80, 89, 300, float("nan")]
    records, probabilities = some_records(220)
    records = [record._replace(age=ages[n % 11], sex=(0.0, 1.0, None)[n % 3]) for n, record in enumerate(records)]
    groups = evaluate(records, probabilities, THRESHOLDS).groups
    assert [(group.by, group.name, group.records) for group in groups] == [
        ("age", "<40", 40),
        ("age", "40-59", 40),
        ("age", "60-79", 40),
        ("age", ">=80", 60),
        ("age", "unknown", 40),
        ("sex", "male", 74),
        ("sex", "female", 73),
        ("sex", "unknown", 73),
    ]
    chosen = [n for n, record in enumerate(records) if record.sex == 1]
    alone = evaluate([records[n] for n in chosen], probabilities[chosen], THRESHOLDS)
    assert groups[6].figures == alone.figures["macro"]


def test_a_superclass_that_no_record_has_leaves_gaps_and_no_zeros() -> None:
    records, probabilities = some_records(30)
    records = [record._replace(labels=(*record.labels[:4], 0)) for record in records]
    evaluation = evaluate(records, probabilities, THRESHOLDS)
    for row in ("hyp", "macro"):
        assert evaluation.figures[row]["auc"] == (None, None, None)
    assert evaluation.figures["norm"]["auc"].value is not None
    assert str(evaluation.figures["hyp"]["auc"]) == ""
    json.dumps(evaluation.as_dict(), allow_nan=False)


# ------------------------------------------------------------------------------------------ the command


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, and PostgreSQL for the tests that ask for it: what is read from either is the same."""
    if getattr(request, "param", "sqlite") == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        return url
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def evaluated(database: Database, database_url: str, tmp_path: Path) -> Command:
    """The command with three jobs on one archive, r0, r1, …: 1 is by `mine:1`, 2 by `other:1`, which says the
    contrary, 3 is the first 20 again, whose predictions are job 1's. r1 and r11 fail.

    The labels beside it are those of `some_records(62)`, r60 and r61 are not in the archive. Fold 2 is r1, r11, r21, …
    """
    command = Command(tmp_path, ECGBATCH_DATABASE_URL=database_url)
    small = NetworkConfig("stacked", 64, 4, 1)
    weights = golden.golden_weights(small)
    registry = Registry(tmp_path / "models")
    model = registry.add("mine", "1", small, weights, Normalization(), thresholds=THRESHOLDS)
    other = registry.add("other", "1", small, weights, Normalization(0.1, 0.2))
    _, probabilities = some_records(62)
    failed = frozenset({"r1", "r11"})
    score(database, model, 60, probabilities, failed)
    score(database, other, 60, 1 - probabilities)
    score(database, model, 20, probabilities, failed)
    write_labels(tmp_path)
    return command


def enqueue(database: Database, model: Model, count: int) -> None:
    """A job of records r0, r1, …"""

    def write(connection: sa.Connection) -> None:
        archive_id = jobs.register_archive(connection, "archive", "/archive")
        model_id = jobs.register_model(connection, model.name, model.version, model.fingerprint, model.description)
        job_id, _ = jobs.open_job(connection, archive_id, model_id, JobOptions())
        jobs.add_records(connection, job_id, [Record(f"r{n}", 50.0, 1) for n in range(count)], 8)
        jobs.all_enqueued(connection, job_id)

    database.write(write)


def score(
    database: Database,
    model: Model,
    count: int,
    probabilities: NDArray[np.float64],
    failing: frozenset[str] = frozenset(),
) -> None:
    """Such a job, ended, with these probabilities."""
    enqueue(database, model, count)
    for chunk in take(database):
        mine = claim(database, chunk)
        assert mine is not None
        outcomes = [
            failure(record)
            if record.path in failing
            else replace(prediction(record), probabilities=tuple(probabilities[int(record.path[1:])].tolist()))
            for record in mine.records
        ]
        database.write(chunks.store, mine, outcomes, LEASE)


def write_labels(folder: Path) -> None:
    codes = ("NORM", "IMI", "NST_", "CLBBB", "LVH")
    lines = ["ecg_id,age,sex,scp_codes,strat_fold,filename_lr"]
    for n, record in enumerate(some_records(62)[0]):
        mine = {"SR": 0.0} | {code: 50.0 for code, label in zip(codes, record.labels, strict=True) if label}
        lines.append(f'{n},{record.age},{record.sex},"{mine}",{record.fold},{record.path}')
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n")
    (folder / "scp_statements.csv").write_text(STATEMENTS)


def expected(fold: int | None, scored: int) -> tuple[list[LabelledRecord], NDArray[np.float64], int]:
    """Records, probabilities, and how many have none."""
    records, probabilities = some_records(62)
    labelled = [n for n, record in enumerate(records) if any(record.labels) and fold in (None, record.fold)]
    found = [n for n in labelled if n < scored and n not in (1, 11)]
    return [records[n] for n in found], probabilities[found], len(labelled) - len(found)


def output(command: Command, *arguments: str | Path) -> str:
    return command("model", "evaluate", *arguments, "--labels", "ptbxl_database.csv").stdout


@pytest.mark.parametrize(
    ("database_url", "job", "fold", "scored"),
    [("sqlite", "1", 2, 60), ("postgresql", "1", None, 60), ("sqlite", "3", None, 20)],
    indirect=["database_url"],
)
def test_a_job_s_predictions_are_compared_with_the_labels(
    evaluated: Command, job: str, fold: int | None, scored: int
) -> None:
    records, probabilities, missing = expected(fold, scored)
    assert missing > 0
    found = json.loads(output(evaluated, job, *(() if fold is None else ("--fold", str(fold))), "--json"))
    evaluation = json.loads(json.dumps(evaluate(records, probabilities, THRESHOLDS).as_dict()))
    assert {key: found[key] for key in evaluation} == evaluation
    assert (found["model"], found["fold"], found["without_prediction"]) == ("mine:1", fold, missing)


def test_the_table_says_the_same_each_time(evaluated: Command) -> None:
    records, probabilities, missing = expected(None, 60)
    evaluation = evaluate(records, probabilities, THRESHOLDS)
    table = output(evaluated, "1")
    assert table == output(evaluated, "1")
    assert re.search(rf"without prediction +{missing}\n", table)
    assert f"exact match         {evaluation.exact_match}\n" in table
    for row, figures in evaluation.figures.items():
        [line] = [line for line in table.splitlines() if re.match(rf"{row} ", line)]
        for metric in METRICS:
            assert f"{figures[metric].value:.4f}" in line
        assert f"({figures['auc'].low:.4f}-{figures['auc'].high:.4f})" in line
    for group in evaluation.groups:
        pattern = rf"{group.by} +{re.escape(group.name)} +{group.records} .*{group.figures['f1'].value:.4f}"
        assert re.search(pattern, table), pattern
    assert "never for diagnosis" in evaluated("model", "evaluate", "1", "--labels", "ptbxl_database.csv").stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_records_without_a_superclass_count_where_they_are_to(evaluated: Command) -> None:
    records, probabilities = some_records(62)
    all_of_them = [n for n in range(60) if n not in (1, 11)]
    found = json.loads(output(evaluated, "1", "--all-records", "--json"))
    alone = evaluate([records[n] for n in all_of_them], probabilities[all_of_them], THRESHOLDS)
    assert found["figures"] == json.loads(json.dumps(alone.as_dict()))["figures"]
    assert found["records"] == 58 > len(expected(None, 60)[0])


def test_a_job_that_goes_on_is_evaluated_as_far_as_it_is(evaluated: Command, database: Database) -> None:
    enqueue(database, Registry(evaluated.folder / "models").find("mine:1"), 61)
    done = evaluated("model", "evaluate", "4", "--labels", "ptbxl_database.csv", "--json")
    assert "job 4 is not finished: 3 of 61 records remain" in done.stderr
    assert json.loads(done.stdout)["without_prediction"] == expected(None, 60)[2]


def test_what_cannot_be_evaluated_is_said_in_one_line(evaluated: Command) -> None:
    def error(job: str, *more: str, labels: str = "ptbxl_database.csv") -> str:
        done = evaluated("model", "evaluate", job, "--labels", labels, *more, status=1)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        return done.stderr

    assert "no job 9" in error("9")
    assert "there is no file none.csv" in error("1", labels="none.csv")
    assert "no record of fold 11 with labels" in error("1", "--fold", "11")
    labels = evaluated.folder / "ptbxl_database.csv"
    labels.with_name("elsewhere.csv").write_text(labels.read_text().replace(",r", ",records100/r"))
    assert "predictions for none of the" in error("1", labels="elsewhere.csv")
    assert "cannot write nowhere/page.html" in error("1", "--page", "nowhere/page.html")
    (evaluated.folder / "startup").mkdir()
    (evaluated.folder / "startup/sitecustomize.py").write_text('import sys; sys.modules["matplotlib"] = None')
    evaluated.environment["PYTHONPATH"] = str(evaluated.folder / "startup")
    assert "pip install 'ecgbatch[evaluation]'" in error("1", "--page", "page.html")
    for path in (evaluated.folder / "models").iterdir():
        path.unlink()
    assert "ecgbatch model add" in error("1")


def test_the_command_writes_a_page(evaluated: Command) -> None:
    output(evaluated, "1", "--fold", "2", "--page", "page.html")
    assert "<h1>mine:1 on fold 2 of ptbxl_database.csv</h1>" in (evaluated.folder / "page.html").read_text()


# ------------------------------------------------------------------------------------------ labels of one's own


def write_own_labels(folder: Path, superclasses: tuple[str, ...] = ("mi", "hyp")) -> None:
    """The labels of some_records(62) under names of one's own, of these superclasses, r0 to r39."""
    lines = [",".join(["File", *(f"is_{name}" for name in superclasses), "age"])]
    for record in some_records(62)[0][:40]:
        labels = [str(record.labels[LABELS.index(name)]) for name in superclasses]
        lines.append(",".join([f"./{record.path}.hea", *labels, str(record.age)]))
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")


def test_a_job_is_compared_with_labels_of_ones_own(evaluated: Command) -> None:
    write_own_labels(evaluated.folder)
    columns_named = ("--columns", "path=file,mi=is_mi,hyp=is_hyp")
    done = evaluated("model", "evaluate", "1", "--labels", "mine.csv", *columns_named, "--json")
    found = json.loads(done.stdout)
    records, probabilities = some_records(62)
    chosen = [n for n in range(40) if n not in (1, 11)]
    mine = [records[n]._replace(sex=None, labels=(records[n].labels[1], records[n].labels[4])) for n in chosen]
    alone = evaluate(mine, probabilities[chosen][:, [1, 4]], THRESHOLDS, ("mi", "hyp"))
    expected = json.loads(json.dumps(alone.as_dict()))
    assert {key: found[key] for key in expected} == expected
    assert set(found["figures"]) == {"mi", "hyp", "macro", "micro"}
    assert found["without_prediction"] == 2
    assert found["labels_sha256"] == hashlib.sha256((evaluated.folder / "mine.csv").read_bytes()).hexdigest()


def test_labels_in_the_headers_of_an_archive(evaluated: Command) -> None:
    codes = {"mi": "164865005", "sttc": "428750005", "cd": "59118001", "hyp": "164873001"}
    records, probabilities = some_records(62)
    said = [
        [codes[name] for name, label in zip(LABELS, record.labels, strict=True) if label and name in codes]
        for record in records
    ]
    archive = evaluated.folder / "headers"
    archive.mkdir()
    for record, told in zip(records, said, strict=True):
        comments = f"#Age: {record.age}\n#Sex: {'FM'[record.sex == 0]}\n#Dx: {','.join(told or ['426783006'])}\n"
        (archive / f"{record.path}.hea").write_text(f"{record.path} 0 500 5000\n{comments}")
    (archive / "r2.hea").write_text("r2 0 500 5000\n#Dx: 164865005,164931005\n")
    (archive / "r3.hea").write_text("r3 0 500 5000\n#Dx: 164889003\n")

    def found(*options: str) -> tuple[dict[str, Any], list[int]]:
        done = evaluated("model", "evaluate", "1", "--labels", "headers", *options, "--json")
        evaluation = json.loads(done.stdout)
        return evaluation, [evaluation["left_out"], evaluation["without_prediction"]]

    chosen = sorted((n for n in range(60) if n not in (1, 2, 3, 11)), key=str)
    labelled = [records[n]._replace(labels=(int(not said[n]), *records[n].labels[1:])) for n in chosen]
    alone = json.loads(json.dumps(evaluate(labelled, probabilities[chosen], THRESHOLDS).as_dict()))
    evaluation, counts = found()
    assert {key: evaluation[key] for key in alone} == alone
    assert counts == [2, 4]
    evaluation, counts = found("--all-records")
    assert (evaluation["records"], counts) == (57, [1, 4])
    assert (
        "--columns" in evaluated("model", "evaluate", "1", "--labels", "headers", "--columns", "mi=a", status=1).stderr
    )


@pytest.mark.parametrize(
    ("codes", "labels"),
    [
        (["426783006"], (1, 0, 0, 0, 0)),
        (["426177001", "284470004"], (1, 0, 0, 0, 0)),
        (["426783006", "164889003"], (0, 0, 0, 0, 0)),
        (["426783006", "59118001", "164873001"], (0, 0, 0, 1, 1)),
        (["426783006", "164917005"], None),
        (["426783006", "123456789"], None),
        ([], None),
    ],
)
def test_what_codes_say(codes: list[str], labels: tuple[int, ...] | None) -> None:
    assert snomed.labels_of(codes) == labels


def test_an_archive_without_codes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 0 500 5000\n#Age: 50\n")
    with pytest.raises(EcgbatchError, match="no header in"):
        read_labels(tmp_path, {})


@pytest.mark.parametrize(
    ("content", "columns", "said"),
    [
        ("path,mi\nr0,1\n", {"nml": "mi"}, "not 'nml'"),
        ("path,mi\nr0,1\n", {"norm": "normal"}, "no column 'normal'"),
        ("path,foo\nr0,1\n", {}, "tells none of"),
        ("file,mi\nr0,1\n", {}, "no column 'path'"),
        ("path,mi\nr0,2\n", {}, "line 2: mi is neither 0 nor 1"),
        ("path,mi\nr0\n", {}, "neither 0 nor 1"),
        ("path,mi\nr0,1\nr0,0\n", {}, "line 3"),
        ("path,mi,fold\nr0,1,inf\n", {}, "line 2: its fold"),
        ("path,mi,fold\nr0,1,1e400\n", {}, "line 2: its fold"),
        ("path,mi\n", {}, "no record with labels"),
        ("", {}, "no column 'path'"),
        ("path,mi\n" + "x" * 2**21, {}, "line 2"),
        ('path,mi\n"' + "x" * 200_000 + '",1\n', {}, "cannot read"),
    ],
    ids=range(13),
)
def test_labels_that_make_no_sense_are_one_line(
    tmp_path: Path, content: str, columns: dict[str, str], said: str
) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(EcgbatchError) as error:
        read_labels(tmp_path / "labels.csv", columns)
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


# ------------------------------------------------------------------------------------------ two jobs


def test_differences_are_those_of_a_plain_paired_bootstrap() -> None:
    records, first = some_records(60)
    second = np.clip(first + 0.2 * np.random.default_rng(1).standard_normal(first.shape), 0, 1)
    found = compare(records, LABELS, (first, second), (THRESHOLDS, THRESHOLDS))
    labels, draws = columns(records)[:, 1], np.random.default_rng(0).integers(60, size=(1000, 60))
    drawn = [
        float(metrics.roc_auc(labels[draw], second[draw, 1]) - metrics.roc_auc(labels[draw], first[draw, 1]))
        for draw in (np.arange(60), *draws)
    ]
    low, high = np.nanpercentile(drawn[1:], [2.5, 97.5])
    assert found.differences["mi"]["auc"] == pytest.approx((drawn[0], low, high), abs=6e-5)
    thresholds = np.array(list(THRESHOLDS.values()))
    changed = np.argwhere((first >= thresholds) != (second >= thresholds))
    assert [(change.path, change.superclass) for change in found.changes] == [
        (records[at].path, LABELS[column]) for at, column in changed
    ]
    right = sum(((second >= thresholds) == columns(records))[tuple(each)] for each in changed)
    assert sum(now_right for now_right, _ in found.counts().values()) == right


def test_a_model_does_not_differ_from_itself() -> None:
    records, probabilities = some_records(30)
    same = compare(records, LABELS, (probabilities, probabilities), (THRESHOLDS, THRESHOLDS))
    assert not same.changes
    assert all(figures[metric] == (0, 0, 0) for figures in same.differences.values() for metric in METRICS)


def test_two_jobs_are_compared(evaluated: Command) -> None:
    line = ("model", "compare", "1", "2", "--labels", "ptbxl_database.csv")
    found = json.loads(evaluated(*line, "--json").stdout)
    records, probabilities, _ = expected(None, 60)
    thresholds = (THRESHOLDS, dict.fromkeys(LABELS, 0.5))
    plain = compare(records, LABELS, (probabilities, 1 - probabilities), thresholds)
    assert (found["records"], found["first"], found["second"]) == (len(records), "job 1, mine:1", "job 2, other:1")
    for row, figures in plain.differences.items():
        assert found["differences"][row]["auc"]["value"] == pytest.approx(figures["auc"].value, abs=1e-4)
    assert len(found["changes"]) == len(plain.changes)
    table = evaluated(*line).stdout
    right, wrong = plain.counts()["mi"]
    assert re.search(rf"^mi .* {right} +{wrong}$", table, re.MULTILINE)
    nothing = evaluated("model", "compare", "1", "3", "--labels", "ptbxl_database.csv", "--fold", "11", status=1)
    assert "no record of fold 11" in nothing.stderr
