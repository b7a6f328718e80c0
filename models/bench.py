"""How fast a model is on this machine, and how many processes and which batch size are best."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from ecgbatch.models.config import CLASSIFIER_HIDDEN, CONV_WIDTH, LABELS, METADATA_HIDDEN, QKV_BLOCK, NetworkConfig
from ecgbatch.models.kernels import compiled
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.suggestion import Suggestion, cores
from ecgbatch.models.torch_extra import has_torch
from ecgbatch.models.weights.model import Model
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES

MEASURED_BATCHES = {"cpu": (1, 8, 32, 64), "cuda": (1, 32, 128, 256)}
SECONDS = 0.5
"""How long each figure is measured, unless one batch takes longer."""

AS_GOOD = 0.97
"""What is within this share of the best is as good: measurements vary by as much."""

SMALLEST_SUGGESTED = 8
"""Smaller batches cost what is around the model, reading and passing on, more than they save."""


class Measurement(NamedTuple):
    """One kernel at one batch size: milliseconds a record, and the share of the matrix speed that scoring reaches."""

    device: str
    kernel: str
    batch_size: int
    clean_ms: float
    score_ms: float
    records_per_second: float
    matrix_share: float | None


@dataclass(frozen=True)
class Bench:
    """What was measured; `matrix_gflops` is the fastest that one core multiplies float32 matrices in numpy."""

    model: str
    fingerprint: str
    gflop_per_record: float
    matrix_gflops: float
    measurements: list[Measurement]
    suggested: dict[str, Suggestion]


def operations(config: NetworkConfig, classes: int = len(LABELS)) -> int:
    """Floating-point operations of one record, two for each multiplication that is added to something.

    Counted are products of matrices and vectors, in the recurrent form of Beck et al., xLSTM (2024), equations 8-27;
    the m in mLSTM stores one outer product and reads one product of its matrix memory per step and head.
    """
    dim, inner, heads = config.embedding_dim, config.inner_dim, config.heads
    gates_and_recurrence = 2 * 4 * dim * config.head_dim
    slstm = CONV_WIDTH * dim + gates_and_recurrence + 3 * dim * config.ffn_dim
    memory = 2 * inner * (inner // heads)
    gates = 2 * heads * 3 * inner
    mlstm = 2 * dim * inner + CONV_WIDTH * inner + 3 * QKV_BLOCK * inner + gates + memory + inner * dim
    step = config.inputs * dim + config.blocks * (slstm + mlstm)
    wide, narrow = CLASSIFIER_HIDDEN
    end = 2 * METADATA_HIDDEN + config.features_dim * wide + wide * narrow + narrow * classes
    return 2 * (SAMPLES // config.patch * step + end)


def measure(model: Model) -> Bench:
    """Measures every kernel that can be had here."""
    flop = operations(model.config, len(model.labels))
    matrix = _matrix_speed()
    measurements: list[Measurement] = []
    suggested = {}
    for device, kernel in _kernels(model.config):
        scorer = Scorer(model, device, kernel)
        of_kernel = [_measured(scorer, size, flop / matrix) for size in MEASURED_BATCHES[device]]
        measurements += of_kernel
        eligible = [each for each in of_kernel if each.batch_size >= SMALLEST_SUGGESTED]
        best = max(each.records_per_second for each in eligible)
        batch_size = next(each.batch_size for each in eligible if each.records_per_second >= AS_GOOD * best)
        processes = cores() if device == "cpu" else 1
        suggested[f"{device} {kernel}"] = Suggestion(processes, batch_size)
    return Bench(f"{model.name}:{model.version}", model.fingerprint, flop / 1e9, matrix / 1e9, measurements, suggested)


def _kernels(config: NetworkConfig) -> Iterator[tuple[str, str]]:
    """The pairs of device and kernel that can be had here."""
    if compiled.available() and compiled.supports(config):
        yield "cpu", "compiled"
    if not has_torch():
        return
    import torch

    yield "cpu", "torch"
    if torch.cuda.is_available():
        yield "cuda", "torch"


def _measured(scorer: Scorer, batch_size: int, ideal_seconds: float) -> Measurement:
    scorer.batch_size = batch_size
    signals = np.random.default_rng(0).standard_normal((batch_size, SAMPLES, len(LEADS)))
    metadata = np.full((batch_size, 2), (60.0, 0.0), np.float32)
    cleaned, _ = scorer.clean(signals)
    clean = _seconds(lambda: scorer.clean(signals)) / batch_size
    score = _seconds(lambda: scorer.score(cleaned, metadata)) / batch_size
    share = ideal_seconds / score if scorer.device == "cpu" else None
    return Measurement(scorer.device, scorer.kernel, batch_size, 1000 * clean, 1000 * score, 1 / (clean + score), share)


def _seconds(work: Callable[[], object]) -> float:
    return median(_times(work))


def _times(work: Callable[[], object]) -> list[float]:
    """What `work` takes, in seconds, as many times as fit in SECONDS."""
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def _matrix_speed() -> float:
    """Operations per second of the product of two float32 matrices of 512 x 512, when nothing else disturbs it."""
    rows, columns = np.random.default_rng(0).standard_normal((2, 512, 512), np.float32)
    return 2 * 512**3 / min(_times(lambda: rows @ columns))
