"""The published way of scoring, in plain form: one record after the other, the formulas as they are written.

Each record is read by `wfdb.rdsamp` and filtered lead by lead; the mLSTM takes its quadratic form, a tensor of
time by time, and the sLSTM steps through time in Python, in torch with as many threads as torch likes. It is what
`ecgbatch` is measured against, and gives the same probabilities.
"""

import math
from pathlib import Path

import numpy as np
import torch
import wfdb
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt, iirnotch
from torch import Tensor
from torch.nn import functional as F

from models.config import LEADS, SAMPLING_RATE

Weights = dict[str, Tensor]


class PublishedNetwork:
    """The stacked network of a state_dict in the vanilla layout."""

    def __init__(self, weights: dict[str, NDArray[np.float32]], heads: int) -> None:
        self.weights = {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
        self.heads = heads

    @torch.no_grad()
    def __call__(self, signal: NDArray[np.float32], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 1000, 12) and (B, 2) -> (B, 5) probabilities."""
        w = self.weights
        x = F.linear(torch.from_numpy(signal), w["embedding.weight"], w["embedding.bias"])
        x = F.relu(F.layer_norm(x, x.shape[-1:], w["embedding_norm.weight"], w["embedding_norm.bias"]))
        slstm = mlstm = x
        for name in _blocks(w, "slstm_branch"):
            slstm = slstm_block(slstm, w, name)
        for name in _blocks(w, "mlstm_branch"):
            mlstm = mlstm_block(mlstm, w, name, self.heads)
        slstm = block_norm(slstm, w["slstm_branch.post_blocks_norm.weight"])
        mlstm = block_norm(mlstm, w["mlstm_branch.post_blocks_norm.weight"])
        x = (slstm + mlstm) / 2
        about = F.relu(F.linear(torch.from_numpy(metadata), w["metadata_net.0.weight"], w["metadata_net.0.bias"]))
        x = torch.cat([x.mean(1), x.amax(1), about], -1)
        for layer in ("classifier.0", "classifier.3"):
            x = F.relu(F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"]))
        return torch.sigmoid(F.linear(x, w["classifier.6.weight"], w["classifier.6.bias"])).numpy()


def read_and_clean(record: Path, mean: float, std: float) -> NDArray[np.float32]:
    """(1000, 12): the record, filtered lead by lead and normalised."""
    signal, fields = wfdb.rdsamp(str(record))
    names = [name.upper() for name in fields["sig_name"]]
    signal = signal[:, [names.index(lead.upper()) for lead in LEADS]]
    band, notch = butter(3, [0.5, 40.0], "bandpass", fs=SAMPLING_RATE), iirnotch(50.0, 30.0, SAMPLING_RATE)
    cleaned = np.empty_like(signal)
    for lead in range(len(LEADS)):
        cleaned[:, lead] = filtfilt(*notch, filtfilt(*band, signal[:, lead]))
    normalised: NDArray[np.float32] = (cleaned.astype(np.float32) - np.float32(mean)) / np.float32(std + 1e-8)
    return normalised


def _blocks(w: Weights, branch: str) -> list[str]:
    """The names of a branch's blocks, in order."""
    return sorted({".".join(key.split(".")[:3]) for key in w if key.startswith(f"{branch}.blocks.")})


def block_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], 1.0 + weight)


def headwise_norm(h: Tensor, weight: Tensor) -> Tensor:
    """(B, heads, T, dim) -> (B, T, heads * dim)."""
    batch, heads, steps, dim = h.shape
    return F.layer_norm(h, (dim,)).transpose(1, 2).reshape(batch, steps, heads * dim) * (1.0 + weight)


def causal_conv(x: Tensor, w: Weights, name: str) -> Tensor:
    padded = F.pad(x.transpose(1, 2), (3, 0))
    return F.conv1d(padded, w[f"{name}.weight"], w[f"{name}.bias"], groups=x.shape[-1]).transpose(1, 2)


def headwise(x: Tensor, weight: Tensor) -> Tensor:
    """X (B, T, blocks * in), weight (blocks, out, in)."""
    split = x.reshape(*x.shape[:2], weight.shape[0], weight.shape[2])
    return torch.einsum("btni,noi->btno", split, weight).reshape(*x.shape[:2], -1)


def slstm_block(x: Tensor, w: Weights, name: str) -> Tensor:
    x = x + slstm_layer(block_norm(x, w[f"{name}.xlstm_norm.weight"]), w, f"{name}.xlstm")
    up = F.linear(block_norm(x, w[f"{name}.ffn_norm.weight"]), w[f"{name}.ffn.proj_up.weight"])
    gate, value = up.chunk(2, -1)
    return x + F.linear(F.gelu(gate) * value, w[f"{name}.ffn.proj_down.weight"])


def slstm_layer(x: Tensor, w: Weights, name: str) -> Tensor:
    batch, steps, _ = x.shape
    kernel = w[f"{name}.slstm_cell._recurrent_kernel_"]  # (heads, gates * out, in)
    heads, _, dim = kernel.shape
    conv = F.silu(causal_conv(x, w, f"{name}.conv1d.conv"))
    sources = (("fgate", conv), ("igate", conv), ("zgate", x), ("ogate", x))
    slots = torch.stack([headwise(source, w[f"{name}.{gate}.weight"]) for gate, source in sources], 2)
    slots = slots.reshape(batch, steps, 4, heads, dim) + w[f"{name}.slstm_cell._bias_"].reshape(4, heads, dim)
    h = c = n = x.new_zeros(batch, heads, dim)
    m = x.new_full((batch, heads, dim), -math.inf)
    states = []
    for t in range(steps):
        recurrent = torch.einsum("bhi,hoi->bho", h, kernel).reshape(batch, heads, 4, dim)
        i, f, z, o = (slots[:, t] + recurrent.transpose(1, 2)).unbind(1)
        forgotten = m + F.logsigmoid(f)
        m = torch.maximum(i, forgotten)
        keep, add = torch.exp(forgotten - m), torch.exp(i - m)
        c = keep * c + add * torch.tanh(z)
        n = keep * n + add
        h = torch.sigmoid(o) * c / n
        states.append(h)
    return headwise_norm(torch.stack(states, 2), w[f"{name}.group_norm.weight"])


def mlstm_cell(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """q, k, v (B, heads, T, dim), gates i, f (B, heads, T) -> (B, heads, T, dim)."""
    steps, dim = q.shape[2:]
    forgotten = F.logsigmoid(f).cumsum(-1)
    decay = forgotten[..., :, None] - forgotten[..., None, :] + i[..., None, :]
    decay = decay.masked_fill(~torch.ones(steps, steps, dtype=torch.bool).tril(), -math.inf)
    m = decay.amax(-1, keepdim=True)
    scores = (q @ (k / math.sqrt(dim)).transpose(-1, -2)) * torch.exp(decay - m)
    normaliser = torch.maximum(scores.sum(-1, keepdim=True).abs(), torch.exp(-m)) + 1e-6
    return (scores / normaliser) @ v


def mlstm_block(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    layer = f"{name}.xlstm"
    up = F.linear(block_norm(x, w[f"{name}.xlstm_norm.weight"]), w[f"{layer}.proj_up.weight"])
    inner, gate = up.chunk(2, -1)
    conv = F.silu(causal_conv(inner, w, f"{layer}.conv1d.conv"))
    sources = (("q_proj", conv), ("k_proj", conv), ("v_proj", inner))
    qkv = [headwise(source, w[f"{layer}.{projection}.weight"]) for projection, source in sources]
    cell = f"{layer}.mlstm_cell"
    joined = torch.cat(qkv, -1)
    i, f = (
        F.linear(joined, w[f"{cell}.{g}.weight"], w[f"{cell}.{g}.bias"]).transpose(1, 2) for g in ("igate", "fgate")
    )
    q, k, v = (a.reshape(*a.shape[:2], heads, -1).transpose(1, 2) for a in qkv)
    h = headwise_norm(mlstm_cell(q, k, v, i, f), w[f"{cell}.outnorm.weight"])
    h = (h + w[f"{layer}.learnable_skip"] * conv) * F.silu(gate)
    return x + F.linear(h, w[f"{layer}.proj_down.weight"])
