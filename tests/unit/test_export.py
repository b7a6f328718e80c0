"""Models as ONNX and TorchScript files: they load without ecgbatch and give what torch gives."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import golden
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import Command
from float32 import in_float64
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecgbatch import cli
from ecgbatch.models import preprocessing
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.evaluation.metrics import roc_auc
from ecgbatch.models.evaluation.ptbxl import labelled_records
from ecgbatch.models.export import export, onnx_builder, onnx_graph
from ecgbatch.models.kernels import compiled
from ecgbatch.models.signals import read_signal
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.records.synthetic import write_archive
from ecgbatch.settings import EcgbatchError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

CONFIGS = [NetworkConfig("stacked", 64, patch=1), NetworkConfig("hierarchical", 64, patch=4)]
SMALL = NetworkConfig("hierarchical", 32, 2, patch=8)
NORMALIZATION = preprocessing.Normalization(mean=0.01, std=0.3)

ALONE = """
import sys
import numpy as np
file, signal, metadata, out = sys.argv[1:]
sys.modules["ecgbatch"] = None  # its import fails
signal, metadata = np.load(signal), np.load(metadata)
if file.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(file)
    score = lambda *inputs: session.run(None, dict(zip(("signal", "metadata"), inputs)))[0]
else:
    import torch
    model = torch.jit.load(file)
    score = lambda *inputs: model(*map(torch.from_numpy, inputs)).detach().numpy()
parts = {size: [score(signal[i:i + size], metadata[i:i + size]) for i in range(0, min(len(signal), 2 * size), size)]
         for size in (1, 3, 8)}
np.savez(out, **{str(size): np.concatenate(part) for size, part in parts.items()})
"""
"""Scores without ecgbatch: two records one by one, six in threes, all together."""


@pytest.fixture(autouse=True, scope="module")
def one_made_up_signal() -> Iterator[None]:
    """What each file is tried on before it gets its name, which takes longer than all else about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "MADE_UP", 1)
        yield


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Eight synthetic recordings, four seconds of them: (8, 400, 12) in mV."""
    archive = tmp_path_factory.mktemp("synthetic")
    write_archive(archive)
    return export.recordings(archive)[:8, :400]


@pytest.fixture(scope="module")
def metadata(signals: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    many = len(signals)
    return np.stack([rng.integers(20, 95, many), rng.integers(0, 2, many)], axis=1).astype(np.float32)


def made(folder: Path, config: NetworkConfig, labels: tuple[str, ...] = LABELS) -> Model:
    """A model with golden weights; of those of its last layer, as many as it has classes."""
    of_last = {
        key: value[: len(labels)] for key, value in golden.golden_weights(config).items() if "classifier.6" in key
    }
    weights = golden.golden_weights(config) | of_last
    return Registry(folder).add("golden", "1", config, weights, NORMALIZATION, labels=labels)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """The model that ships, as a file that takes mV."""
    file = tmp_path_factory.mktemp("trained") / "model.onnx"
    export.export(Registry(SHIPPED).find("xlstm-ecg:1.1.0"), file, "onnx", raw=True)
    return onnxruntime.InferenceSession(file)


def scored_alone(file: Path, signal: np.ndarray, metadata: np.ndarray) -> dict[str, np.ndarray]:
    """What the file gives in a process that has no ecgbatch: probabilities by batch size."""
    folder = file.parent / "alone"
    folder.mkdir()
    np.save(folder / "signal.npy", signal.astype(np.float32))
    np.save(folder / "metadata.npy", metadata)
    paths = [file, *(folder / name for name in ("signal.npy", "metadata.npy", "out.npz"))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [sys.executable, "-W", "ignore", "-c", ALONE, *map(str, paths)]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz"))


# --- The numbers


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.variant}-patch{config.patch}")
def test_files_are_as_near_as_float32_can_be_where_ecgbatch_is_not(
    tmp_path: Path, signals: np.ndarray, metadata: np.ndarray, config: NetworkConfig
) -> None:
    model = made(tmp_path, config, LABELS if config.patch == 1 else ("afib", "flutter", "sinus"))
    cleaned = preprocessing.clean(signals, NORMALIZATION)
    exact = in_float64(config, model.weights(), cleaned, metadata)
    for file_format, raw in (("onnx", config.patch == 1), ("torchscript", config.patch == 4)):
        file = tmp_path / file_format / f"model.{file_format}"
        file.parent.mkdir()
        exported = export.export(model, file, file_format, raw=raw)
        assert exported.size == file.stat().st_size
        found = scored_alone(file, signals if raw else cleaned, metadata)
        assert {size: len(values) for size, values in found.items()} == {"1": 2, "3": 6, "8": 8}
        for values in found.values():
            exact.assert_given(values)


@pytest.mark.parametrize("variant", golden.CONFIGS)
def test_golden_numbers(shared: Path, tmp_path: Path, variant: str) -> None:
    signal = np.load(shared / "golden/expected.npz")["preprocessed"].astype(np.float32)
    export.export(made(tmp_path, golden.CONFIGS[variant]), tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    [probabilities] = session.run(None, {"signal": signal, "metadata": golden.METADATA})
    np.testing.assert_allclose(probabilities, golden.PROBABILITIES[variant], atol=golden.TOLERANCE, rtol=0)


@settings(max_examples=5, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.floats(0, 20),
    drift=st.floats(-50, 50),
    age=st.floats(0, 120, width=32),
    seed=st.integers(0, 99),
)
def test_whatever_the_signal_onnx_is_as_near_as_float32_can_be(
    trained: onnxruntime.InferenceSession, batch: int, size: float, drift: float, age: float, seed: int
) -> None:
    """Silent or loud or far off the zero line, in mV."""
    noise = np.random.default_rng(seed).standard_normal((batch, SAMPLES, len(LEADS)))
    signal = (drift + size * noise).astype(np.float32)
    metadata = np.full((batch, 2), (age, 1), np.float32)
    model = Registry(SHIPPED).find("xlstm-ecg:1.1.0")
    cleaned = preprocessing.clean(signal.astype(np.float64), model.normalization)
    [found] = trained.run(None, {"signal": signal, "metadata": metadata})
    in_float64(model.config, model.weights(), cleaned, metadata).assert_given(found)


# --- Eight bits


def test_eight_bits_take_a_third_of_the_size(tmp_path: Path, signals: np.ndarray, metadata: np.ndarray) -> None:
    model = Registry(SHIPPED).find("xlstm-ecg:1.1.0")
    sizes = [export.export(model, tmp_path / "model.onnx", "onnx", int8=int8).size for int8 in (False, True)]
    assert sizes[1] < sizes[0] / 3
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    cleaned = preprocessing.clean(signals, model.normalization)
    [found] = session.run(None, {"signal": cleaned, "metadata": metadata})
    in_float64(model.config, onnx_builder.rounded(model.weights()), cleaned, metadata).assert_given(found)
    as_trained = in_float64(model.config, model.weights(), cleaned, metadata)
    assert 0 < np.abs(found - as_trained.probabilities).max() < 0.05


@given(arrays(np.float32, (2, 3, 16), elements=st.floats(-100, 100, width=32)))
def test_rounding_is_by_half_a_step_at_most(weight: np.ndarray) -> None:
    numbers, scale = onnx_builder.quantized(weight, axis=-1)
    assert scale.shape == (2, 3, 1)
    assert np.abs(numbers.astype(int)).max() <= 127
    assert (np.abs(numbers * scale - weight) <= 0.501 * scale).all()
    assert (np.abs(numbers).max(axis=-1) >= 127 * (np.abs(weight).max(axis=-1) > 1e-30)).all()


@pytest.mark.skipif(not compiled.available(), reason="the compiled kernel is not built")
def test_eight_bits_cost_next_to_no_auc(ptbxl_fold9: Path) -> None:
    """On a sixth of fold 9, by the compiled kernel with the weights of the file."""
    records = [r for r in labelled_records(ptbxl_fold9 / "ptbxl_database.csv") if r.fold == 9][::6]
    model = Registry(SHIPPED).find("xlstm-ecg:1.1.0")
    recorded = np.stack([read_signal(ptbxl_fold9, record.path) for record in records])
    cleaned = preprocessing.clean(recorded, model.normalization)
    filled = [preprocessing.metadata(r.age, r.sex, model.metadata_fill).values for r in records]
    labels = np.array([record.labels for record in records])
    aucs = []
    for weights in (model.weights(), onnx_builder.rounded(model.weights())):
        found = compiled.CompiledNetwork(weights, model.config)(cleaned, np.array(filled, np.float32))
        aucs.append(np.mean([roc_auc(labels[:, at], found[:, at]) for at in range(len(LABELS))]))
    assert aucs[0] > 0.9
    assert aucs[1] > aucs[0] - 0.002


# --- The file


def test_an_onnx_file_is_standard_and_says_what_it_is(tmp_path: Path) -> None:
    model = made(tmp_path, SMALL)
    export.export(model, tmp_path / "model.onnx", "onnx", raw=True)
    written = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert {node.domain for node in written.graph.node} == {""}
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*written.graph.input, *written.graph.output)
    }
    assert shapes == {"signal": ["batch", "samples", 12], "metadata": ["batch", 2], "probabilities": ["batch", 5]}
    about = {entry.key: json.loads(entry.value) for entry in written.metadata_props}
    assert about == {**model.description, "signal": "mV at 100 Hz", "int8": False}


def test_a_torchscript_file_says_what_it_is(tmp_path: Path) -> None:
    model = made(tmp_path, SMALL)
    export.export(model, tmp_path / "model.pt", "torchscript")
    more = {export.DESCRIPTION: ""}
    torch.jit.load(tmp_path / "model.pt", _extra_files=more)
    assert json.loads(more[export.DESCRIPTION]) == {**model.description, "signal": "cleaned", "int8": False}


@pytest.mark.parametrize("file_format", export.FORMATS)
def test_a_file_that_is_off_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    model = made(tmp_path / "models", SMALL)
    file = tmp_path / "model"
    file.write_text("from before")
    writer = onnx_graph if file_format == "onnx" else export
    monkeypatch.setattr(writer, "STD_EPS", 1.0)
    with pytest.raises(EcgbatchError, match="off by"):
        export.export(model, file, file_format, raw=True)
    assert file.read_text() == "from before"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "models"}


# --- The command


def test_the_command_exports_the_model_that_is_set(command: Command, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    write_archive(archive, records=4)
    made(command.folder / "models", SMALL)
    command.environment["ECGBATCH_MODEL"] = "golden:1"
    done = command("model", "export", "--format", "onnx", "small.onnx", "--raw", "--int8", "--check", archive)
    assert "golden:1" in done.stdout
    assert "on 4 records" in done.stdout
    assert done.stderr == ""
    done = command("model", "export", "--format", "torchscript", "small.pt")
    assert done.stderr == ""
    assert torch.jit.load(command.folder / "small.pt")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--format torchscript --int8 model.pt", "eight bits"),
        ("--format onnx no/such/folder/model.onnx", "cannot write"),
        ("--format onnx --check empty model.onnx", "no record of twelve leads"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli.main(["model", "export", *arguments.split()]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("model.*"))


def test_without_its_packages_onnx_says_what_to_install(command: Command) -> None:
    (command.folder / "sitecustomize.py").write_text("import sys; sys.modules['onnxruntime'] = None")
    command.environment["PYTHONPATH"] = str(command.folder)
    error = command("model", "export", "--format", "onnx", "model.onnx", status=1).stderr
    assert error == "ecgbatch: ONNX files need onnxruntime: pip install 'ecgbatch[export]'\n"
