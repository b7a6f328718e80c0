"""A model as one file that runs without ecgbatch: in ONNX Runtime, or in torch alone.

A file takes `signal` (B, T, 12) and `metadata` (B, 2), age in years and sex, and gives `probabilities` (B, 5), all
float32, for any B and any T from 22 on. No file gets its name before it was compared with the network in torch.
"""

import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgbatch.models import preprocessing
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.compiled import classes_of
from ecgbatch.models.kernels.cuda import WholeSequence, mlstm_in_chunks
from ecgbatch.models.kernels.filtering import Filters, both_ways
from ecgbatch.models.network import ParallelXLSTM, mean_of_maxima, slstm_scan
from ecgbatch.models.preprocessing import STD_EPS, Normalization
from ecgbatch.models.signals import read_signal
from ecgbatch.models.weights.model import Model, Weights
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES, SAMPLING_RATE
from ecgbatch.settings import EcgbatchError

FORMATS = ("onnx", "torchscript")
TOLERANCE = 1e-5
"""How far a file's probabilities may be from the network's in float64."""
TIMES_FLOAT32 = 4
"""How many times as far as torch in float32 they may be, where that is more: some weights make it 5e-5."""
SHORTER = 737
"""Samples of the shorter record that a file is tried on: a multiple of no patch."""
CHECKED_AT_ONCE = 16
MOST_RECORDS = 64
MADE_UP = 4
DESCRIPTION = "model.json"
"""What the model's description is called in a TorchScript file."""

Array = NDArray[np.float32]
Score = Callable[[Array, Array], Array]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Exported:
    """A file's size in bytes, and how far it was from float64, in probability, over so many records."""

    size: int
    records: int
    difference: float


def export(
    model: Model, path: Path, file_format: str, *, raw: bool = False, int8: bool = False, archive: Path | None = None
) -> Exported:
    """Writes the model, its description and what kind of signal it takes to one file.

    The signal is what `preprocessing.clean` gives or, if `raw`, what it takes: mV at 100 Hz. With `int8` an ONNX file
    keeps its matrices in eight bits. The file is compared with torch in float64, whose weights are rounded in the same
    way, on the first 64 records of the archive that fit, or on made-up signals.

    Raises EcgbatchError when a package is missing, the archive has no fitting record, the file cannot be written, or
    when it is off by more than TOLERANCE; what was at `path` is then as it was.
    """
    _check_possible(file_format, int8)
    signals = made_up_signals() if archive is None else recordings(archive)
    weights = model.weights()
    if int8:
        from ecgbatch.models.export.onnx_builder import rounded

        weights = rounded(weights)
    write = _write_onnx if file_format == "onnx" else _write_torchscript
    about = model.description | {"signal": f"mV at {SAMPLING_RATE} Hz" if raw else "cleaned", "int8": int8}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            file = Path(folder) / path.name
            score = write(file, model.config, weights, model.normalization if raw else None, about)
            difference = _difference(score, signals, raw, model, weights)
            exported = Exported(file.stat().st_size, len(signals), difference)
            os.replace(file, path)
    except OSError as error:
        raise EcgbatchError(
            f"cannot write {path} ({error.strerror}): name a file in a folder that can be written"
        ) from None
    return exported


def _check_possible(file_format: str, int8: bool) -> None:
    if file_format != "onnx":
        if int8:
            raise EcgbatchError("only ONNX files can keep weights in eight bits: use --format onnx, or no --int8")
    elif missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise EcgbatchError(f"ONNX files need {' and '.join(missing)}: pip install 'ecgbatch[export]'")


# --- The check --------------------------------------------------------------------------------------------------------


def recordings(archive: Path) -> NDArray[np.float64]:
    """The first records, by path, of twelve leads and ten seconds at 100 Hz: (R, 1000, 12) in mV, R up to 64.

    Raises EcgbatchError when there is none.
    """
    fitting = (signal for path in sorted(archive.rglob("*.hea")) if (signal := _recording(archive, path)) is not None)
    found = list(islice(fitting, MOST_RECORDS))
    if not found:
        raise EcgbatchError(
            f"{archive} has no record of twelve leads, ten seconds at {SAMPLING_RATE} Hz: name another one"
        )
    return np.stack(found)


def _recording(archive: Path, header: Path) -> NDArray[np.float64] | None:
    try:
        return read_signal(archive, header.relative_to(archive).with_suffix("").as_posix())
    except EcgbatchError:
        return None


def made_up_signals() -> NDArray[np.float64]:
    """Beats, noise and drift, always the same: (4, 1000, 12) in mV."""
    rng = np.random.default_rng(0)
    seconds = np.arange(SAMPLES)[:, np.newaxis] / SAMPLING_RATE
    shape = (MADE_UP, 1, len(LEADS))
    beats = np.exp(-(((seconds * rng.uniform(0.8, 2, (MADE_UP, 1, 1))) % 1 - 0.5) ** 2) / 5e-4)
    drift = np.sin(2 * np.pi * (0.1 * seconds + rng.random(shape)))
    noise = 0.05 * rng.standard_normal((MADE_UP, SAMPLES, len(LEADS)))
    signals: NDArray[np.float64] = rng.normal(0, 1, shape) * beats + drift + noise
    return signals


def _difference(score: Score, signals: NDArray[np.float64], raw: bool, model: Model, weights: Weights) -> float:
    """How far the file is from the network in float64 at most: all records at once, the first alone, shorter ones.

    Raises EcgbatchError if that is more than TOLERANCE and more than float32 can help.
    """
    metadata = np.array([(20 + age, age % 2) for age in range(len(signals))], np.float32)
    difference = 0.0
    for some in (signals, signals[:1], signals[:1, :SHORTER]):
        cleaned = preprocessing.clean(some, model.normalization)
        about = metadata[: len(some)]
        expected = _in_torch(model, weights, cleaned, about, torch.float64)
        in_float32 = float(np.abs(_in_torch(model, weights, cleaned, about, torch.float32) - expected).max())
        found = score(some.astype(np.float32) if raw else cleaned, about)
        off = float(np.abs(found - expected).max())
        if not off <= max(TOLERANCE, TIMES_FLOAT32 * in_float32):  # not a number is a difference, too
            raise EcgbatchError(f"the file would be off by {off:.1e} in probability, so there is none: report this")
        difference = max(difference, off)
    return difference


def _in_torch(model: Model, weights: Weights, cleaned: Array, metadata: Array, kind: torch.dtype) -> NDArray[Any]:
    network = _loaded(ParallelXLSTM(model.config, classes=len(model.labels)), weights).to(kind)
    batches = (slice(start, start + CHECKED_AT_ONCE) for start in range(0, len(cleaned), CHECKED_AT_ONCE))
    with torch.inference_mode():
        inputs = ([torch.from_numpy(part[batch]).to(kind) for part in (cleaned, metadata)] for batch in batches)
        return np.concatenate([network(*each).numpy() for each in inputs])


def _loaded(network: Network, weights: Weights) -> Network:
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return network.eval()


# --- The formats: each writes a file and opens it again ---------------------------------------------------------------


def _write_onnx(
    path: Path, config: NetworkConfig, weights: Weights, normalization: Normalization | None, about: dict[str, Any]
) -> Score:
    import onnxruntime

    from ecgbatch.models.export.onnx_graph import onnx_model

    network = _loaded(ParallelXLSTM(config, classes=classes_of(weights)), weights)
    path.write_bytes(onnx_model(network, normalization, about["int8"], about).SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def score(signal: Array, metadata: Array) -> Array:
        probabilities: Array = session.run(["probabilities"], {"signal": signal, "metadata": metadata})[0]
        return probabilities

    return score


def _write_torchscript(
    path: Path, config: NetworkConfig, weights: Weights, normalization: Normalization | None, about: dict[str, Any]
) -> Score:
    """The network is traced, but for what goes over time, which is compiled as it stands."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # torch would have us use its newer formats, and warns of sizes that never change
        slstm, mlstm, maxima = (torch.jit.script(each) for each in (slstm_scan, mlstm_in_chunks, mean_of_maxima))
        whole = WholeSequence(config, slstm, mlstm, classes=classes_of(weights))
        whole.maxima = maxima
        network: nn.Module = _loaded(whole, weights)
        if normalization is not None:
            network = Cleaning(network, normalization).eval()
        example = torch.randn(2, SAMPLES, len(LEADS)), torch.randn(2, 2)
        traced = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
        torch.jit.save(traced, path, _extra_files={DESCRIPTION: json.dumps(about)})
        opened = torch.jit.load(path)

    def score(signal: Array, metadata: Array) -> Array:
        with torch.inference_mode():
            probabilities: Array = opened(torch.from_numpy(signal), torch.from_numpy(metadata)).numpy()
            return probabilities

    return score


class Cleaning(nn.Module):
    """A network that takes signals in mV at 100 Hz, and filters and normalises them."""

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = normalization.mean, normalization.std + STD_EPS
        self.filters = Filters()
        self.filters.both_ways = torch.jit.script(both_ways)

    def forward(self, signal: Tensor, metadata: Tensor) -> Tensor:
        filtered = self.filters(signal).float()
        probabilities: Tensor = self.network((filtered - self.mean) / self.std, metadata)
        return probabilities
