"""How fast a model is on this machine, and how many processes and which batch size are best.

`ecgbatch model bench` measures and keeps what it suggests, one file a host, in ECGBATCH_MODEL_DIR; workers take from
there what their settings leave open. Nothing is imported here that a worker's parent process would not need.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from ecgbatch.models.config import CLASSIFIER_HIDDEN, CONV_WIDTH, LABELS, METADATA_HIDDEN, QKV_BLOCK, NetworkConfig
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError, load

if TYPE_CHECKING:
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.model import Model

BATCH_SIZES = {"cpu": (1, 8, 32, 64), "cuda": (1, 32, 128, 256)}
SECONDS = 0.5
"""How long each figure is measured, unless one batch takes longer."""

AS_GOOD = 0.97
"""What is within this share of the best is as good: measurements vary by as much."""

LEAST_SUGGESTED = 8
"""Smaller batches cost what is around the model, reading and passing on, more than they save."""


class Rate(NamedTuple):
    """One kernel at one batch size: milliseconds a record, and the share of the matrix speed that scoring reaches."""

    device: str
    kernel: str
    batch_size: int
    clean_ms: float
    score_ms: float
    records_per_second: float
    matrix_share: float | None


@dataclass(frozen=True)
class Suggestion:
    """What is best on this machine."""

    processes: int
    batch_size: int


@dataclass(frozen=True)
class Bench:
    """What was measured; `matrix_gflops` is the fastest that one core multiplies float32 matrices in torch."""

    model: str
    fingerprint: str
    gflop_per_record: float
    matrix_gflops: float
    rates: list[Rate]
    suggested: dict[str, Suggestion]


def operations(config: NetworkConfig) -> int:
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
    end = 2 * METADATA_HIDDEN + (2 * dim + METADATA_HIDDEN) * wide + wide * narrow + narrow * len(LABELS)
    return 2 * (SAMPLES // config.patch * step + end)


def measure(model: "Model") -> Bench:
    """Measures every kernel that can be had here."""
    flop = operations(model.config)
    matrix = _matrix_speed()
    rates: list[Rate] = []
    suggested = {}
    for device, kernel in _kernels(model.config):
        from ecgbatch.models.scorer import Scorer

        scorer = Scorer(model, device, kernel)
        of_kernel = [_rate(scorer, size, flop / matrix) for size in BATCH_SIZES[device]]
        rates += of_kernel
        eligible = [rate for rate in of_kernel if rate.batch_size >= LEAST_SUGGESTED]
        best = max(rate.records_per_second for rate in eligible)
        batch_size = next(rate.batch_size for rate in eligible if rate.records_per_second >= AS_GOOD * best)
        processes = cores() if device == "cpu" else 1
        suggested[f"{device} {kernel}"] = Suggestion(processes, batch_size)
    return Bench(f"{model.name}:{model.version}", model.fingerprint, flop / 1e9, matrix / 1e9, rates, suggested)


def keep(bench: Bench) -> Path:
    """Writes what is suggested, for `suggestion`. Raises EcgbatchError when the folder cannot be written."""
    path = _path()
    content = {"fingerprint": bench.fingerprint, "suggested": {k: asdict(s) for k, s in bench.suggested.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise EcgbatchError(f"cannot write {path} ({error.strerror}): set ECGBATCH_MODEL_DIR to a folder") from None
    return path


def suggestion(fingerprint: str, device: str, kernel: str) -> Suggestion | None:
    """What `ecgbatch model bench` suggested for this model on this host; None if it was not measured."""
    try:
        content = json.loads(_path().read_text())
        if content["fingerprint"] != fingerprint:
            return None
        return Suggestion(**content["suggested"][f"{device} {kernel}"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path() -> Path:
    """In a folder of its own: the files in ECGBATCH_MODEL_DIR are models."""
    return load().model_dir / "bench" / f"{socket.gethostname()}.json"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kernels(config: NetworkConfig) -> Iterator[tuple[str, str]]:
    """The pairs of device and kernel that can be had here."""
    import torch

    from ecgbatch.models.kernels import compiled

    if compiled.available() and compiled.supports(config):
        yield "cpu", "compiled"
    yield "cpu", "torch"
    if torch.cuda.is_available():
        yield "cuda", "torch"


def _rate(scorer: "Scorer", batch_size: int, ideal_seconds: float) -> Rate:
    import numpy as np

    scorer.batch_size = batch_size
    signals = np.random.default_rng(0).standard_normal((batch_size, SAMPLES, len(LEADS)))
    metadata = np.full((batch_size, 2), (60.0, 0.0), np.float32)
    cleaned = scorer.clean(signals)
    clean = _seconds(lambda: scorer.clean(signals)) / batch_size
    score = _seconds(lambda: scorer.score(cleaned, metadata)) / batch_size
    share = ideal_seconds / score if scorer.device == "cpu" else None
    return Rate(scorer.device, scorer.kernel, batch_size, 1000 * clean, 1000 * score, 1 / (clean + score), share)


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
    import torch

    from ecgbatch.models.network import Projection

    torch.set_num_threads(1)
    product, rows = Projection(512, 512, std=1.0), torch.randn(512, 512)
    with torch.inference_mode():
        return 2 * 512**3 / min(_times(lambda: product(rows)))
