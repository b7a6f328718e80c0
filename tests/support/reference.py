"""Cleaning as training did it, and the parallel xLSTM in its plainest form: numpy in float64, step by step.

Slow, and written from the formulas of Beck et al., xLSTM (2024) alone: sLSTM eq. 8-18, mLSTM eq. 19-27 in the
quadratic form of appendix A.3. It is what the fast ways are measured against.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt, iirnotch
from scipy.special import erf

from ecgbatch.models.preprocessing import Normalization

Array = NDArray[np.float64]
Weights = dict[str, Array]


def clean(signals: Array, normalization: Normalization) -> NDArray[np.float32]:
    """(B, T, leads) in mV at 100 Hz, lead by lead."""
    band, notch = butter(3, [0.5 / 50, 40 / 50], btype="band"), iirnotch(50, 30, 100)
    leads = [[filtfilt(*notch, filtfilt(*band, lead)) for lead in signal.T] for signal in signals]
    filtered = np.array(leads).transpose(0, 2, 1).astype(np.float32)
    return (filtered - np.float32(normalization.mean)) / np.float32(normalization.std + 1e-8)


def sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def log_sigmoid(x: Array) -> Array:
    return -np.logaddexp(0.0, -x)


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def normalise(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def layer_norm(x: Array, weight: Array) -> Array:
    """The blocks' normalisation: the state_dict keeps weight - 1."""
    return normalise(x) * (1.0 + weight)


def headwise_norm(h: Array, weight: Array) -> Array:
    """(B, heads, T, dim) -> (B, T, heads * dim), each head normalised by itself."""
    batch, heads, steps, dim = h.shape
    return normalise(h).transpose(0, 2, 1, 3).reshape(batch, steps, heads * dim) * (1.0 + weight)


def causal_conv(x: Array, w: Weights, name: str) -> Array:
    """Each channel by itself: y[t] = bias + sum over j of weight[j] x[t - 3 + j]."""
    padded = np.pad(x, ((0, 0), (3, 0), (0, 0)))
    taps = [padded[:, j : j + x.shape[1]] * w[f"{name}.weight"][:, 0, j] for j in range(4)]
    return w[f"{name}.bias"] + sum(taps)


def headwise(x: Array, weight: Array) -> Array:
    """Block-diagonal product: weight (blocks, out, in), x (B, T, blocks * in)."""
    split = x.reshape(*x.shape[:2], weight.shape[0], weight.shape[2])
    return np.einsum("btni,noi->btno", split, weight).reshape(*x.shape[:2], -1)


def slstm_layer(x: Array, w: Weights, name: str) -> Array:
    batch, steps, _ = x.shape
    kernel = w[f"{name}.slstm_cell._recurrent_kernel_"]  # (heads, gates * out, in)
    heads, _, dim = kernel.shape
    bias = w[f"{name}.slstm_cell._bias_"].reshape(4, heads, dim)
    conv = silu(causal_conv(x, w, f"{name}.conv1d.conv"))
    # fgate feeds the input-gate slot and igate the forget-gate slot
    sources = (("fgate", conv), ("igate", conv), ("zgate", x), ("ogate", x))
    slots = [headwise(source, w[f"{name}.{gate}.weight"]) for gate, source in sources]
    inputs = np.stack(slots, 2).reshape(batch, steps, 4, heads, dim) + bias

    h, c, n = (np.zeros((batch, heads, dim)) for _ in range(3))
    m = np.full((batch, heads, dim), -np.inf)
    out = np.empty((batch, heads, steps, dim))
    for t in range(steps):
        recurrent = np.einsum("bhi,hoi->bho", h, kernel).reshape(batch, heads, 4, dim)
        i, f, z, o = (inputs[:, t] + recurrent.transpose(0, 2, 1, 3)).transpose(1, 0, 2, 3)
        m_new = np.maximum(i, log_sigmoid(f) + m)
        keep, add = np.exp(log_sigmoid(f) + m - m_new), np.exp(i - m_new)
        c, n, m = keep * c + add * np.tanh(z), keep * n + add, m_new
        h = sigmoid(o) * c / n
        out[:, :, t] = h
    return headwise_norm(out, w[f"{name}.group_norm.weight"])


def slstm_block(x: Array, w: Weights, name: str) -> Array:
    x = x + slstm_layer(layer_norm(x, w[f"{name}.xlstm_norm.weight"]), w, f"{name}.xlstm")
    up = layer_norm(x, w[f"{name}.ffn_norm.weight"]) @ w[f"{name}.ffn.proj_up.weight"].T
    gate, value = np.split(up, 2, axis=-1)
    return x + (gelu(gate) * value) @ w[f"{name}.ffn.proj_down.weight"].T


def mlstm_cell(q: Array, k: Array, v: Array, i: Array, f: Array) -> Array:
    """q, k, v (B, heads, T, dim), gate pre-activations i, f (B, heads, T) -> (B, heads, T, dim)."""
    steps, dim = q.shape[2:]
    forgotten = np.cumsum(log_sigmoid(f), -1)
    decay = forgotten[..., :, None] - forgotten[..., None, :] + i[..., None, :]  # (B, heads, to, from)
    decay = np.where(np.tri(steps, dtype=bool), decay, -np.inf)
    m = decay.max(-1, keepdims=True)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(dim) * np.exp(decay - m)
    normaliser = np.maximum(np.abs(scores.sum(-1, keepdims=True)), np.exp(-m)) + 1e-6
    return scores @ v / normaliser


def mlstm_block(x: Array, w: Weights, name: str, heads: int) -> Array:
    layer = f"{name}.xlstm"
    up = layer_norm(x, w[f"{name}.xlstm_norm.weight"]) @ w[f"{layer}.proj_up.weight"].T
    cell_in, gate = np.split(up, 2, axis=-1)
    conv = silu(causal_conv(cell_in, w, f"{layer}.conv1d.conv"))
    sources = (("q_proj", conv), ("k_proj", conv), ("v_proj", cell_in))
    qkv = [headwise(source, w[f"{layer}.{proj}.weight"]) for proj, source in sources]
    joined = np.concatenate(qkv, -1)
    i, f = (
        (joined @ w[f"{layer}.mlstm_cell.{g}.weight"].T + w[f"{layer}.mlstm_cell.{g}.bias"]).swapaxes(1, 2)
        for g in ("igate", "fgate")
    )
    q, k, v = (a.reshape(*a.shape[:2], heads, -1).transpose(0, 2, 1, 3) for a in qkv)
    h = headwise_norm(mlstm_cell(q, k, v, i, f), w[f"{layer}.mlstm_cell.outnorm.weight"])
    h = (h + w[f"{layer}.learnable_skip"] * conv) * silu(gate)
    return x + h @ w[f"{layer}.proj_down.weight"].T


def branch(x: Array, w: Weights, name: str, heads: int) -> Array:
    blocks = len({key.split(".")[name.count(".") + 2] for key in w if key.startswith(f"{name}.blocks.")})
    for number in range(blocks):
        block = f"{name}.blocks.{number}"
        x = slstm_block(x, w, block) if name.startswith("slstm") else mlstm_block(x, w, block, heads)
    return layer_norm(x, w[f"{name}.post_blocks_norm.weight"])


def pooled(signal: Array, w: Weights, heads: int, span: int = 0) -> Array:
    """(B, T, 12) -> (B, 2 * embedding): the branches' mean: its mean over time, then the mean of its spans' maxima."""
    x = signal @ w["embedding.weight"].T + w["embedding.bias"]
    x = np.maximum(normalise(x) * w["embedding_norm.weight"] + w["embedding_norm.bias"], 0.0)
    if "slstm_branch.post_blocks_norm.weight" in w:
        levels = [("slstm_branch", "mlstm_branch")]
    else:
        count = sum(key.startswith("slstm_blocks.") and "post_blocks" in key for key in w)
        levels = [(f"slstm_blocks.{level}", f"mlstm_blocks.{level}") for level in range(count)]
    for slstm, mlstm in levels:
        x = (branch(x, w, slstm, heads) + branch(x, w, mlstm, heads)) / 2
    return np.concatenate([x.mean(1), mean_of_maxima(x, span)], -1)


def mean_of_maxima(x: Array, span: int) -> Array:
    """(B, T, D) -> (B, D): of each span the maximum, the last span with what is left over as well; then the mean."""
    starts = range(0, x.shape[1] - span + 1, span) if 0 < span <= x.shape[1] else [0]
    ends = [*starts[1:], x.shape[1]]
    maxima = [x[:, start:end].max(1) for start, end in zip(starts, ends, strict=True)]
    return np.asarray(np.mean(maxima, axis=0))


def classify(features: Array, metadata: Array, w: Weights, reached: Sequence[Array] = ()) -> Array:
    """(B, 2 * embedding) and (B, 2), and what the leads reach, up and down, (B, 12) each -> probabilities (B, 5)."""
    about = np.maximum(metadata @ w["metadata_net.0.weight"].T + w["metadata_net.0.bias"], 0.0)
    x = np.concatenate([features, about, *reached], -1)
    for layer in ("classifier.0", "classifier.3"):
        x = np.maximum(x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"], 0.0)
    return sigmoid(x @ w["classifier.6.weight"].T + w["classifier.6.bias"])


def probabilities(
    signal: NDArray[np.float32],
    metadata: NDArray[np.float32],
    weights: dict[str, NDArray[np.float32]],
    heads: int = 4,
    patch: int = 1,
    span: int = 0,
    extremes: int = 0,
) -> Array:
    """(B, T, 12) and (B, 2) -> (B, 5), all in float64; what is left over after the last whole patch is not seen."""
    w = {key: value.astype(np.float64) for key, value in weights.items()}
    steps = signal.shape[1] // patch
    seen = signal[:, : steps * patch].astype(np.float64)
    reached = [mean_of_maxima(seen, extremes), -mean_of_maxima(-seen, extremes)] if extremes else []
    patches = seen.reshape(len(signal), steps, -1)
    return classify(pooled(patches, w, heads, span), metadata.astype(np.float64), w, reached)
