"""The published way of scoring, in plain form: one record after the other, the formulas as they are written.

Each record is read by `wfdb.rdsamp` and filtered lead by lead. The network follows the public code of the PyTorch
package `xlstm` of NX-AI where there is no GPU: the sLSTM cell of the backend "vanilla", which steps through time in
Python, stacks the four states and the four gates of each step and keeps them all, and the mLSTM cell
"parallel_stabilized_simple", which makes several tensors of time by time. Its clamps of the gates are those of later
copies of that code. Its probabilities are those of `ecgbatch`, which is measured against it.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import wfdb
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt, iirnotch
from torch import Tensor
from torch.nn import functional as F

from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLING_RATE

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
    rows = h.transpose(1, 2).reshape(batch * steps, heads * dim)
    return F.group_norm(rows, heads, 1.0 + weight).view(batch, steps, heads * dim)


def causal_conv(x: Tensor, w: Weights, name: str) -> Tensor:
    """Pads both ends by three steps and cuts off what came of the later three."""
    weight = w[f"{name}.weight"]
    y = F.conv1d(x.transpose(2, 1), weight, w[f"{name}.bias"], padding=weight.shape[2] - 1, groups=x.shape[-1])
    return y[:, :, : 1 - weight.shape[2]].transpose(2, 1)


def headwise(x: Tensor, weight: Tensor) -> Tensor:
    """X (B, T, blocks * in), weight (blocks, out, in)."""
    split = x.view(*x.shape[:-1], weight.shape[0], -1)
    return torch.einsum("...hd,hod->...ho", split, weight).reshape(*x.shape[:-1], -1)


def slstm_block(x: Tensor, w: Weights, name: str) -> Tensor:
    x = x + slstm_layer(block_norm(x, w[f"{name}.xlstm_norm.weight"]), w, f"{name}.xlstm")
    up = F.linear(block_norm(x, w[f"{name}.ffn_norm.weight"]), w[f"{name}.ffn.proj_up.weight"])
    gate, value = up.chunk(2, -1)
    return x + F.linear(F.gelu(gate) * value, w[f"{name}.ffn.proj_down.weight"])


def slstm_layer(x: Tensor, w: Weights, name: str) -> Tensor:
    batch, steps, width = x.shape
    kernel = w[f"{name}.slstm_cell._recurrent_kernel_"]
    heads, _, dim = kernel.shape
    conv = F.silu(causal_conv(x, w, f"{name}.conv1d.conv"))
    sources = (("fgate", conv), ("igate", conv), ("zgate", x), ("ogate", x))
    gates = torch.cat([headwise(source, w[f"{name}.{gate}.weight"]) for gate, source in sources], -1)
    inputs = gates.view(batch, steps, 4, heads, dim).permute(1, 0, 2, 3, 4).reshape(steps, batch, 4 * width)
    h = slstm_cell(inputs, kernel, w[f"{name}.slstm_cell._bias_"])
    h = h.view(steps, batch, heads, dim).permute(1, 2, 0, 3)
    return headwise_norm(h, w[f"{name}.group_norm.weight"])


def slstm_cell(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Inputs (T, B, gates * width), kernel (heads, gates * out, in) -> (T, B, width); keeps all states and gates."""
    steps, batch, _ = inputs.shape
    heads, gates, dim = kernel.shape[0], kernel.shape[1] // kernel.shape[2], kernel.shape[2]
    all_gates = inputs.new_zeros(steps + 1, gates, batch, heads * dim)
    all_states = inputs.new_zeros(4, steps + 1, batch, heads * dim)
    states = all_states[:, 0].clone()
    for step, present in enumerate(inputs.unbind(0)):
        recurrent = states[0].reshape(batch, heads, 1, -1)
        recurrent = recurrent.matmul(kernel.transpose(1, 2).reshape(1, heads, dim, gates * dim))
        recurrent = recurrent.reshape(batch, heads, gates, -1).transpose(1, 2).reshape(batch, -1)
        states, all_gates[step] = slstm_step(present, recurrent, bias, states)
        all_states[:, step + 1] = states
    return all_states[0, 1:]


def slstm_step(present: Tensor, recurrent: Tensor, bias: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The states (4, B, width) after one step, and its gates."""
    raw = present + recurrent + bias
    _, c, n, m = states.view(4, states.shape[1], -1).unbind(0)
    i, f, z, o = raw.view(raw.shape[0], 4, -1).unbind(1)
    forgotten = m + F.logsigmoid(f)
    m = i if torch.all(n == 0.0) else torch.max(i, forgotten)
    out = torch.sigmoid(o)
    add = torch.minimum(torch.exp(i - m), torch.ones_like(i))
    keep = torch.minimum(torch.exp(forgotten - m), torch.ones_like(i))
    c = keep * c + add * torch.tanh(z)
    n = keep * n + add
    return torch.stack((out * c / n, c, n, m)), torch.stack((add, keep, z, out))


def mlstm_cell(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, causal: Tensor) -> Tensor:
    """q, k, v (B, heads, T, dim), gates i, f (B, heads, T, 1) -> (B, heads, T, dim)."""
    batch, heads, steps, dim = q.shape
    forgotten = torch.cat([q.new_zeros(batch, heads, 1, 1), F.logsigmoid(f).cumsum(-2)], -2)
    repeated = forgotten.repeat(1, 1, 1, steps + 1)
    between = repeated - repeated.transpose(-2, -1)
    decay = torch.where(causal, between[:, :, 1:, 1:], -math.inf) + i.transpose(-2, -1)
    m, _ = decay.max(-1, keepdim=True)
    decay = torch.exp(decay - m)
    scores = (q @ (k / math.sqrt(dim)).transpose(-2, -1)) * decay
    normaliser = torch.maximum(scores.sum(-1, keepdim=True).abs(), torch.exp(-m))
    return (scores / (normaliser + 1e-6)) @ v


def mlstm_block(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    layer = f"{name}.xlstm"
    up = F.linear(block_norm(x, w[f"{name}.xlstm_norm.weight"]), w[f"{layer}.proj_up.weight"])
    inner, gate = up.split(up.shape[-1] // 2, -1)
    conv = F.silu(causal_conv(inner, w, f"{layer}.conv1d.conv"))
    sources = (("q_proj", conv), ("k_proj", conv), ("v_proj", inner))
    qkv = [headwise(source, w[f"{layer}.{projection}.weight"]) for projection, source in sources]
    cell = f"{layer}.mlstm_cell"
    joined = torch.cat(qkv, -1)
    i, f = (
        F.linear(joined, w[f"{cell}.{g}.weight"], w[f"{cell}.{g}.bias"]).transpose(-1, -2).unsqueeze(-1)
        for g in ("igate", "fgate")
    )
    q, k, v = (a.view(*a.shape[:2], heads, -1).transpose(1, 2) for a in qkv)
    h = headwise_norm(mlstm_cell(q, k, v, i, f, _causal(x.shape[1])), w[f"{cell}.outnorm.weight"])
    h = (h + w[f"{layer}.learnable_skip"] * conv) * F.silu(gate)
    return x + F.linear(h, w[f"{layer}.proj_down.weight"])


@lru_cache(maxsize=1)
def _causal(steps: int) -> Tensor:
    """Which steps a step may look back on; the published model makes it once."""
    return torch.ones(steps, steps, dtype=torch.bool).tril()
