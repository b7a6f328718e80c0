"""Where torch is not installed: the compiled kernel scores all the same, and what needs torch says what to install."""

import json
from pathlib import Path

import golden
import numpy as np
import pytest
from commands import Command

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels import compiled
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.reading import read

WITHOUT_TORCH = 'import sys; sys.modules["torch"] = None  # importing it fails, as where it is not there\n'
WITHOUT_KERNEL = WITHOUT_TORCH + 'sys.modules["ecgbatch.models.kernels._kernel"] = None\n'

built = pytest.mark.skipif(not compiled.available(), reason="the compiled kernel is not built")


@pytest.fixture
def without_torch(command: Command, tmp_path: Path) -> Command:
    """The command in an environment without torch, its worker processes included."""
    return lacking(command, tmp_path, WITHOUT_TORCH)


def lacking(command: Command, folder: Path, startup: str) -> Command:
    (folder / "startup").mkdir()
    (folder / "startup/sitecustomize.py").write_text(startup)
    command.environment["PYTHONPATH"] = str(folder / "startup")
    return command


def needs_torch(command: Command, *line: str | Path) -> str:
    """The one line that a command ends with."""
    *before, said = command(*line, status=1).stderr.splitlines()
    assert not [line for line in before if "needs torch" in line]
    assert said.endswith("needs torch: pip install 'ecgbatch[torch]'")
    return said


@built
def test_an_archive_is_scored_as_ever(without_torch: Command, archive: Path) -> None:
    without_torch("run", archive)
    rows = without_torch.rows("SELECT path, age, sex, norm, mi, sttc, cd, hyp FROM results ORDER BY path")
    assert len(rows) == 64
    scorer = Scorer(Registry(SHIPPED).find(None), kernel="compiled")
    row = next(row for row in rows if len(read(archive, row["path"]).signal) == 1000)
    cleaned, _ = scorer.clean(read(archive, row["path"]).signal[None])
    metadata = np.array([scorer.metadata(row["age"], row["sex"]).values], np.float32)
    assert scorer.score(cleaned, metadata)[0].tolist() == [row[name] for name in ("norm", "mi", "sttc", "cd", "hyp")]


@built
def test_what_needs_no_torch_works(without_torch: Command) -> None:
    checkpoint = without_torch.folder / "a.ckpt"
    config = NetworkConfig("stacked", 64, 4, 1)
    golden.write_checkpoint(checkpoint, golden.golden_weights(config))
    without_torch("model", "add", checkpoint, "--name", "mine", "--version", "1")
    measured = json.loads(without_torch("model", "bench", "--json").stdout)
    assert {"cpu compiled"} == set(measured["suggested"])
    found = {row["what"]: row for row in json.loads(without_torch("doctor", "--json").stdout)}
    assert found["kernel"]["finding"].startswith("compiled")


def test_what_needs_torch_says_so_in_one_line(without_torch: Command, archive: Path) -> None:
    named = ("--name", "a", "--version", "1")
    line = ("model", "train", archive, "--recipe", "xlstm-ecg-1.1.0", "--folder", "training", *named)
    assert "training needs" in needs_torch(without_torch, *line)
    needs_torch(without_torch, "model", "export", "--format", "onnx", "model.onnx")
    without_torch.environment["ECGBATCH_KERNEL"] = "torch"
    assert "ECGBATCH_KERNEL=torch" in without_torch("doctor", status=1).stdout
    needs_torch(without_torch, "run", archive)
    without_torch.environment |= {"ECGBATCH_KERNEL": "auto", "ECGBATCH_DEVICE": "cuda"}
    assert "pip install 'ecgbatch[torch]'" in without_torch("doctor", status=1).stdout
    needs_torch(without_torch, "run", archive)


def test_with_neither_torch_nor_the_compiled_kernel(command: Command, archive: Path, tmp_path: Path) -> None:
    lacking(command, tmp_path, WITHOUT_KERNEL)
    needs_torch(command, "run", archive)
    assert "the compiled kernel was not built" in command("doctor", status=1).stdout
