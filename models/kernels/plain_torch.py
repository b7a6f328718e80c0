"""The network in plain torch on a CPU or another device, numpy arrays in and out."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.compiled import classes_of
from ecgbatch.models.network import ParallelXLSTM
from ecgbatch.models.weights.model import Weights

Array = NDArray[np.float32]


class TorchNetwork:
    """A network ready to score."""

    def __init__(self, weights: Weights, config: NetworkConfig, device: str = "cpu") -> None:
        self.device = device
        self._network = ParallelXLSTM(config, classes=classes_of(weights))
        self._network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        self._network.eval().to(device)

    def __call__(self, signal: Array, metadata: Array) -> Array:
        """(B, T, 12) filtered and normalised, (B, 2) age in years and sex -> (B, K) probabilities."""
        with torch.inference_mode():
            probabilities: Array = self._network(*self._put(signal, metadata)).cpu().numpy()
            return probabilities

    def embed(self, signal: Array, metadata: Array) -> tuple[Array, Array]:
        """The probabilities, and the features (B, F) that the classifier was given."""
        with torch.inference_mode():
            probabilities, features = self._network.embed(*self._put(signal, metadata))
            return probabilities.cpu().numpy(), features.cpu().numpy()

    def _put(self, *arrays: Array) -> Iterator[Tensor]:
        return (torch.from_numpy(part).to(self.device) for part in arrays)
