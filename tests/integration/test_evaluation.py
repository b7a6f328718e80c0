"""Evaluation: figures with their intervals, the command on each kind of database, and the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import golden
import numpy as np
import pytest
import sqlalchemy as sa
from commands import Command
from numpy.typing import NDArray
from ptbxl import STATEMENTS
from scoring import LEASE, claim, failure, prediction, take

from ecgbatch.db import chunks, jobs
from ecgbatch.db.engine import Database
from ecgbatch.db.schema import Priority
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.evaluation import metrics
from ecgbatch.models.evaluation.figures import METRICS, ROWS, evaluate
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.page import write_page
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.recording import Record

THRESHOLDS = {"norm": 0.55, "mi": 0.4, "sttc": 0.5, "cd": 0.35, "hyp": 0.6}
ABOUT = {"job": 1, "model": "a:1", "fingerprint": "f00", "labels": "a<b>.csv", "fold": 9, "without_prediction": 2}


def some_records(count: int, seed: int = 0) -> tuple[list[LabelledRecord], NDArray[np.float64]]:
    """Records, and probabilities that know something about their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, 5)) < 0.35
    probabilities = np.clip(0.35 * labels + 0.65 * rng.random((count, 5)), 0, 1)
    ages = rng.integers(18, 95, count)
    records = [
        LabelledRecord(f"r{n}", 1 + n % 10, float(ages[n]), float(n % 2), tuple(map(int, row)), ())
        for n, row in enumerate(labels)
    ]
    return records, probabilities


def columns(records: list[LabelledRecord]) -> NDArray[np.int64]:
    return np.array([record.labels for record in records])


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
        for at, row in enumerate(ROWS):
            low, high = np.nanpercentile([each[metric][at] for each in drawn], [2.5, 97.5])
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
        job_id, _ = jobs.open_job(connection, archive_id, model_id, Priority.NORMAL)
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


@pytest.mark.parametrize(("job", "fold", "scored"), [("1", 2, 60), ("1", None, 60), ("3", None, 20)])
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
    assert "no record of fold 11 with a superclass" in error("1", "--fold", "11")
    labels = evaluated.folder / "ptbxl_database.csv"
    labels.with_name("elsewhere.csv").write_text(labels.read_text().replace(",r", ",records100/r"))
    assert "predictions for none of the" in error("1", labels="elsewhere.csv")
    assert "cannot write nowhere/page.html" in error("1", "--page", "nowhere/page.html")
    (evaluated.folder / "matplotlib.py").write_text("raise ModuleNotFoundError('matplotlib')")
    assert "pip install 'ecgbatch[evaluation]'" in error("1", "--page", "page.html")
    for path in (evaluated.folder / "models").iterdir():
        path.unlink()
    assert "ecgbatch model add" in error("1")


def test_the_command_writes_a_page(evaluated: Command) -> None:
    output(evaluated, "1", "--fold", "2", "--page", "page.html")
    assert "<h1>mine:1 on fold 2 of ptbxl_database.csv</h1>" in (evaluated.folder / "page.html").read_text()


# ------------------------------------------------------------------------------------------ the page


def page(path: Path, records: list[LabelledRecord], probabilities: NDArray[np.float64], **about: Any) -> str:
    write_page(path, ABOUT | about, evaluate(records, probabilities, THRESHOLDS), records, probabilities)
    return path.read_text()


def test_the_page_needs_nothing_else_and_is_the_same_each_time(tmp_path: Path) -> None:
    content = page(tmp_path / "a.html", *some_records(80))
    assert content == page(tmp_path / "b.html", *some_records(80))
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|<script|@import""", content)
    assert "research use only, never for diagnosis" in content
    assert "<h1>a:1 on fold 9 of a&lt;b&gt;.csv</h1>" in content
    assert "<h1>a:1 on a&lt;b&gt;.csv</h1>" in page(tmp_path / "c.html", *some_records(80), fold=None)


def test_the_page_shows_the_figures(tmp_path: Path) -> None:
    records, probabilities = some_records(80)
    content = page(tmp_path / "a.html", records, probabilities)
    evaluation = evaluate(records, probabilities, THRESHOLDS)
    for figures in (*evaluation.figures.values(), *(group.figures for group in evaluation.groups)):
        for estimate in figures.values():
            assert f"<td>{estimate.value:.4f}<span>{estimate.low:.4f}–{estimate.high:.4f}</span></td>" in content
    roc, precision, calibration, confusion, together = texts(content)
    for label, superclass, p in zip(LABELS, columns(records).T, probabilities.T, strict=True):
        figures, name = evaluation.figures[label], label.upper()
        assert f"{name}, AUC {figures['auc'].value:.4f}" in roc
        assert f"{name}, AP {figures['average_precision'].value:.4f}" in precision
        assert f"{name}, error {figures['calibration_error'].value:.4f}" in calibration
        assert name in confusion
        found = superclass[p >= THRESHOLDS[label]]
        assert {f"{found.sum()}", f"{(found == 0).sum()}", f"{superclass.sum() - found.sum()}"} <= set(confusion)
        assert str(evaluation.positives[label]) in together


def test_the_page_of_one_record_has_gaps(tmp_path: Path) -> None:
    records, probabilities = some_records(2)
    content = page(tmp_path / "a.html", records[:1], probabilities[:1])
    assert len(texts(content)) == 5
    assert "nan" not in re.sub(r"<(style|svg).*?</\1>", "", content, flags=re.DOTALL).lower()


def texts(content: str) -> list[list[str]]:
    """What is written in each picture."""
    pictures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", content, re.DOTALL)]
    return [["".join(each.itertext()).strip() for each in svg.iter() if each.tag.endswith("text")] for svg in pictures]
