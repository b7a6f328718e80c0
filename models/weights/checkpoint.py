"""Reads Lightning checkpoints of the parallel xLSTM, strictly and without running anything that they hold."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import NetworkConfig
from ecgbatch.records.leads import LEADS
from ecgbatch.settings import EcgbatchError

Weights = dict[str, NDArray[np.float32]]

KERNEL = ".slstm_cell._recurrent_kernel_"
BIAS = ".slstm_cell._bias_"
GATES = 4
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""How files of torch.save start, now and before torch 1.6."""


def read_checkpoint(path: Path) -> tuple[NetworkConfig, Weights]:
    """The sizes of a checkpoint's network, found from its weights, and the weights in the canonical layout.

    Canonical is what training on a CPU writes: recurrent kernels (heads, gates * out, in), biases (gates, heads, dim).
    Raises EcgbatchError for a file that is no checkpoint, that holds more than tensors and plain values, or whose
    network is not a parallel xLSTM down to the last parameter.
    """
    weights = _canonical(_arrays(path, _state_dict(path, _load(path))))
    try:
        config = _config(weights)
        _check_shapes(weights, config)
    except EcgbatchError as error:
        raise EcgbatchError(f"{path}: {error}") from None
    return config, weights


def _load(path: Path) -> Any:
    import torch

    try:
        with path.open("rb") as file:
            start = file.read(4)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EcgbatchError(f"there is no file {path}") from None
    except pickle.UnpicklingError:
        if start == ZIP or start.startswith(PICKLE):
            raise EcgbatchError(
                f"{path} holds more than tensors and plain values, which could run code: refused"
            ) from None
        raise _no_checkpoint(path) from None
    except Exception:  # torch.load raises about anything for what it did not write
        raise _no_checkpoint(path) from None


def _no_checkpoint(path: Path) -> EcgbatchError:
    return EcgbatchError(f"{path} is no checkpoint: give a .ckpt file that Lightning wrote")


def _state_dict(path: Path, content: Any) -> dict[str, Any]:
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise _no_checkpoint(path)
    return dict(state)


def _arrays(path: Path, state: dict[str, Any]) -> Weights:
    import torch

    weights = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or not value.is_floating_point():
            raise EcgbatchError(f"{path}: {key} is no tensor of floating-point numbers")
        array = value.detach().to(torch.float32).numpy()
        if not np.isfinite(array).all():
            raise EcgbatchError(f"{path}: {key} holds values that are not finite")
        weights[key] = array
    return weights


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
    import torch

    from ecgbatch.models.network import ParallelXLSTM

    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in ParallelXLSTM(config).state_dict().items()}
    for key, shape in expected.items():
        if key not in weights:
            raise EcgbatchError(f"it lacks {key}, {_text(shape)} in {_described(config)}")
        if weights[key].shape != shape:
            raise EcgbatchError(
                f"{key} has the shape {_text(weights[key].shape)}, not {_text(shape)} as in {_described(config)}"
            )
    if unknown := [key for key in weights if key not in expected]:
        raise EcgbatchError(
            f"{unknown[0]}, {_text(weights[unknown[0]].shape)}, is no parameter of {_described(config)}"
        )


def _described(config: NetworkConfig) -> str:
    return (
        f"a {config.variant} network of embedding {config.embedding_dim}, {config.heads} heads, {config.blocks} blocks"
    )


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
