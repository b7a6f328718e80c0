"""The golden numbers: the rule that makes the weights, and what the reference gives on eight records of PTB-XL.

The reference ran in float64. Float32 has to stay within 1e-5 of it in probability.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.compiled import parameter_shapes
from ecgbatch.models.network import ParallelXLSTM

torch.set_num_threads(1)  # on a busy machine several spend their time waiting for each other

Weights = dict[str, NDArray[np.float32]]

TOLERANCE = 1e-5

CONFIGS = {
    "stacked128": NetworkConfig("stacked", 128),
    "stacked64": NetworkConfig("stacked", 64),
    "hierarchical128": NetworkConfig("hierarchical", 128),
}

ECG_IDS = (1, 138, 157, 292, 456, 2000, 12722, 20045)
METADATA = np.array(
    [[56.0, 1.0], [74.0, 1.0], [74.0, 1.0], [69.0, 1.0], [61.0, 0.0], [65.0, 0.0], [85.0, 1.0], [70.0, 0.0]], np.float32
)
"""Age in years and sex of the eight records."""

PROBABILITIES = {
    "stacked128": np.array(
        [
            [0.20741294, 0.71493633, 0.77719190, 0.24284586, 0.43046614],
            [0.20831849, 0.77018698, 0.78630850, 0.20474231, 0.42719958],
            [0.20044508, 0.72639755, 0.76985191, 0.20838452, 0.42400143],
            [0.19690723, 0.71333999, 0.77285522, 0.22737402, 0.49712808],
            [0.19576063, 0.71028480, 0.73486025, 0.23565217, 0.41355964],
            [0.16202060, 0.72634879, 0.73353274, 0.17571256, 0.46224807],
            [0.16423854, 0.72328926, 0.77801533, 0.21793635, 0.37917077],
            [0.18450501, 0.77469986, 0.72642002, 0.19821426, 0.45401970],
        ]
    ),
    "stacked64": np.array(
        [
            [0.32082853, 0.90856329, 0.74544646, 0.42108374, 0.48829533],
            [0.28546810, 0.88649057, 0.80953072, 0.46578927, 0.40845067],
            [0.37931621, 0.89874377, 0.77983795, 0.45844076, 0.45682327],
            [0.34345756, 0.90511510, 0.74476956, 0.39165384, 0.50629052],
            [0.38500940, 0.87264309, 0.74310640, 0.39871484, 0.49242830],
            [0.38764781, 0.92193821, 0.75635007, 0.46021077, 0.43888618],
            [0.28048935, 0.91854011, 0.81868288, 0.43048562, 0.47311685],
            [0.36355066, 0.90273035, 0.82019509, 0.46470451, 0.41972006],
        ]
    ),
    "hierarchical128": np.array(
        [
            [0.24546716, 0.64547833, 0.72155376, 0.24713411, 0.41518802],
            [0.26652278, 0.75868495, 0.71970307, 0.22371579, 0.43830067],
            [0.22277294, 0.67900505, 0.71402375, 0.24061203, 0.43750133],
            [0.25578785, 0.70814648, 0.68267207, 0.20703137, 0.45599700],
            [0.29192842, 0.72895208, 0.68417432, 0.22158000, 0.32392999],
            [0.26465450, 0.73999504, 0.64350370, 0.24951195, 0.36078163],
            [0.24222503, 0.68287304, 0.75949698, 0.26478045, 0.42400475],
            [0.28372908, 0.71434457, 0.66173453, 0.27205684, 0.36707188],
        ]
    ),
}
"""NORM, MI, STTC, CD, HYP of the eight records."""


def shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's parameters."""
    return dict(parameter_shapes(config))


def golden_weights(config: NetworkConfig) -> Weights:
    """Normal numbers from a generator seeded by the CRC-32 of the parameter's name, scaled by what it is.

    Matrices by 1 / sqrt(fan-in), recurrent kernels by half of that, the metadata's by 0.02; vectors by 0.3, but
    normalisation weights and the learnable skip by 0.2 around 0.5, and sLSTM biases not at all.
    """
    return {key: _golden(key, shape) for key, shape in shapes(config).items()}


def _golden(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    factor, offset = 1 / np.sqrt(shape[-1]), 0.0
    if key.endswith("_bias_"):
        factor = 1.0
    elif key.endswith("_recurrent_kernel_"):
        factor *= 0.5
    elif key.endswith("metadata_net.0.weight"):
        factor = 0.02
    elif len(shape) == 1:
        factor, offset = (0.2, 0.5) if key.endswith(("norm.weight", "learnable_skip")) else (0.3, 0.0)
    return (normal * factor + offset).astype(np.float32)


def network(config: NetworkConfig, weights: Weights) -> ParallelXLSTM:
    """The network in torch with these weights, ready to score."""
    made = ParallelXLSTM(config)
    made.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()}, strict=True)
    return made.eval()


def as_trained_on_gpu(weights: Weights, config: NetworkConfig) -> Weights:
    """The weights as training on a GPU stores them: kernels (heads, in, gates * out), biases (heads, gates, dim)."""
    stored = dict(weights)
    for key, value in weights.items():
        if key.endswith("_recurrent_kernel_"):
            stored[key] = value.transpose(0, 2, 1).copy()
        elif key.endswith("slstm_cell._bias_"):
            stored[key] = value.reshape(4, config.heads, -1).transpose(1, 0, 2).flatten()
    return stored


def write_checkpoint(path: Path, weights: Weights, **more: Any) -> Path:
    """A checkpoint as Lightning writes it."""
    content = {
        "epoch": 6,
        "global_step": 3738,
        "pytorch-lightning_version": "2.5.5",
        "state_dict": {key: torch.from_numpy(value) for key, value in weights.items()},
        "hyper_parameters": {"config": {"input_shape": (1000, 12), "num_classes": 5, "dropout": 0.3}},
    }
    torch.save(content | more, path)
    return path
