"""`model measure`: each shipped model's macro AUC on fewer leads and shorter records is held by a floor."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from ptbxl import STATEMENTS
from wfdb_files import samples, write

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.fewer import LENGTHS
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.leads import LEAD_SETS, LEADS
from ecgbatch.settings import EcgbatchError

RECORDS = 150
FLOORS = {
    "xlstm-ecg:1.3.0": {
        "all": 0.95, "limb+V2": 0.87, "limb": 0.86, "precordial": 0.89, "II": 0.66, "I": 0.60,
        "9": 0.95, "7.3": 0.95, "5": 0.95, "4": 0.95, "2.5": 0.94,
    },
    "xlstm-ecg-leads:1.0.0": {
        "all": 0.93, "limb+V2": 0.91, "limb": 0.89, "precordial": 0.89, "II": 0.84, "I": 0.83,
        "9": 0.93, "7.3": 0.93, "5": 0.93, "4": 0.93, "2.5": 0.91,
    },
}  # fmt: skip
"""Macro AUC of the first records of fold 9 with a superclass, by lead set and by seconds."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An archive laid out as PTB-XL, of which two records in three of fold 9 have a superclass."""
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "scp_statements.csv").write_text(STATEMENTS)
    codes = [*(f"{{'{code}': 100.0}}" for code in ("NORM", "IMI", "NST_", "CLBBB", "LVH")), "{'SR': 0.0}"]
    rows = []
    for number in range(12):
        write(archive, samples(number) // 64, name=f"r{number}")
        rows.append([number, 60, 0, codes[number % 6], 9, f"r{number}"])
    with (archive / "ptbxl_database.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ecg_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr"], *rows])
    return archive


def test_a_model_is_declared_for_what_it_was_measured_on(command: Command, small: Path) -> None:
    models = Path(command.environment["ECGBATCH_MODEL_DIR"])
    shipped = Registry(models).find("xlstm-ecg:1.1.0")
    changed = {key: value + 0.001 for key, value in shipped.weights().items()}
    mine = Registry(models).add("mine", "1", shipped.config, changed, shipped.normalization)
    line = ("model", "measure", str(small), "--model", "mine", "--json")
    measured = json.loads(command(*line).stdout)
    assert measured["records"] == 10
    assert [(each["lead_set"], each["seconds"]) for each in measured["macro_auc"]] == [
        (None, 10),
        *((name, 10) for name in LEAD_SETS),
        *((None, seconds) for seconds in LENGTHS),
    ]
    assert "lead_sets" not in Registry(models).find("mine").description, "measuring changes nothing"
    assert "mine:1 is declared for limb" in command(*line, "--declare", "limb").stderr
    declared = Registry(models).find("mine")
    aucs = {each["lead_set"]: each["value"] for each in measured["macro_auc"] if each["seconds"] == 10}
    assert declared.lead_sets == {"limb": aucs["limb"]}
    assert declared.description["lengths"]["10"] == aucs[None]
    assert declared.uncertain == dict.fromkeys(LABELS, (0.0, 1.0)), "two records rule out nothing"
    assert declared.fingerprint == mine.fingerprint
    assert "there is no lead set 'V9'" in command(*line, "--declare", "V9", status=2).stderr
    command("run", small, "--model", "mine")
    table = command("model", "evaluate", "1", "--labels", small / "ptbxl_database.csv").stdout
    assert "uncertain of any: 10 of 10 records" in table


def test_a_record_that_is_too_short_is_named(small: Path) -> None:
    from ecgbatch.models.evaluation import fewer
    from ecgbatch.models.evaluation.ptbxl import labelled_records
    from ecgbatch.models.scorer import Scorer

    write(small, samples(count=900) // 64, name="r3")
    scorer = Scorer(Registry(SHIPPED).find("xlstm-ecg:1.1.0"))
    with pytest.raises(EcgbatchError, match="r3 is shorter than ten seconds"):
        fewer.measure(scorer, small, labelled_records(small / "ptbxl_database.csv"))


def test_what_is_left_is_cut_and_silenced() -> None:
    from ecgbatch.models.evaluation.fewer import Less

    signals = np.random.default_rng(0).normal(size=(2, 1000, 12))
    left = Less("limb", 2.5).of(signals)
    assert left.shape == (2, 250, 12)
    np.testing.assert_array_equal(left[..., :6], signals[:, :250, :6])
    assert not left[..., 6:].any()
    np.testing.assert_array_equal(Less().of(signals), signals)
    assert LEADS[:6] == LEAD_SETS["limb"]


@pytest.mark.parametrize("name", FLOORS)
def test_figures_do_not_fall(command: Command, ptbxl_fold9: Path, name: str) -> None:
    part = command.folder / "part"
    part.mkdir()
    os.symlink(ptbxl_fold9 / "records100", part / "records100")
    os.symlink(ptbxl_fold9 / "scp_statements.csv", part / "scp_statements.csv")
    with (ptbxl_fold9 / "ptbxl_database.csv").open(newline="") as whole:
        rows = list(csv.reader(whole))
    fold = rows[0].index("strat_fold")
    chosen = [rows[0], *[row for row in rows[1:] if row[fold] == "9"][:RECORDS]]
    with (part / "ptbxl_database.csv").open("w", newline="") as file:
        csv.writer(file).writerows(chosen)
    command.environment["ECGBATCH_FOLLOW_LINKS"] = "true"
    measured = json.loads(command("model", "measure", part, "--model", name, "--json").stdout)["macro_auc"]
    found = {
        (each["lead_set"] or "all") if each["seconds"] == 10 else f"{each['seconds']:g}": each["value"]
        for each in measured
    }
    assert found.keys() == FLOORS[name].keys()
    assert {key: value for key, value in found.items() if value < FLOORS[name][key]} == {}
