"""What `import ecgbatch` offers: which names, what they cost, and that they score as the parts below do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import CONFIGS, golden_weights, write_checkpoint

import ecgbatch
from ecgbatch import EcgbatchError, RecordError, Settings
from ecgbatch.cli import main


def test_these_names_and_no_others() -> None:
    assert ecgbatch.__all__ == sorted(ecgbatch.__all__)
    assert dir(ecgbatch) == [
        "Database",
        "EcgbatchError",
        "RecordError",
        "Recording",
        "Score",
        "Scorer",
        "Settings",
        "load_model",
        "open_database",
        "read",
        "run",
        "score",
        "score_signals",
    ]
    for name in ecgbatch.__all__:
        assert getattr(ecgbatch, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ecgbatch.nonsense


def test_importing_costs_nothing() -> None:
    script = "import sys; import ecgbatch; dir(ecgbatch); print([m for m in sys.modules if m.startswith('ecgbatch')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['ecgbatch']\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(model_dir=tmp_path / "models")


def test_files_and_signals_score_the_same(archive: Path, settings: Settings) -> None:
    scorer = ecgbatch.load_model("xlstm-ecg:1.1.0", settings=settings)
    paths = [archive / "synthetic_0001.hea", archive / "synthetic_0002.dat", archive / "synthetic_0003"]
    scores = ecgbatch.score(scorer, paths, age=50, sex=1)
    recordings = [ecgbatch.read(path) for path in paths]
    assert [score.input_sha256 for score in scores] == [recording.sha256 for recording in recordings]
    for recording, score in zip(recordings, scores, strict=True):
        [probabilities] = ecgbatch.score_signals(scorer, recording.signal[None], [50], [1])
        assert list(score.probabilities.values()) == probabilities.tolist()
        assert list(score.probabilities) == ["norm", "mi", "sttc", "cd", "hyp"]
        thresholds = scorer.model.thresholds
        assert score.superclasses == tuple(k for k, p in score.probabilities.items() if p >= thresholds[k])
        [again] = ecgbatch.score(scorer, recording, age=50, sex=1)
        assert again.probabilities == score.probabilities


def test_age_and_sex_are_the_files_unless_given(archive: Path, settings: Settings) -> None:
    scorer = ecgbatch.load_model(settings=settings)
    recording = ecgbatch.read(archive / "synthetic_0001.hea")
    [told] = ecgbatch.score(scorer, recording)
    [given] = ecgbatch.score(scorer, recording, age=20, sex=0)
    assert (told.age, told.sex) == (recording.age, recording.sex)
    assert f"# Age: {recording.age:g}" in (archive / "synthetic_0001.hea").read_text()
    assert (given.age, given.sex) == (20, 0)
    assert given.probabilities != told.probabilities


def test_a_lightning_checkpoint(tmp_path: Path, archive: Path, settings: Settings) -> None:
    pytest.importorskip("torch")
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", golden_weights(CONFIGS["stacked64"]))
    scorer = ecgbatch.load_model(checkpoint, settings=settings)
    assert scorer.model.config == CONFIGS["stacked64"]
    [score] = ecgbatch.score(scorer, archive / "synthetic_0001.hea")
    assert 0 < score.probabilities["mi"] < 1
    assert not settings.model_dir.exists()


def test_what_cannot_be_scored_says_why(archive: Path, settings: Settings) -> None:
    scorer = ecgbatch.load_model(settings=settings)
    with pytest.raises(RecordError, match="missing_header"):
        ecgbatch.read(archive / "nothing")
    wrong = [np.zeros((1000, 12)), np.zeros((1, 1000, 11)), np.full((1, 1000, 12), np.nan)]
    for signals in wrong:
        with pytest.raises(EcgbatchError, match="signals must be"):
            ecgbatch.score_signals(scorer, signals)
    with pytest.raises(EcgbatchError, match="are not as many"):
        ecgbatch.score_signals(scorer, np.zeros((2, 1000, 12)), [50])
    assert ecgbatch.score_signals(scorer, np.zeros((0, 1000, 12))).shape == (0, 5)
    with pytest.raises(EcgbatchError, match="there is no model other"):
        ecgbatch.load_model("other", settings=settings)


def test_one_record_of_many_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "many.h5").write_bytes(b"not really")
    with pytest.raises(RecordError):
        ecgbatch.read(f"{tmp_path}/many.h5::7")


def test_a_folder_as_hubs_have_it_is_a_model(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "for a hub"
    assert main(["model", "export", "--format", "hub", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    default = ecgbatch.load_model(settings=settings).model
    for where in (folder, f"{folder}/"):
        assert ecgbatch.load_model(where, settings=settings).model.description == default.description
    assert main(["model", "export", "--format", "hub", str(folder)]) == 1, "nothing is written over"
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EcgbatchError, match="cannot read the weights"):
        ecgbatch.load_model(folder, settings=settings)
    (folder / "model.safetensors").unlink()
    with pytest.raises(EcgbatchError, match=r"holds no config\.json and model\.safetensors"):
        ecgbatch.load_model(folder, settings=settings)
    with pytest.raises(EcgbatchError, match="there is no model nonsense"):
        ecgbatch.load_model("nonsense", settings=settings)
