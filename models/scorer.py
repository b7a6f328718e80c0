"""A model that stays in memory and scores batches of recordings."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models import preprocessing
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels import compiled
from ecgbatch.models.memory import keep_freed_memory
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.torch_extra import require_torch
from ecgbatch.models.weights.model import Model
from ecgbatch.records import quality
from ecgbatch.records.leads import LEADS
from ecgbatch.records.quality import Quality
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

Array = NDArray[np.float32]
Cleaned = Any
"""(B, T, 12) float32, ready for the network: an array, or with device cuda a tensor there."""
Clean = Callable[[NDArray[np.float64]], tuple[Cleaned, list[Quality]]]
KERNELS = ("auto", "compiled", "torch")
DEVICES = ("cpu", "cuda")
USUAL_BATCH = {("cpu", "compiled"): 8, ("cpu", "torch"): 64, ("cuda", "torch"): 256}
"""Records in a batch, by device and kernel; the compiled kernel is as fast at any size."""
NEVER = (math.inf, -math.inf)
"""Limits that no probability lies between."""
LARGEST_BATCH_ON_CPU = 64
"""With more records, torch takes over 400 MB and is a few per cent faster at best."""


class Network(Protocol):
    """A network in memory, in one of the kernels."""

    def __call__(self, signal: Cleaned, metadata: Array, /) -> Array:
        """(B, T, 12), (B, 2) -> probabilities (B, K)."""

    def embed(self, signal: Cleaned, metadata: Array, /) -> tuple[Array, Array]:
        """The probabilities, and the features (B, F) that the classifier was given."""


class Scorer:
    """Scores records by one model, which stays in memory: `clean`, then `score`, at any length of 2.5 s or more.

    `kernel` is compiled (a CPU only, where it was built), torch, or auto: compiled where that can be. The compiled
    kernel cleans too, and imports neither torch nor scipy. `batch_size` is how many records go through the network
    together, USUAL_BATCH if None; on a CPU it is at most LARGEST_BATCH_ON_CPU. Raises EcgbatchError for a device or
    kernel that cannot be had here, and for weights that were tampered with.
    """

    def __init__(self, model: Model, device: str = "cpu", kernel: str = "auto", batch_size: int | None = None) -> None:
        self.model = model
        self.device = device
        self._lead_sets = frozenset(model.lead_sets)
        self._fill = model.metadata_fill
        self._limits = [model.uncertain.get(label, NEVER) for label in model.labels]
        self.kernel = choose_kernel(model.config, device, kernel)
        self.batch_size = batch_size or USUAL_BATCH[device, self.kernel]
        if device == "cpu":
            self.batch_size = min(self.batch_size, LARGEST_BATCH_ON_CPU)
        self._clean: Clean
        self._network: Network
        if device == "cuda":
            from ecgbatch.models.kernels.cuda import CudaNetwork

            self._network = on_gpu = CudaNetwork(model.weights(), model.config, model.normalization)
            self._clean = on_gpu.clean
        elif self.kernel == "compiled":
            self._network = compiled.CompiledNetwork(model.weights(), model.config)
            self._clean = partial(compiled.clean, normalization=model.normalization)
        else:
            import torch

            from ecgbatch.models.kernels.plain_torch import TorchNetwork

            torch.set_num_threads(1)  # a process is one line of work; more threads only wait for each other
            keep_freed_memory()
            self._network = TorchNetwork(model.weights(), model.config)
            self._clean = partial(_clean_in_numpy, normalization=model.normalization)
        self._warm_up()

    @property
    def lead_sets(self) -> Collection[str]:
        """Of fewer than twelve leads, the sets that the model is declared for."""
        return self._lead_sets

    def uncertain(self, probabilities: Sequence[float]) -> list[str]:
        """Of a record's probabilities, the classes of which neither presence nor absence is ruled out."""
        limits = zip(self.model.labels, probabilities, self._limits, strict=True)
        return [label for label, probability, (low, high) in limits if low <= probability <= high]

    def clean(self, signals: NDArray[np.float64]) -> tuple[Cleaned, list[Quality]]:
        """(B, T, 12) in mV at 100 Hz -> filtered and normalised, as `score` takes it, and the quality of each."""
        return self._clean(signals)

    def metadata(self, age: float | None, sex: float | None) -> preprocessing.Metadata:
        """Age in years and sex (0 male, 1 female) as `score` takes them, and the flags of what was filled in."""
        return preprocessing.metadata(age, sex, self._fill)

    def score(self, cleaned: Cleaned, metadata: Array) -> Array:
        """(B, T, 12) from `clean`, (B, 2) from `metadata` -> probabilities (B, K) in the model's order."""
        if len(cleaned) == 0:
            return np.empty((0, len(self.model.labels)), np.float32)
        batches = self._batches(len(cleaned))
        probabilities = np.concatenate([self._network(cleaned[batch], metadata[batch]) for batch in batches])
        if probabilities.shape != (len(cleaned), len(self.model.labels)):
            raise EcgbatchError(f"the model gave {probabilities.shape} probabilities for {len(cleaned)} records")
        return probabilities

    def embed(self, cleaned: Cleaned, metadata: Array) -> tuple[Array, Array]:
        """As `score`, of one record at least, and beside it the features (B, F) that the classifier was given."""
        parts = [self._network.embed(cleaned[batch], metadata[batch]) for batch in self._batches(len(cleaned))]
        probabilities, features = (np.concatenate(part) for part in zip(*parts, strict=True))
        return probabilities, features

    def _batches(self, records: int) -> list[slice]:
        return [slice(start, start + self.batch_size) for start in range(0, records, self.batch_size)]

    def _warm_up(self) -> None:
        example = np.random.default_rng(0).standard_normal((1, SAMPLES, len(LEADS)))
        cleaned, _ = self.clean(example)
        self.score(cleaned, np.array([[60.0, 0.0]], np.float32))


def choose_kernel(config: NetworkConfig, device: str, kernel: str) -> str:
    """The kernel to use, compiled or torch. Raises EcgbatchError for a combination that cannot be."""
    if device not in DEVICES:
        raise EcgbatchError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if kernel not in KERNELS:
        raise EcgbatchError(f"kernel must be one of {', '.join(KERNELS)}, not {kernel!r}")
    if kernel == "compiled" and device != "cpu":
        raise EcgbatchError("the compiled kernel runs on a CPU only: use kernel torch or auto")
    if kernel == "auto" and device == "cpu" and compiled.available() and compiled.supports(config):
        return "compiled"
    if kernel != "compiled":
        require_torch("scoring on a GPU" if device == "cuda" else "scoring without the compiled kernel")
        return "torch"
    return kernel


def _clean_in_numpy(signals: NDArray[np.float64], normalization: Normalization) -> tuple[Array, list[Quality]]:
    filtered = preprocessing.filtered(signals)
    return preprocessing.normalized(filtered, normalization), quality.measure(filtered)
