"""Fine-tuning: labels of one's own teach a model that ships, which `run` then uses by its new name."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from commands import Command
from wfdb_files import write

from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.evaluation.labels import LabelledRecord, read_labels
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.training import tuning
from ecgbatch.models.training.loop import Training
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError

SMALL = NetworkConfig("hierarchical", embedding_dim=64, heads=4, blocks=1, patch=10)
KINDS, RECORDS = 5, 60


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An archive of records, whose wave tells the superclass; two are of a patient; labels.csv beside them."""
    archive = tmp_path / "archive"
    archive.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(RECORDS):
        kind = number % KINDS
        wave = 300 * (1 + kind) * np.sin(np.arange(1000) / (3 + 2 * kind))
        write(archive, np.round(wave[:, None] + 30 * rng.standard_normal((1000, 12))).astype(int), name=f"r{number}")
        rows.append([f"r{number}.hea", f"p{number // 2}", 50, number % 2, *(int(kind == at) for at in range(KINDS))])
    with (archive / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "who", "age", "sex", *(f"has_{label}" for label in LABELS)], *rows])
    return archive


COLUMNS = ",".join(("path=file", "patient=who", *(f"{label}=has_{label}" for label in LABELS)))


@pytest.fixture
def base(command: Command) -> Model:
    models = Registry(Path(command.environment["ECGBATCH_MODEL_DIR"]))
    return models.add("base", "1", SMALL, golden.golden_weights(SMALL), Normalization())


def changed(model: Model, base: Model) -> set[str]:
    """What differs, by the first part of its name."""
    before = base.weights()
    return {key.split(".")[0] for key, value in model.weights().items() if not np.array_equal(value, before[key])}


def test_labels_of_ones_own_make_a_model_that_run_uses(command: Command, mine: Path, base: Model) -> None:
    command.environment["OMP_NUM_THREADS"] = "1"
    line = ("model", "tune", str(mine), "--labels", str(mine / "labels.csv"), "--columns", COLUMNS, "--frozen")
    how = ("--from", "base", "--epochs", "2", "--folder", "tuning", "--name", "tuned", "--version", "1")
    assert "by base:1" in command(*line, *how, here=True).stdout.splitlines()[-1]
    tuned = Registry(base.folder).find("tuned")
    assert tuned.description["tuned"] == {
        "from": base.fingerprint,
        "labels_sha256": hashlib.sha256((mine / "labels.csv").read_bytes()).hexdigest(),
        "records": RECORDS,
    }
    assert changed(tuned, base) == {"classifier"}
    command("run", mine, "--model", "tuned")
    assert command.rows("SELECT model, COUNT(*) AS n FROM results GROUP BY model") == [{"model": "tuned", "n": RECORDS}]


def test_the_features_learn_too_unless_they_are_frozen(mine: Path, base: Model, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    labels = read_labels(mine / "labels.csv", dict(pair.split("=") for pair in COLUMNS.split(",")))
    examples = tuning.examples_of(mine, labels, LABELS, tmp_path, "cpu", lambda said: None)
    run = Training(tuning.settings_of(base, LABELS, False, 6), tmp_path, examples, start=base.weights())
    run.run(lambda said: None)
    losses = [float(row[1]) for row in run.epochs]
    assert losses[-1] < losses[0]
    tuned = run.keep(Registry(base.folder), "whole", "1")
    assert len(changed(tuned, base)) > 3
    assert 0 <= tuning.macro_auc(tuned, examples) <= 1


def test_a_patient_trains_or_validates_and_never_both() -> None:
    records = [LabelledRecord(f"r{n}", None, None, None, (), patient=f"p{n // 7}") for n in range(7 * 300)]
    folds: dict[str, set[int]] = {}
    for record in records:
        folds.setdefault(record.patient, set()).add(tuning.fold_of(record))
    assert all(len(of_patient) == 1 for of_patient in folds.values())
    counts = Counter(min(of_patient) for of_patient in folds.values())
    assert 30 < counts[9] < 90
    assert tuning.fold_of(records[0]._replace(patient="")) == tuning.fold_of(records[1]._replace(path="r0", patient=""))
    of_ptbxl = records[0]._replace(fold=10, statements=(0, 1))
    assert tuning.fold_of(of_ptbxl) == 10


def test_labels_that_cannot_teach_are_one_line(mine: Path, tmp_path: Path) -> None:
    columns = {"path": "file", "norm": "has_norm"}
    with pytest.raises(EcgbatchError, match="the labels do not tell mi, sttc, cd, hyp"):
        tuning.examples_of(mine, read_labels(mine / "labels.csv", columns), LABELS, tmp_path, "cpu", print)
    same = {"path": "file", **dict.fromkeys(LABELS, "has_mi")}
    labels = read_labels(mine / "labels.csv", same)
    few = [record for record in labels.records if record.labels[0] == 0]
    with pytest.raises(EcgbatchError, match="records that train some must have each class, and some not"):
        tuning.examples_of(mine, type(labels)(labels.classes, few, ""), LABELS, tmp_path, "cpu", print)
    other = Registry(tmp_path).add("other", "1", SMALL, golden.golden_weights(SMALL), Normalization(0.1, 0.3))
    with pytest.raises(EcgbatchError, match="only the usual ones are tuned"):
        tuning.settings_of(other, LABELS, True, 1)
