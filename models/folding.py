"""Weights as the network is computed with them, made of those that a checkpoint holds.

The gates of the sLSTM lie side by side, and what only follows from weights is computed once: the gates of the mLSTM are
linear in q, k and v, which are linear in the layer's inputs. numpy arrays and torch tensors alike are taken, by their
names within a layer (`fgate.weight`); tensors keep their gradients.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import QKV_BLOCK

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")


class SLSTMWeights(NamedTuple, Generic[Array]):
    """N heads of width d; the gates input, forget, cell and output in this order."""

    input_forget: Array
    """(N, d in, 2d out), on the convolved input."""
    cell_output: Array
    """(N, d in, 2d out), on the plain input."""
    bias: Array
    """(N, 4d)."""
    recurrent: Array
    """(N, d in, 4d out), on the last hidden state."""


class MLSTMWeights(NamedTuple, Generic[Array]):
    """G blocks of four features, I features in all, N heads."""

    query: Array
    """(G, 4 out, 4 in), on the convolved input."""
    key: Array
    """(G, 4 out, 4 in), on the convolved input, with the cell's factor 1 / sqrt(head width)."""
    query_key: Array
    """(G, 4, 4), the key on the convolved input where that itself stands for the query: their products are the same."""
    value: Array
    """(G, 4 out, 4 in), on the plain input."""
    gates_convolved: Array
    """(2N, I), input gates before forget gates, on the convolved input."""
    gates_plain: Array
    """(2N, I), on the plain input."""
    gates_bias: Array
    """(2N,)."""


def slstm(
    weights: Mapping[str, Array], heads: int, factors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> SLSTMWeights[Array]:
    """Of an sLSTM layer; each gate is multiplied by its factor.

    The layer's fgate feeds the cell's input gate and its igate the cell's forget gate.
    """
    slots = [weights[f"{gate}.weight"] for gate in ("fgate", "igate", "zgate", "ogate")]  # (N, d out, d in) each
    i, f, z, o = ((factor * slot).swapaxes(1, 2) for factor, slot in zip(factors, slots, strict=True))
    recurrent = weights["slstm_cell._recurrent_kernel_"]  # (N, 4d out, d in)
    bias = weights["slstm_cell._bias_"].reshape(4, heads, -1)
    by_gate = recurrent.reshape(heads, 4, -1, recurrent.shape[2])
    scaled = [(factor * bias[gate], factor * by_gate[:, gate]) for gate, factor in enumerate(factors)]
    return SLSTMWeights(
        _joined([i, f], 2),
        _joined([z, o], 2),
        _joined([each for each, _ in scaled], 1),
        _joined([each for _, each in scaled], 1).swapaxes(1, 2),
    )


def mlstm(weights: Mapping[str, Array], heads: int) -> MLSTMWeights[Array]:
    """Of an mLSTM layer."""
    query, key, value = (weights[f"{name}_proj.weight"] for name in "qkv")  # (G, 4 out, 4 in)
    blocks = query.shape[0]
    scaled_key = key / math.sqrt(blocks * QKV_BLOCK // heads)
    gates = _joined([weights[f"mlstm_cell.{gate}.weight"] for gate in ("igate", "fgate")], 0)  # (2N, 3I)
    by_block = gates.reshape(2 * heads, 3, blocks, QKV_BLOCK).swapaxes(0, 2)  # (G, 3, 2N, 4)

    def through(part: int, projection: Array) -> Array:  # the gates' weights on what is projected: (2N, I)
        return (by_block[:, part] @ projection).swapaxes(0, 1).reshape(2 * heads, -1)

    return MLSTMWeights(
        query,
        scaled_key,
        query.swapaxes(1, 2) @ scaled_key,
        value,
        through(0, query) + through(1, key),
        through(2, value),
        _joined([weights[f"mlstm_cell.{gate}.bias"] for gate in ("igate", "fgate")], 0),
    )


def _joined(parts: Sequence[Array], axis: int) -> Array:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis)
    import torch

    return torch.cat(list(parts), axis)
