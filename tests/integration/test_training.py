"""Training: labels, batches, and a command that is killed, goes on, and ends in a model that scores."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from commands import Command, running, wait_until
from places import KILLED_TRAINING, REPOSITORY
from ptbxl import STATEMENTS
from torch.nn import functional as F

from ecgbatch.models import preprocessing
from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.metrics import roc_auc
from ecgbatch.models.evaluation.ptbxl import labelled_records
from ecgbatch.models.network import ParallelXLSTM
from ecgbatch.models.training.examples import prepare
from ecgbatch.models.training.loop import WARM_UP, Training, answers, one_cycle
from ecgbatch.models.training.recipe import TrainingSettings, load_recipe
from ecgbatch.models.training.stacking import corrected
from ecgbatch.models.training.teachers import taught_by, train_teachers
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

RECIPE = {
    "network": {"variant": "hierarchical", "embedding_dim": 16, "heads": 1, "blocks": 1, "patch": 10},
    "epochs": 3,
    "batch_size": 16,
    "crop": 500,
    "statements": 1.0,
}
CODES = ["'NORM': 100.0", "'IMI': 35.0, 'SR': 0.0", "'NST_': 100.0, 'CLBBB': 0.0", "'LVH': 15.0", "'SR': 0.0"]
Say = Callable[[str], None]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small networks are trained no faster by several threads, and much slower where other work is done beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 200 records laid out as PTB-XL, a fifth of them without a superclass."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    lines = ["ecg_id,age,sex,scp_codes,strat_fold,filename_lr"]
    for number in range(200):
        wave = (1 + number % 5) * np.sin(np.arange(SAMPLES) / (3 + number % 5))
        samples = 0.3 * wave[:, None] + 0.1 * rng.standard_normal((SAMPLES, len(LEADS)))
        write_record(root, f"{number:05d}_lr", samples)
        age = "" if number == 7 else 40 + number % 50
        lines.append(f'{number},{age},{number % 2},"{{{CODES[number % 5]}}}",{number // 5 % 10 + 1},{number:05d}_lr')
    (root / "ptbxl_database.csv").write_text("\n".join(lines) + "\n")
    (root / "scp_statements.csv").write_text(STATEMENTS)
    return root


def write_record(root: Path, name: str, millivolts: np.ndarray) -> None:
    """A WFDB record at 100 Hz, its leads in capitals and from the last to the first."""
    digital = np.round(millivolts * 1000).astype("<i2")
    digital.tofile(root / f"{name}.dat")
    checksums = digital.sum(axis=0, dtype=np.int64).astype("<i2")
    signals = zip(reversed(LEADS), digital[0], checksums, strict=True)
    lines = [f"{name}.dat 16 1000/mV 16 0 {first} {total} 0 {lead.upper()}" for lead, first, total in signals]
    (root / f"{name}.hea").write_text("\n".join([f"{name} {len(LEADS)} 100 {len(digital)}", *lines]) + "\n")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE))
    return path


def quiet(text: str) -> None:
    assert text


def start(labelled: Path, folder: Path, **changes: object) -> Training:
    settings = TrainingSettings.from_dict(RECIPE | changes)
    return Training(settings, folder, prepare(labelled, folder, "cpu", quiet))


def test_labels_follow_the_benchmark(labelled: Path) -> None:
    records = labelled_records(labelled / "ptbxl_database.csv")
    assert len(records) == 160
    assert [r.labels for r in records[:4]] == [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)]
    assert records[4] == ("00005_lr", 2, 45.0, 1.0, (1, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), "")
    assert records[1].statements == (0, 1, 0, 0, 0, 1), "rhythm and form too, whatever the likelihood"
    assert records[6].age is None


def test_labels_of_ptbxl_are_as_many_as_published(ptbxl_fold9: Path) -> None:
    """2,156 of fold 9's 2,193 records have a superclass."""
    assert len(labelled_records(ptbxl_fold9 / "ptbxl_database.csv")) == 2156


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ptbxl_database.csv", None),
        ("scp_statements.csv", None),
        ("ptbxl_database.csv", "a,b\n1,2\n"),
        ("ptbxl_database.csv", "scp_codes,strat_fold,filename_lr,age,sex\n{,1,r,1,1\n"),
        ("ptbxl_database.csv", "scp_codes,strat_fold,filename_lr,age,sex\n{},one,r,1,1\n"),
    ],
)
def test_labels_that_cannot_be_read_are_one_line(
    labelled: Path, tmp_path: Path, name: str, content: str | None
) -> None:
    for file in ("ptbxl_database.csv", "scp_statements.csv"):
        shutil.copy(labelled / file, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(EcgbatchError) as error:
        labelled_records(tmp_path / "ptbxl_database.csv")
    assert "\n" not in str(error.value)


def test_folds_go_to_their_parts_and_leads_to_their_columns(labelled: Path, tmp_path: Path) -> None:
    examples = prepare(labelled, tmp_path, "cpu", quiet)
    counts = [
        len(examples.training(TrainingSettings(**how))) for how in ({}, {"hold_out": 3}, {"without_superclass": True})
    ]
    assert counts == [128, 112, 160]
    assert len(examples.validation) == 16
    assert len(examples.signals) == 180, "fold 10 is no one's"
    record = wfdb.rdrecord(str(labelled / "00000_lr"))
    assert record.sig_name[0] == "V6"
    expected = preprocessing.clean(record.p_signal[None, :, ::-1].copy(), preprocessing.Normalization())
    np.testing.assert_array_equal(examples.signals[0], expected[0])
    assert (examples.metadata[0].tolist(), examples.labels[0].tolist()) == ([40.0, 0.0], [1, 0, 0, 0, 0])
    assert examples.metadata[7, 0] == np.float32(preprocessing.MetadataFill().age)
    assert examples.labels[4].tolist() == [0, 0, 0, 0, 0]


def test_the_learning_rate_goes_up_and_down() -> None:
    rates = [one_cycle(progress) for progress in np.linspace(0, 1, 1001)]
    top = int(np.argmax(rates))
    assert top / 1000 == pytest.approx(WARM_UP, abs=0.002)
    assert rates[top] == pytest.approx(1, abs=1e-4)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[0] < 0.01
    assert rates[-1] == 0


def test_training_learns_and_keeps_the_best_epoch(labelled: Path, tmp_path: Path) -> None:
    run = start(labelled, tmp_path, epochs=12, learning_rate=0.01, average=0.9, dropout=0.0, noise=0.0, amplitude=0.0)
    run.run(quiet)
    rows = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert [row["epoch"] for row in rows] == [str(n) for n in range(1, len(rows) + 1)]
    assert all(len(cell) <= len("0.12345") for row in rows for name, cell in row.items() if "auc" in name)
    aucs = [float(row["macro_auc"]) for row in rows]
    assert run.best[1] == pytest.approx(max(aucs), abs=1e-5) and max(aucs) > 0.9
    assert run.best[0] == aucs.index(max(aucs)) + 1
    examples, chosen = run.examples, run.examples.validation
    run.average.load_state_dict(run.best[2])
    probabilities = answers(run.average, examples, chosen).numpy()
    auc = np.mean([roc_auc(examples.labels[chosen, i].numpy(), probabilities[:, i]) for i in range(len(LABELS))])
    assert auc == pytest.approx(run.best[1], abs=1e-6)


def test_statements_teach_the_features(labelled: Path, tmp_path: Path) -> None:
    """Without a weight their classifier stays what chance made it, and the features know nothing of it."""
    losses = {}
    for weight, epochs in ((0.0, 1), (1.0, 12)):
        how = {"statements": weight, "epochs": epochs, "patience": 12, "learning_rate": 0.01, "average": 0.9}
        run = start(labelled, tmp_path / str(weight), **how)
        run.run(quiet)
        said = answers(run.average, run.examples, run.records)[:, len(LABELS) :]
        losses[weight] = F.binary_cross_entropy(said, run.examples.statements[run.records]).item()
    assert losses[1.0] < 0.2 < 0.5 < losses[0.0]


def test_training_ends_early_when_it_no_longer_gains(labelled: Path, tmp_path: Path) -> None:
    run = start(labelled, tmp_path, epochs=50, patience=2, learning_rate=1e-9)
    run.run(quiet)
    rows = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert len(rows) == run.best[0] + 2 < 50


def test_teachers_teach_what_they_have_not_seen(command: Command, labelled: Path, recipe: Path) -> None:
    """The whole way: eight teachers, what they say, and a model that learned from it."""
    command.environment["OMP_NUM_THREADS"] = "1"
    values = RECIPE | {"epochs": 1, "learning_rate": 0.01}
    recipe.write_text(json.dumps(values | {"teachers": 0.7, "mixup": 0.3, "without_superclass": True}))
    folder, pupil = command.folder / "teachers", command.folder / "pupil"
    examples = prepare(labelled, pupil, "cpu", quiet)
    teachers = train_teachers(TrainingSettings.from_dict(values), folder, examples, quiet)
    assert [teacher.folder.name for teacher in teachers] == [f"without-{fold}" for fold in range(1, 9)]
    with pytest.raises(EcgbatchError, match="--teachers"):
        Training(load_recipe(str(recipe)), pupil, examples)

    line = ["model", "train", str(labelled), "--recipe", str(recipe), "--folder", "pupil"]
    done = command(*line, "--name", "mine", "--version", "1", "--teachers", "teachers", here=True)
    assert "the teachers together: macro AUC" in done.stderr
    assert Registry(command.folder / "models").find("mine:1").description["training"]["calibration"]["mi"]["scale"] > 0

    alone = {"frozen": True, "crop": SAMPLES, "amplitude": 0, "noise": 0, "lead_dropout": 0}
    network = RECIPE["network"] | {"extremes": 100}  # type: ignore[operator]
    recipe.write_text(json.dumps(RECIPE | alone | {"network": network, "start": "mine:1", "teachers": 0.6}))
    line = ["model", "train", str(labelled), "--recipe", str(recipe), "--folder", "classifier"]
    done = command(*line, "--name", "better", "--version", "1", "--teachers", "teachers", here=True)
    assert "the teachers together, corrected: macro AUC" in done.stderr
    command("run", labelled, "--model", "better")
    assert command.rows("SELECT model, COUNT(*) AS n FROM results GROUP BY model") == [{"model": "better", "n": 200}]

    taught = taught_by([command.folder / "gone"], examples, pupil, quiet)
    for teacher in teachers[::3]:
        fold = teacher.settings.hold_out
        assert set(examples.folds[teacher.records].tolist()) == set(range(1, 9)) - {fold}
        teacher.average.load_state_dict(teacher.best[2])
        chosen = examples.of_fold(fold)
        torch.testing.assert_close(taught[chosen], answers(teacher.average, examples, chosen))
    with pytest.raises(EcgbatchError, match="holds no training"):
        taught_by([command.folder / "gone"], examples, command.folder / "another", quiet)


def test_teachers_are_corrected_by_the_height_of_the_waves(labelled: Path, tmp_path: Path) -> None:
    """Where a record's label is its height, and the teachers know nothing, and no record is learned by heart."""
    examples = prepare(labelled, tmp_path, "cpu", quiet)
    high = torch.arange(len(examples.labels)) % 2
    signals = examples.signals[:1] * torch.where(high == 1, 2.0, 1.0)[:, None, None]
    examples = replace(examples, signals=signals, labels=high[:, None].float())
    ignorant = torch.full((len(high), 3), 0.5)
    said = corrected(ignorant, examples, 100)
    assert said[high == 1, 0].min() > 0.8 > 0.2 > said[high == 0, 0].max()
    assert (said[:, 1:] == 0.5).all(), "statements stay as they were"

    fold = examples.folds == 3
    learned_by_heart = replace(examples, labels=torch.where(fold[:, None], 1 - examples.labels, examples.labels))
    torch.testing.assert_close(corrected(ignorant, learned_by_heart, 100)[fold], said[fold])


def test_what_the_classifier_alone_sees_of_whole_records_is_computed_once(labelled: Path, tmp_path: Path) -> None:
    nothing_done = {"crop": SAMPLES, "amplitude": 0, "noise": 0, "lead_dropout": 0}
    how = RECIPE | nothing_done | {"frozen": True, "learning_rate": 0.01}
    settings, examples = TrainingSettings.from_dict(how), prepare(labelled, tmp_path, "cpu", quiet)
    for change in (
        {"noise": 0.1},
        {"amplitude": 0.1},
        {"lead_sets": 0.1},
        {"mixup": 0.1},
        {"frozen": False},
        {"crop": 990},
    ):
        assert not TrainingSettings.from_dict(how | change).features_stay
    run = Training(settings, tmp_path / "training", examples)
    before = {key: value.clone() for key, value in run.average.network.state_dict().items()}
    with torch.no_grad():
        features = run.average.network.features(examples.signals, examples.metadata)
    torch.testing.assert_close(run._step.features, features, atol=1e-4, rtol=0)
    run.run(quiet)
    after = run.average.network.state_dict()
    with torch.no_grad():
        probabilities = torch.sigmoid(run.average.network.classifier(features[examples.validation]))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if key.startswith("classifier.")}
    labels = examples.labels[examples.validation]
    expected = np.mean([roc_auc(labels[:, k].numpy(), probabilities[:, k].numpy()) for k in range(len(LABELS))])
    last = list(csv.DictReader((tmp_path / "training/epochs.csv").open()))[-1]
    assert float(last["macro_auc"]) == pytest.approx(expected, abs=0.02)


def test_a_training_begins_with_the_weights_it_is_given(labelled: Path, tmp_path: Path) -> None:
    examples = prepare(labelled, tmp_path, "cpu", quiet)
    settings = TrainingSettings.from_dict(RECIPE)
    torch.manual_seed(17)
    weights = {key: value.numpy() for key, value in ParallelXLSTM(settings.network).state_dict().items()}
    run = Training(settings, tmp_path, examples, start=weights)
    for key, value in run.average.network.state_dict().items():
        np.testing.assert_array_equal(value, weights[key])
    assert run.best[0] == 0, "and keeps them until an epoch is better"
    calibrated = TrainingSettings.from_dict(RECIPE | {"epochs": 0, "start": "mine:1"})
    only = Training(calibrated, tmp_path / "calibrated", examples, start=weights)
    assert only.ended
    kept = only.keep(Registry(tmp_path / "models"), "mine", "2").weights()
    assert {key for key in weights if not np.array_equal(kept[key], weights[key])} == {
        "classifier.6.weight",
        "classifier.6.bias",
    }


def test_a_training_begins_with_the_mean_of_several_models(command: Command, labelled: Path, recipe: Path) -> None:
    def train(name: str, status: int = 0, **changes: object) -> str:
        recipe.write_text(json.dumps(RECIPE | changes))
        line = ["model", "train", str(labelled), "--recipe", str(recipe), "--folder", name, "--name", name]
        return command(*line, "--version", "1", here=True, status=status).stderr

    def trained(name: str) -> dict[str, np.ndarray]:
        return Registry(command.folder / "models").find(f"{name}:1").weights()

    train("a", epochs=1)
    train("b", epochs=1, start="a:1", seed=1)
    network = {**RECIPE["network"], "span": 20}  # type: ignore[dict-item]
    train("mean", epochs=0, start="a:1 b:1", network=network)
    a, b, mean = map(trained, ("a", "b", "mean"))
    for key in a:
        if not key.startswith("classifier.6"):  # where the calibration goes
            np.testing.assert_allclose(mean[key], (a[key].astype(np.float64) + b[key]) / 2, rtol=1e-7, atol=0)
    assert Registry(command.folder / "models").find("mean").config.span == 20
    train("wider", epochs=0, start="mean:1", network={**network, "extremes": 100})
    wider = trained("wider")
    assert not wider["classifier.0.weight"][:, -24:].any(), "says the same before it has learned"
    np.testing.assert_array_equal(wider["classifier.0.weight"][:, :-24], mean["classifier.0.weight"])
    larger = {**network, "embedding_dim": 32}
    assert "is not of the sizes of the recipe's network" in train("c", 1, start="a:1", network=larger)


def test_a_kill_in_the_middle_of_a_save_changes_nothing(labelled: Path, recipe: Path, tmp_path: Path) -> None:
    """Killed in the second of three epochs, it ends in the same weights, to the last bit."""
    whole = start(labelled, tmp_path / "whole")
    whole.run(quiet)
    fatal = whole.steps_per_epoch + 5
    line = [recipe, labelled, tmp_path / "killed", torch.get_num_threads(), fatal]
    killed = subprocess.run([sys.executable, KILLED_TRAINING, *map(str, line)], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = start(labelled, tmp_path / "killed")
    assert whole.steps_per_epoch < resumed.step < 2 * whole.steps_per_epoch
    resumed.run(quiet)
    assert resumed.best[:2] == whole.best[:2]
    for key, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[key]), key


def test_killed_it_goes_on_and_ends_in_a_model_that_run_uses(
    command: Command, labelled: Path, recipe: Path, archive: Path
) -> None:
    name = ["--name", "mine", "--version", "1"]
    line = ["model", "train", str(labelled), "--recipe", str(recipe), "--folder", "training", *name]
    command.environment["OMP_NUM_THREADS"] = "1"
    epochs = command.folder / "training/epochs.csv"
    with running(command.start(*line)) as process:
        wait_until(epochs.exists)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(epochs.read_text().splitlines()) < 1 + 3, "it was to be killed before its end"
    done = command(*line, here=True)
    assert "read" not in done.stderr, "what is cleaned is not read again"
    assert "epoch 1 of 3" not in done.stderr
    rows = list(csv.DictReader(epochs.open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert "mine:1" in done.stdout
    mine = Registry(command.folder / "models").find("mine:1")
    assert mine.description["training"]["settings"]["crop"] == 500
    assert set(mine.thresholds) == set(LABELS)

    command.environment["ECGBATCH_MODEL"] = "mine"
    command("run", archive)
    query = ["query", "--json", "--sql", "SELECT model, count(*) AS records FROM results GROUP BY model"]
    assert json.loads(command(*query).stdout) == [{"model": "mine", "records": 64}]


def test_an_ended_training_stays_what_it_is(labelled: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    run = start(labelled, tmp_path / "training", epochs=1)
    run.run(quiet)
    kept = run.keep(registry, "mine", "1")
    again = start(labelled, tmp_path / "training", epochs=1)
    assert again.ended
    assert again.keep(registry, "mine", "1") == kept
    with pytest.raises(EcgbatchError, match="give this one a new version"):
        registry.check_free("mine", "1")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no state", b"\x80\x02]."])
def test_a_damaged_state_is_one_line(labelled: Path, tmp_path: Path, content: bytes) -> None:
    start(labelled, tmp_path)
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(EcgbatchError, match=r"last\.pt is damaged"):
        start(labelled, tmp_path)


def test_the_epochs_are_logged_as_the_state_has_them(labelled: Path, tmp_path: Path) -> None:
    """A kill between the state and its log, or a log of an epoch that the state does not know, leave no trace."""
    run = start(labelled, tmp_path, epochs=1)
    run.run(quiet)
    log = tmp_path / "epochs.csv"
    kept = log.read_text()
    for otherwise in ("", kept + "2,0.1\n"):
        log.write_text(otherwise)
        start(labelled, tmp_path, epochs=1)
        assert log.read_text() == kept


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_said_before_anything_is_read(
    command: Command, labelled: Path, recipe: Path
) -> None:
    line = ["model", "train", str(labelled), "--recipe", str(recipe), "--folder", "t", "--name", "a", "--version", "1"]
    done = command(*line, "--device", "cuda", status=1, here=True)
    assert done.stderr == "ecgbatch: torch finds no CUDA device here: use device cpu\n"


def test_a_folder_belongs_to_one_training(labelled: Path, tmp_path: Path) -> None:
    start(labelled, tmp_path)
    with pytest.raises(EcgbatchError, match="other settings"):
        start(labelled, tmp_path, seed=1)
    fewer = (labelled / "ptbxl_database.csv").read_text().splitlines()[:-60]
    other = tmp_path / "other"
    shutil.copytree(labelled, other)
    (other / "ptbxl_database.csv").write_text("\n".join(fewer) + "\n")
    with pytest.raises(EcgbatchError, match="other records"):
        start(other, tmp_path)


def test_a_record_that_does_not_fit_is_named(labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled, tmp_path / "archive")
    (tmp_path / "archive/00003_lr.dat").unlink()
    with pytest.raises(EcgbatchError, match="00003_lr"):
        start(tmp_path / "archive", tmp_path / "training")


def test_superclasses_that_nobody_has_cannot_be_learned(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "scp_statements.csv").write_text(STATEMENTS.replace(",HYP", ","))
    shutil.copy(labelled / "ptbxl_database.csv", tmp_path)
    for file in labelled.glob("*_lr.*"):
        (tmp_path / file.name).hardlink_to(file)
    with pytest.raises(EcgbatchError, match="each superclass"):
        start(tmp_path, tmp_path / "training")
