"""The parallel xLSTM: sLSTM and mLSTM blocks side by side on a twelve-lead ECG, in plain torch.

Beck et al., xLSTM: Extended Long Short-Term Memory (2024), arXiv:2405.04517. The network streams over time: a chunk of
time steps passes through every layer before the next one starts, so that what is in work stays small and no tensor
grows with the square of the time. What a layer carries from chunk to chunk is its state: `layer(x, state)` gives the
output and the state after it, as torch's own LSTM does; without a state a record begins. All of it is differentiable.

Shapes: B records, T time steps (of a chunk), D embedding, I inner width of the mLSTM, N heads, d width of a head, K
classes. Inside, activations lie time first, (T, B, ·), so that a step of all records is one contiguous piece and the
heads of all records are one batch of matrices. Names of parameters are those of published checkpoints.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models import folding
from ecgbatch.models.config import (
    CLASSIFIER_HIDDEN,
    LABELS,
    METADATA_DIM,
    METADATA_HIDDEN,
    QKV_BLOCK,
    NetworkConfig,
)
from ecgbatch.models.folding import MLSTMWeights, SLSTMWeights
from ecgbatch.models.layers import (
    NORM_EPS,
    CausalConv,
    Headwise,
    Norm,
    blockwise,
    grouped,
    linear,
    projection_down,
    projection_up,
)

CHUNK = 20  # time steps; with 64 records what is in work fits the caches, and a worker process into 400 MB
HALVED_EPS = NORM_EPS / 4  # normalises halved values to what NORM_EPS makes of whole ones
MLSTM_EPS = 1e-6


class SLSTMState(NamedTuple):
    """What an sLSTM layer carries from chunk to chunk: weights folded once, which stay, and what it remembers."""

    weights: SLSTMWeights[Tensor]
    past: Tensor  # (3, B, D), the last inputs
    h: Tensor  # (N, B, d), hidden, halved
    c: Tensor  # (N, B, d), cell by normaliser, halved
    n: Tensor  # (N, B, d), the logarithm of the normaliser


class MLSTMState(NamedTuple):
    """What an mLSTM layer carries from chunk to chunk: weights folded once, which stay, and what it remembers."""

    weights: MLSTMWeights[Tensor]
    past: Tensor  # (3, B, I), the last inputs of the convolution
    memory: Tensor  # (B * N, d, d), scaled by exp(-m)
    n: Tensor  # (B * N, 1, d), the normaliser, scaled by exp(-m)
    m: Tensor  # (B * N, 1)


LayerState: TypeAlias = SLSTMState | MLSTMState
BranchState: TypeAlias = Sequence[LayerState | None]
NetworkState: TypeAlias = Sequence[tuple[BranchState | None, BranchState | None]]


class ParallelXLSTM(nn.Module):
    """An sLSTM and an mLSTM branch, their mean pooled over time, and a classifier that also sees age and sex."""

    def __init__(self, config: NetworkConfig, dropout: float = 0.3, classes: int = len(LABELS)) -> None:
        super().__init__()
        self.config = config
        dim = config.embedding_dim
        self.embedding = nn.Linear(config.inputs, dim)
        self.embedding_norm = nn.LayerNorm(dim)
        if config.variant == "stacked":
            self.slstm_branch = Branch(config, SLSTMBlock, config.blocks)
            self.mlstm_branch = Branch(config, MLSTMBlock, config.blocks)
        else:
            self.slstm_blocks = nn.ModuleList(Branch(config, SLSTMBlock, 1) for _ in range(config.blocks))
            self.mlstm_blocks = nn.ModuleList(Branch(config, MLSTMBlock, 1) for _ in range(config.blocks))
        self.maxima = mean_of_maxima
        self.metadata_net = nn.Sequential(nn.Linear(METADATA_DIM, METADATA_HIDDEN), nn.ReLU())
        wide, narrow = CLASSIFIER_HIDDEN
        self.classifier = nn.Sequential(
            nn.Linear(config.features_dim, wide),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(wide, narrow),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(narrow, classes),
        )

    def forward(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """(B, T, 12) filtered and normalised, (B, 2) age in years and sex -> (B, K) probabilities."""
        return torch.sigmoid(self.logits(signal, metadata))

    def embed(self, signal: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, and beside it the features."""
        features = self.features(signal, metadata)
        return torch.sigmoid(self.classifier(features)), features

    def logits(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """As `forward`, before the sigmoid: (B, K)."""
        logits: Tensor = self.classifier(self.features(signal, metadata))
        return logits

    def features(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """As `forward`, before the classifier: (B, F), F = `NetworkConfig.features_dim`."""
        seen = [self.pooled(signal), self.metadata_net(metadata)]
        if self.config.extremes:
            whole = signal.shape[1] - signal.shape[1] % self.config.patch
            seen += extremes(signal[:, :whole], self.config.extremes, self.maxima)
        return torch.cat(seen, dim=-1)

    def pooled(self, signal: Tensor) -> Tensor:
        """(B, T, 12) -> (B, 2D): mean over time of the fused branches, then the mean of the maxima of all spans."""
        patches = patched(signal, self.config.patch).transpose(0, 1)  # (T / patch, B, 12 patch)
        total = signal.new_zeros(signal.shape[0], self.config.embedding_dim)
        maxima, state = torch.zeros_like(total), None
        spans = self.config.spans(len(patches))
        for span in patches.split(spans):
            highest = torch.full_like(total, -math.inf)
            for chunk in span.split(CHUNK):
                x, state = self.fused(chunk, state)  # (T, B, D)
                total = total + x.sum(0)
                highest = torch.maximum(highest, x.amax(0))
            maxima = maxima + highest
        return torch.cat([total / len(patches), maxima / len(spans)], dim=-1)

    def fused(self, patches: Tensor, state: NetworkState | None = None) -> tuple[Tensor, NetworkState]:
        """(T, B, 12 patch) -> the mean of the branches (T, B, D) and the state after it."""
        x = F.relu(self.embedding_norm(self.embedding(patches)))
        after = []
        levels = self.levels()
        for (slstm, mlstm), (of_slstm, of_mlstm) in zip(levels, state or [(None, None)] * len(levels), strict=True):
            left, of_slstm = slstm(x, of_slstm)
            right, of_mlstm = mlstm(x, of_mlstm)
            x = (left + right) / 2
            after.append((of_slstm, of_mlstm))
        return x, after

    def levels(self) -> "list[tuple[Branch, Branch]]":
        """The sLSTM and the mLSTM branch of each level."""
        if self.config.variant == "stacked":
            return [(self.slstm_branch, self.mlstm_branch)]
        pairs = zip(cast(Iterable[Branch], self.slstm_blocks), cast(Iterable[Branch], self.mlstm_blocks), strict=True)
        return list(pairs)


def mean_of_maxima(x: Tensor, span: int) -> Tensor:
    """(T, B, D) -> (B, D): of each span of time steps the maximum, and of these the mean; see `NetworkConfig.spans`."""
    if span == 0:
        return x.amax(0)
    last = max(x.shape[0] // span - 1, 0) * span
    maxima = x[:last].reshape(last // span, span, x.shape[1], x.shape[2]).amax(1)
    return torch.cat([maxima, x[last:].amax(0, keepdim=True)]).mean(0)


def extremes(signal: Tensor, window: int, maxima: Callable[[Tensor, int], Tensor] = mean_of_maxima) -> list[Tensor]:
    """(B, T, 12) -> the largest and the smallest value of each lead, (B, 12) each: means of those of all windows.

    Without them the network hardly knows how high a wave is: the embedding is normalised at every time step. `maxima`
    is `mean_of_maxima`, or what does the same.
    """
    x = signal.transpose(0, 1)
    return [maxima(x, window), -maxima(-x, window)]


def patched(signal: Tensor, patch: int) -> Tensor:
    """(B, T, 12) -> (B, T / patch, 12 patch). Samples left over after the last whole patch are not seen."""
    return signal.unfold(1, patch, patch).transpose(2, 3).flatten(2)


class Branch(nn.Module):
    """Residual blocks of one kind, one after the other, and a normalisation."""

    def __init__(self, config: NetworkConfig, kind: "type[SLSTMBlock | MLSTMBlock]", blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(kind(config, number, blocks) for number in range(blocks))
        self.post_blocks_norm = Norm(config.embedding_dim)

    def forward(self, x: Tensor, state: BranchState | None = None) -> tuple[Tensor, BranchState]:
        """(T, B, D) -> (T, B, D) and the state after it, a block's each."""
        after = []
        for block, of_block in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            x, of_block = block(x, of_block)
            after.append(of_block)
        return self.post_blocks_norm(x), after


# --- sLSTM: a scalar memory in each cell, with recurrent connections inside a head -----------------------------------


class SLSTMBlock(nn.Module):
    """x + sLSTM(norm x), then x + feed-forward(norm x)."""

    def __init__(self, config: NetworkConfig, number: int, blocks: int) -> None:
        super().__init__()
        self.xlstm_norm = Norm(config.embedding_dim)
        self.xlstm = SLSTM(config, number, blocks)
        self.ffn_norm = Norm(config.embedding_dim)
        self.ffn = FeedForward(config, blocks)

    def forward(self, x: Tensor, state: SLSTMState | None = None) -> tuple[Tensor, SLSTMState]:
        """(T, B, D) -> (T, B, D) and the state after it."""
        y, state = self.xlstm(self.xlstm_norm(x), state)
        x = x + y
        return x + self.ffn(self.ffn_norm(x)), state


SLSTMScan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


class SLSTM(nn.Module):
    """Convolution, gates and cell; `scan` is what runs the cell over time: `slstm_scan`, or what does the same."""

    def __init__(self, config: NetworkConfig, number: int, blocks: int) -> None:
        super().__init__()
        dim, heads = config.embedding_dim, config.heads
        self.heads = heads
        self.scan: SLSTMScan = slstm_scan
        self.conv1d = CausalConv(dim)
        self.fgate = Headwise(dim, heads, dim)
        self.igate = Headwise(dim, heads, dim)
        self.zgate = Headwise(dim, heads, dim)
        self.ogate = Headwise(dim, heads, dim)
        self.slstm_cell = SLSTMCell(config, number, blocks)
        self.group_norm = Norm(dim)

    def start(self, batch: int) -> SLSTMState:
        """The state at the start of `batch` records."""
        weights = folding.slstm(dict(self.named_parameters()), self.heads, factors=(1, 1, 2, 1))
        recurrent = 2 * weights.recurrent  # the hidden state comes halved
        zero = recurrent.new_zeros(self.heads, batch, recurrent.shape[1])
        weights = weights._replace(recurrent=recurrent)
        return SLSTMState(weights, self.conv1d.nothing_before(batch), zero, zero, torch.full_like(zero, -math.inf))

    def forward(self, x: Tensor, state: SLSTMState | None = None) -> tuple[Tensor, SLSTMState]:
        """(T, B, D) -> (T, B, D) and the state after it."""
        steps, batch, _ = x.shape
        weights, past, h, c, n = state or self.start(batch)
        bias_if, bias_zo = weights.bias.unsqueeze(1).chunk(2, dim=-1)  # (N, 1, 2d) each
        convolved, past = self.conv1d(x, past)
        gates_if = torch.baddbmm(bias_if, self.by_head(F.silu(convolved)), weights.input_forget)
        gates_zo = torch.baddbmm(bias_zo, self.by_head(x), weights.cell_output)
        gates = torch.cat([gates_if, gates_zo], dim=-1).view(self.heads, steps, batch, -1)
        hidden, h, c, n = self.scan(gates, weights.recurrent, h, c, n)  # (T, N, B, d)
        y = self.group_norm.headwise(hidden.transpose(1, 2), HALVED_EPS)
        return y, SLSTMState(weights, past, h, c, n)

    def by_head(self, x: Tensor) -> Tensor:
        """(T, B, D) -> (N, T * B, d)."""
        return x.reshape(-1, self.heads, x.shape[2] // self.heads).transpose(0, 1)


def slstm_scan(
    gates: Tensor, recurrent: Tensor, h: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sLSTM step by step: gates (N, T, B, 4d) before the recurrent part -> halved hidden (T, N, B, d), state.

    Only the quotient of cell and normaliser (eq. 8-10) matters, and it is a running mean of z: with n the logarithm
    of the normaliser, the old mean keeps the share sigmoid(n + log f - i). So nothing can overflow, and the state
    needs no stabiliser of its own. c and h are kept halved, for tanh(z) / 2 = sigmoid(2z) - 1/2, where the
    sigmoid is five times faster than the tanh; `SLSTM.start` doubles z and the recurrent weights accordingly.
    """
    half = gates.new_full([1], 0.5)  # of a number torch would make a tensor at each step
    hidden = []
    for inputs in gates.unbind(1):
        i, f, z, o = torch.baddbmm(inputs, h, recurrent).chunk(4, dim=-1)  # (N, B, d) each
        lead = n + F.logsigmoid(f) - i
        c = torch.lerp(torch.sigmoid(z) - half, c, torch.sigmoid(lead))
        n = i + F.softplus(lead)
        h = torch.sigmoid(o) * c
        hidden.append(h)
    return torch.stack(hidden), h, c, n


class SLSTMCell(nn.Module):
    """Recurrent kernel (N, 4d out, d in) and bias (4, N, d), the gates in the order i, f, z, o."""

    def __init__(self, config: NetworkConfig, number: int, blocks: int) -> None:
        super().__init__()
        heads, dim = config.heads, config.head_dim
        self._recurrent_kernel_ = nn.Parameter(torch.zeros(heads, 4 * dim, dim))
        bias = torch.zeros(4, heads, dim)
        # forget gates from open to shut over the width of a head, later blocks opening later
        power = 0.3 + 1.3 * number / max(blocks - 1, 1)
        bias[1] = 5.0 - 12.0 * torch.linspace(0.0, 1.0, dim) ** power
        self._bias_ = nn.Parameter(bias.flatten())


class FeedForward(nn.Module):
    def __init__(self, config: NetworkConfig, blocks: int) -> None:
        super().__init__()
        self.proj_up = projection_up(config.embedding_dim, 2 * config.ffn_dim)
        self.proj_down = projection_down(config.ffn_dim, config.embedding_dim, blocks)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.proj_up.weight.chunk(2)
        y: Tensor = self.proj_down(linear(x, gate, "gelu") * linear(x, value))
        return y


# --- mLSTM: a matrix memory in each head, read and written for a whole chunk at once ---------------------------------


class MLSTMBlock(nn.Module):
    """x + mLSTM(norm x)."""

    def __init__(self, config: NetworkConfig, number: int, blocks: int) -> None:
        super().__init__()
        self.xlstm_norm = Norm(config.embedding_dim)
        self.xlstm = MLSTM(config, blocks)

    def forward(self, x: Tensor, state: MLSTMState | None = None) -> tuple[Tensor, MLSTMState]:
        """(T, B, D) -> (T, B, D) and the state after it."""
        y, state = self.xlstm(self.xlstm_norm(x), state)
        return x + y, state


MLSTMScan = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]
]


class MLSTM(nn.Module):
    """Convolution, gates and cell; `scan` is what runs the cell over time: `mlstm_chunk`, or what does the same.

    The query enters only by its products with the key and by the gates, so that its weights are folded into theirs
    and the convolved input takes its place.
    """

    def __init__(self, config: NetworkConfig, blocks: int) -> None:
        super().__init__()
        dim, inner = config.embedding_dim, config.inner_dim
        self.heads = config.heads
        self.scan: MLSTMScan = mlstm_chunk
        self.learnable_skip = nn.Parameter(torch.ones(inner))
        self.proj_up = projection_up(dim, 2 * inner)
        self.q_proj = Headwise(inner, inner // QKV_BLOCK, dim)
        self.k_proj = Headwise(inner, inner // QKV_BLOCK, dim)
        self.v_proj = Headwise(inner, inner // QKV_BLOCK, dim)
        self.conv1d = CausalConv(inner)
        self.mlstm_cell = MLSTMCell(inner, config.heads)
        self.proj_down = projection_down(inner, dim, blocks)

    def start(self, batch: int) -> MLSTMState:
        """The state at the start of `batch` records."""
        weights = folding.mlstm(dict(self.named_parameters()), self.heads)
        weights = weights._replace(key=grouped(weights.query_key), value=grouped(weights.value))
        dim = len(self.learnable_skip) // self.heads
        memory = weights.value.new_zeros(batch * self.heads, dim, dim)
        m = memory.new_full((batch * self.heads, 1), -math.inf)
        return MLSTMState(weights, self.conv1d.nothing_before(batch), memory, memory[:, :1], m)

    def forward(self, x: Tensor, state: MLSTMState | None = None) -> tuple[Tensor, MLSTMState]:
        """(T, B, D) -> (T, B, D) and the state after it."""
        steps, batch, _ = x.shape
        weights, past, memory, n, m = state or self.start(batch)
        heads, inner = self.heads, len(self.learnable_skip)
        weight_input, weight_gate = self.proj_up.weight.chunk(2)
        inputs, gate = linear(x, weight_input), linear(x, weight_gate, "swish")
        convolved, past = self.conv1d(inputs, past)
        convolved = F.silu(convolved)
        plain, rows = inputs.view(steps * batch, inner), convolved.view(steps * batch, inner)
        gates = weights.gates_bias.unsqueeze(1) + weights.gates_convolved @ rows.t() + weights.gates_plain @ plain.t()
        i, f = gates.view(2, heads, steps, batch).permute(0, 3, 1, 2).reshape(2, batch * heads, steps)
        q = self.by_head(rows, batch)
        k, v = self.by_head(blockwise(rows, weights.key), batch), self.by_head(blockwise(plain, weights.value), batch)
        h, memory, n, m = self.scan(q, k, v, i, f, memory, n, m)  # (B * N, T, d)
        h = self.mlstm_cell.outnorm.headwise(h.transpose(0, 1).view(steps, batch, heads, -1))
        y = self.proj_down(torch.addcmul(h, self.learnable_skip, convolved) * gate)
        return y, MLSTMState(weights, past, memory, n, m)

    def by_head(self, rows: Tensor, batch: int) -> Tensor:
        """(T * B, I) -> (B * N, T, d)."""
        return rows.view(-1, batch * self.heads, rows.shape[1] // self.heads).transpose(0, 1)


def mlstm_chunk(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, memory: Tensor, n: Tensor, m: Tensor, eps: float = MLSTM_EPS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One chunk of the mLSTM (eq. 19-27, appendix A.3): q, k, v (B * N, T, d), gates i, f (B * N, T) -> h, state.

    The state is the memory (B * N, d, d), the normaliser n (B * N, 1, d), both scaled by exp(-m), and m (B * N, 1).
    k comes scaled by 1 / sqrt(d). With F the running sum of log f in the chunk, what step s wrote has at step t the
    weight exp(F_t - F_s + i_s); all weights are taken relative to the largest, exp(m_t) with m_t = F_t + peak_t.
    Logarithms are to base 2: exp2 takes a quarter of the time of exp, a tenth where it underflows.
    """
    steps = i.shape[-1]
    log2_e = 1 / math.log(2)
    forgotten = F.logsigmoid(f).cumsum(-1) * log2_e
    written = i * log2_e - forgotten
    peak = torch.maximum(m, written.detach().cummax(-1)[0])
    future = written.new_full((steps, steps), -math.inf).triu(1)
    decay = torch.exp2(written.unsqueeze(1) + future - peak.unsqueeze(2))  # (B * N, T now, T written)
    carried = torch.exp2(m - peak).unsqueeze(2)  # (B * N, T, 1): what is left of the state
    m = forgotten + peak

    scores = (q @ k.transpose(1, 2)) * decay
    products = scores.sum(-1, keepdim=True) + carried * (q * n).sum(-1, keepdim=True)
    h = torch.baddbmm(carried * (q @ memory), scores, v)
    h = h / (torch.maximum(products.abs(), torch.exp2(-m).unsqueeze(2)) + eps)

    k = k * decay[:, -1].unsqueeze(2)
    memory = torch.addcmul(k.transpose(1, 2) @ v, carried[:, -1:], memory)
    n = carried[:, -1:] * n + k.sum(1, keepdim=True)
    return h, memory, n, m[:, -1:]


class MLSTMCell(nn.Module):
    def __init__(self, inner: int, heads: int) -> None:
        super().__init__()
        self.igate = nn.Linear(3 * inner, heads)
        self.fgate = nn.Linear(3 * inner, heads)
        self.outnorm = Norm(inner)
        nn.init.zeros_(self.igate.weight)
        nn.init.normal_(self.igate.bias, std=0.1)
        nn.init.zeros_(self.fgate.weight)
        self.fgate.bias.data = torch.linspace(3.0, 6.0, heads)
