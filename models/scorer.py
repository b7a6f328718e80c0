"""A model that stays in memory and scores batches of recordings."""

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models import bench, preprocessing
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.kernels import compiled
from ecgbatch.models.weights.model import Model, Weights
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

Array = NDArray[np.float32]
Cleaned = Any
"""(B, 1000, 12) float32, ready for the network: an array, or with device cuda a tensor there."""
Network = Callable[[Cleaned, Array], Array]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # as in glibc's malloc.h
KERNELS = ("auto", "compiled", "torch")
DEVICES = ("cpu", "cuda")
BATCH_SIZES = {("cpu", "compiled"): 8, ("cpu", "torch"): 64, ("cuda", "torch"): 256}
"""By device and kernel, unless `ecgbatch model bench` found better: the compiled kernel is as fast at any size."""
MOST_ON_CPU = 64
"""Records in a batch on a CPU: with more, torch takes over 400 MB and is a few per cent faster at best."""


class Scorer:
    """Scores records by one model.

    `kernel` is compiled (a CPU only, where it was built), torch, or auto: compiled where that can be. The compiled
    kernel cleans too, and imports neither torch nor scipy. Without a `batch_size` it is what `ecgbatch model bench`
    suggested, or a default; on a CPU it is at most MOST_ON_CPU. Raises EcgbatchError for a device or kernel that cannot
    be had here, and for weights that were tampered with.
    """

    def __init__(self, model: Model, device: str = "cpu", kernel: str = "auto", batch_size: int | None = None) -> None:
        self.model = model
        self.device = device
        self.kernel = choose_kernel(model.config, device, kernel)
        suggested = bench.suggestion(model.fingerprint, device, self.kernel)
        usual = suggested.batch_size if suggested else BATCH_SIZES[device, self.kernel]
        wanted = batch_size or usual
        self.batch_size = min(wanted, MOST_ON_CPU) if device == "cpu" else wanted
        self._clean: Callable[[NDArray[np.float64]], Cleaned]
        cleaner = compiled.clean if self.kernel == "compiled" else preprocessing.clean
        self._clean = partial(cleaner, normalization=model.normalization)
        self._network: Network
        if device == "cuda":
            from ecgbatch.models.kernels.cuda import CudaNetwork

            self._network = on_gpu = CudaNetwork(model.weights(), model.config, model.normalization)
            self._clean = on_gpu.clean
        elif self.kernel == "compiled":
            self._network = compiled.CompiledNetwork(model.weights(), model.config)
        else:
            import torch

            torch.set_num_threads(1)  # a process is one line of work; more threads only wait for each other
            keep_freed_memory()
            self._network = torch_network(model.weights(), model.config)
        self._warm_up()

    def clean(self, signals: NDArray[np.float64]) -> Cleaned:
        """(B, 1000, 12) in mV at 100 Hz -> filtered and normalised, as `score` takes it."""
        return self._clean(signals)

    def metadata(self, age: float | None, sex: float | None) -> preprocessing.Metadata:
        """Age in years and sex (0 male, 1 female) as `score` takes them, and the flags of what was filled in."""
        return preprocessing.metadata(age, sex, self.model.metadata_fill)

    def score(self, cleaned: Cleaned, metadata: Array) -> Array:
        """(B, 1000, 12), (B, 2) -> probabilities (B, 5) in the order of LABELS."""
        if len(cleaned) == 0:
            return np.empty((0, len(LABELS)), np.float32)
        parts = [
            self._network(cleaned[start : start + self.batch_size], metadata[start : start + self.batch_size])
            for start in range(0, len(cleaned), self.batch_size)
        ]
        probabilities = np.concatenate(parts)
        if probabilities.shape != (len(cleaned), len(LABELS)):
            raise EcgbatchError(f"the model gave {probabilities.shape} probabilities for {len(cleaned)} records")
        return probabilities

    def _warm_up(self) -> None:
        example = np.random.default_rng(0).standard_normal((1, SAMPLES, len(LEADS)))
        self.score(self.clean(example), np.array([[60.0, 0.0]], np.float32))


def choose_kernel(config: NetworkConfig, device: str, kernel: str) -> str:
    """The kernel to use, compiled or torch. Raises EcgbatchError for a combination that cannot be."""
    if device not in DEVICES:
        raise EcgbatchError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if kernel not in KERNELS:
        raise EcgbatchError(f"kernel must be one of {', '.join(KERNELS)}, not {kernel!r}")
    if kernel == "compiled" and device != "cpu":
        raise EcgbatchError("the compiled kernel runs on a CPU only: use kernel torch or auto")
    if kernel != "auto":
        return kernel
    return "compiled" if device == "cpu" and compiled.available() and compiled.supports(config) else "torch"


def keep_freed_memory() -> None:
    """Lets this process hold on to the memory of tensors that are gone.

    Left to itself, glibc gives it back to the system and takes it again, page after page, for each of torch's steps,
    which costs a tenth of their time.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that it takes
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(M_ARENA_MAX, 1)  # what the thread that reads has freed is used again, too


def torch_network(weights: Weights, config: NetworkConfig, device: str = "cpu") -> Network:
    """The network in plain torch, ready to score arrays."""
    import torch

    from ecgbatch.models.network import ParallelXLSTM

    network = ParallelXLSTM(config)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    network.eval().to(device)

    def score(signal: Array, metadata: Array) -> Array:
        with torch.inference_mode():
            inputs = (torch.from_numpy(part).to(device) for part in (signal, metadata))
            probabilities: Array = network(*inputs).cpu().numpy()
            return probabilities

    return score
