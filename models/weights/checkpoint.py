"""Reads Lightning checkpoints of the parallel xLSTM, strictly and without running anything that they hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.compiled import parameter_shapes
from ecgbatch.models.weights.model import Weights
from ecgbatch.models.weights.pickled import Tensor
from ecgbatch.models.weights.torch_file import TorchFile
from ecgbatch.records.leads import LEADS
from ecgbatch.settings import EcgbatchError

KERNEL = ".slstm_cell._recurrent_kernel_"
BIAS = ".slstm_cell._bias_"
GATES = 4
FLOATING = ("f2", "f4", "f8", "bfloat16")
MOST_PARAMETERS = 2**26
"""A hundred times as many as the published network has."""


def read_checkpoint(path: Path) -> tuple[NetworkConfig, Weights]:
    """The sizes of a checkpoint's network, found from its weights, and the weights in the canonical layout.

    Canonical is what training on a CPU writes: recurrent kernels (heads, gates * out, in), biases (gates, heads, dim).
    Raises EcgbatchError for a file that is no checkpoint, that holds more than tensors and plain values, or whose
    network is not a parallel xLSTM down to the last parameter.
    """
    with TorchFile(path) as file:
        state = _state_dict(path, file.content)
        weights = {key: _array(path, file, key, tensor) for key, tensor in state.items()}
    try:
        weights = _canonical(weights)
        config = _config(weights)
        _check_shapes(weights, config)
    except EcgbatchError as error:
        raise EcgbatchError(f"{path}: {error}") from None
    return config, weights


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise EcgbatchError(f"{path} is no checkpoint: it holds no state_dict, which Lightning writes")
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.storage.kind not in FLOATING:
            raise EcgbatchError(f"{path}: {_name(key)} is no tensor of floating-point numbers")
    if sum(tensor.size for tensor in state.values()) > MOST_PARAMETERS:
        raise EcgbatchError(f"{path}: its network has more than {MOST_PARAMETERS:,} parameters")
    return dict(state)


def _array(path: Path, file: TorchFile, key: str, tensor: Tensor) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite
        array = file.array(tensor).astype(np.float32)
    if not np.isfinite(array).all():
        raise EcgbatchError(f"{path}: {_name(key)} holds values that are not finite")
    return array


def _canonical(weights: Weights) -> Weights:
    """The weights with every sLSTM cell in the layout that training on a CPU writes.

    Training on a GPU writes kernels (heads, in, gates * out) and biases (heads, gates, dim). A kernel's shape tells the
    two layouts apart in every case, for gates * dim is never dim; a bias has the same shape in both and goes with
    its kernel. Each cell is judged by itself.
    """
    canonical = {key: np.ascontiguousarray(value) for key, value in weights.items()}
    for key, kernel in weights.items():
        if not key.endswith(KERNEL) or kernel.ndim != 3 or kernel.shape[2] != GATES * kernel.shape[1]:
            continue
        canonical[key] = np.ascontiguousarray(kernel.transpose(0, 2, 1))
        bias_key = key.removesuffix(KERNEL) + BIAS
        bias = weights.get(bias_key)
        if bias is not None and bias.size == kernel.shape[0] * kernel.shape[2]:
            canonical[bias_key] = bias.reshape(len(kernel), GATES, -1).transpose(1, 0, 2).flatten()
    return canonical


def _config(weights: Weights) -> NetworkConfig:
    blocks = {
        "stacked": _count(weights, "slstm_branch.blocks."),
        "hierarchical": _count(weights, "slstm_blocks."),
    }
    variant = "stacked" if blocks["stacked"] else "hierarchical"
    kernels = [value for key, value in weights.items() if key.endswith(KERNEL)]
    embedding = weights.get("embedding.weight")
    if not blocks[variant] or not kernels or embedding is None or embedding.ndim != 2:
        raise EcgbatchError("its network is no parallel xLSTM")
    patch = max(embedding.shape[1] // len(LEADS), 1)
    return NetworkConfig(variant, embedding.shape[0], kernels[0].shape[0], blocks[variant], patch)


def _count(weights: Weights, prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})


def _check_shapes(weights: Weights, config: NetworkConfig) -> None:
    """Raises EcgbatchError at the first parameter that is missing, of another shape, or too many."""
    expected = dict(parameter_shapes(config))
    for key, shape in expected.items():
        if key not in weights:
            raise EcgbatchError(f"it lacks {key}, {_text(shape)} in {_described(config)}")
        if weights[key].shape != shape:
            raise EcgbatchError(
                f"{key} has the shape {_text(weights[key].shape)}, not {_text(shape)} as in {_described(config)}"
            )
    if unknown := [key for key in weights if key not in expected]:
        raise EcgbatchError(
            f"{_name(unknown[0])}, {_text(weights[unknown[0]].shape)}, is no parameter of {_described(config)}"
        )


def _described(config: NetworkConfig) -> str:
    return (
        f"a {config.variant} network of embedding {config.embedding_dim}, {config.heads} heads, {config.blocks} blocks"
    )


def _name(key: str) -> str:
    """A parameter's name as a message shows it, whatever the file calls it."""
    return "".join(c if c.isprintable() else "?" for c in key[:100])


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
