"""The network and the cleaning on an NVIDIA GPU.

The layers are those of `models.network`. What differs is the order of the work: there a few time steps pass through all
layers, which suits a CPU's caches; here a layer sees all time steps of a batch at once, so that a GPU gets few, large
pieces, and the sLSTM's loop over time is one launch, see `triton_scan`.

docs/performance.md says how fast it is. The Triton functions are also tested in Triton's interpreter, and built for
NVIDIA's architectures 8.0, 8.9 and 9.0.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgbatch.models import preprocessing
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.kernels.compiled import classes_of
from ecgbatch.models.kernels.filtering import Filters
from ecgbatch.models.kernels.triton_scan import fastest_scan
from ecgbatch.models.network import (
    MLSTM,
    SLSTM,
    MLSTMScan,
    ParallelXLSTM,
    SLSTMScan,
    mlstm_chunk,
    patched,
)
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.weights.model import Weights
from ecgbatch.records import quality
from ecgbatch.records.quality import Quality
from ecgbatch.settings import EcgbatchError


class CudaNetwork:
    """The network and the cleaning on one device, which is a GPU but for tests.

    Raises EcgbatchError where torch finds no GPU. All arithmetic is in float32 without TF32, the filters' in float64.
    """

    def __init__(
        self, weights: Weights, config: NetworkConfig, normalization: Normalization, device: str = "cuda"
    ) -> None:
        self.device = torch.device(device)
        self.normalization = normalization
        if self.device.type == "cuda":
            require_gpu()
        torch.set_float32_matmul_precision("highest")  # some environments turn TF32 on
        self._network = WholeSequence(
            config, fastest_scan(config, self.device), mlstm_in_chunks, classes=classes_of(weights)
        )
        self._network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        self._network.eval().to(self.device)
        self._filters = Filters().to(self.device)

    def clean(self, signals: NDArray[np.float64]) -> tuple[Tensor, list[Quality]]:
        """As `preprocessing.clean`: (B, T, 12) in mV at 100 Hz -> a tensor on the device, and the quality of each."""
        with torch.inference_mode():
            filtered = self._filters(self._put(signals))
            scaled = (filtered.float() - self.normalization.mean) / (self.normalization.std + preprocessing.STD_EPS)
            return scaled, quality.measure(filtered.cpu().numpy())

    def __call__(self, signal: Tensor | NDArray[np.float32], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, T, 12) from `clean`, (B, 2) age in years and sex -> probabilities (B, K)."""
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = self._network(self._put(signal), self._put(metadata)).cpu().numpy()
            return probabilities

    def embed(
        self, signal: Tensor | NDArray[np.float32], metadata: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The probabilities, and the features (B, F) that the classifier was given."""
        with torch.inference_mode():
            probabilities, features = self._network.embed(self._put(signal), self._put(metadata))
            return probabilities.cpu().numpy(), features.cpu().numpy()

    def _put(self, values: Tensor | NDArray[Any]) -> Tensor:
        """On the device, by way of pinned memory, so that the copy runs beside what the GPU is at."""
        tensor = torch.as_tensor(values)
        if tensor.device.type == self.device.type:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def require_gpu() -> None:
    """Raises EcgbatchError where torch finds no GPU."""
    if not torch.cuda.is_available():
        raise EcgbatchError("torch finds no CUDA device here: use device cpu")


# --- The network, a layer after the other ----------------------------------------------------------------------------


class WholeSequence(ParallelXLSTM):
    """`ParallelXLSTM` with all time steps at once in what is not quadratic in them.

    `slstm_scan` and `mlstm_scan` run the cells over time, from the first step to the last. A batch of B records of ten
    seconds takes about 12 MB of memory for each of them at an embedding of 128.
    """

    def __init__(
        self,
        config: NetworkConfig,
        slstm_scan: SLSTMScan,
        mlstm_scan: MLSTMScan,
        dropout: float = 0.3,
        classes: int = len(LABELS),
    ) -> None:
        super().__init__(config, dropout, classes)
        for layer in self.modules():
            if isinstance(layer, SLSTM):
                layer.scan = slstm_scan
            elif isinstance(layer, MLSTM):
                layer.scan = mlstm_scan

    def pooled(self, signal: Tensor) -> Tensor:
        x, _ = self.fused(patched(signal, self.config.patch).transpose(0, 1))
        return torch.cat([x.mean(0), self.maxima(x, self.config.span)], dim=-1)


def mlstm_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, memory: Tensor, n: Tensor, m: Tensor, length: int = 100
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `mlstm_chunk`, for any number of steps; a chunk is longer than on a CPU, for fewer launches."""
    hidden = []
    for start in range(0, q.shape[1], length):
        now = slice(start, start + length)
        h, memory, n, m = mlstm_chunk(q[:, now], k[:, now], v[:, now], i[:, now], f[:, now], memory, n, m)
        hidden.append(h)
    return torch.cat(hidden, 1), memory, n, m
