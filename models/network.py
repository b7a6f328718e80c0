"""The parallel xLSTM: sLSTM and mLSTM blocks side by side on a twelve-lead ECG, in plain torch.

Beck et al., xLSTM: Extended Long Short-Term Memory (2024), arXiv:2405.04517. The mLSTM works chunk by chunk with
a carried state, and the whole network streams over time: a chunk passes through every layer before the next one
starts, so what is in work stays small and no tensor grows with the square of the time. All of it is differentiable.

Shapes: B records, T time steps (of a chunk), D embedding, I inner width of the mLSTM, N heads, d width of a head.
Inside, activations lie time first, (T, B, ·), so that a step of all records is one contiguous piece and the
heads of all records are one batch of matrices. Names of parameters are those of published checkpoints.
"""

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models.config import (
    CLASSIFIER_HIDDEN,
    CONV_WIDTH,
    LABELS,
    METADATA_DIM,
    METADATA_HIDDEN,
    QKV_BLOCK,
    NetworkConfig,
)

CHUNK = 20  # time steps; with 64 records what is in work fits the caches, and a worker process into 400 MB
NORM_EPS = 1e-5
HALVED_EPS = NORM_EPS / 4  # normalises halved values to what NORM_EPS makes of whole ones
MLSTM_EPS = 1e-6
LOG2E = 1 / math.log(2)
GROUP = 16  # blocks of four are multiplied as blocks of 16: a matrix library wastes less on those

Stream = Callable[[Tensor], Tensor]  # maps a chunk (T, B, ·) to a chunk and remembers what came before


class ParallelXLSTM(nn.Module):
    """An sLSTM and an mLSTM branch, their mean pooled over time, and a classifier that also sees age and sex."""

    def __init__(self, config: NetworkConfig, dropout: float = 0.3) -> None:
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
        self.metadata_net = nn.Sequential(nn.Linear(METADATA_DIM, METADATA_HIDDEN), nn.ReLU())
        self.features_dim = 2 * dim + METADATA_HIDDEN
        wide, narrow = CLASSIFIER_HIDDEN
        self.classifier = nn.Sequential(
            nn.Linear(self.features_dim, wide),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(wide, narrow),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(narrow, len(LABELS)),
        )

    def forward(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """(B, T, 12) filtered and normalised, (B, 2) age in years and sex -> (B, 5) probabilities."""
        return torch.sigmoid(self.logits(signal, metadata))

    def logits(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """As `forward`, before the sigmoid: (B, 5)."""
        logits: Tensor = self.classifier(self.features(signal, metadata))
        return logits

    def features(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """As `forward`, before the classifier: (B, 2D + 32)."""
        return torch.cat([self.pooled(signal), self.metadata_net(metadata)], dim=-1)

    def pooled(self, signal: Tensor) -> Tensor:
        """(B, T, 12) -> (B, 2D): mean, then maximum over time of the fused branches."""
        patches = patched(signal, self.config.patch)
        batch, steps, _ = patches.shape
        fuse = self.stream(batch)
        total = signal.new_zeros(batch, self.config.embedding_dim)
        highest = torch.full_like(total, -math.inf)
        for start in range(0, steps, CHUNK):
            chunk = patches[:, start : start + CHUNK].transpose(0, 1)
            x = fuse(F.relu(self.embedding_norm(self.embedding(chunk))))  # (T, B, D)
            total = total + x.sum(0)
            highest = torch.maximum(highest, x.amax(0))
        return torch.cat([total / steps, highest], dim=-1)

    def stream(self, batch: int) -> Stream:
        stacked = self.config.variant == "stacked"
        slstms = [self.slstm_branch] if stacked else cast(Iterable[Branch], self.slstm_blocks)
        mlstms = [self.mlstm_branch] if stacked else cast(Iterable[Branch], self.mlstm_blocks)
        levels = [(s.stream(batch), m.stream(batch)) for s, m in zip(slstms, mlstms)]

        def advance(x: Tensor) -> Tensor:
            for slstm, mlstm in levels:
                x = (slstm(x) + mlstm(x)) / 2
            return x

        return advance


def patched(signal: Tensor, patch: int) -> Tensor:
    """(B, T, 12) -> (B, T / patch, 12 patch). Samples left over after the last whole patch are not seen."""
    return signal.unfold(1, patch, patch).transpose(2, 3).flatten(2)


class Branch(nn.Module):
    """Residual blocks of one kind, one after the other, and a normalisation."""

    def __init__(self, config: NetworkConfig, kind: "type[SLSTMBlock | MLSTMBlock]", blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(kind(config, number, blocks) for number in range(blocks))
        self.post_blocks_norm = Norm(config.embedding_dim)

    def stream(self, batch: int) -> Stream:
        streams = [block.stream(batch) for block in cast(Iterable[SLSTMBlock | MLSTMBlock], self.blocks)]

        def advance(x: Tensor) -> Tensor:
            for block in streams:
                x = block(x)
            y: Tensor = self.post_blocks_norm(x)
            return y

        return advance


class Norm(nn.Module):
    """Layer normalisation without bias, that keeps its weight less one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, 1 + self.weight, eps=NORM_EPS)

    def headwise(self, x: Tensor, eps: float = NORM_EPS) -> Tensor:
        """(..., N, d) -> (..., N * d), each head normalised by itself."""
        x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        return (x * (1 + self.weight).view(x.shape[-2:])).flatten(-2)


class CausalConv(nn.Module):
    """A convolution over the last four steps, each channel by itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, CONV_WIDTH, groups=dim)

    def stream(self, batch: int) -> Stream:
        taps = self.conv.weight.squeeze(1).t().contiguous().unbind()  # 4 of (D,)
        bias = cast(Tensor, self.conv.bias)
        past = taps[0].new_zeros(CONV_WIDTH - 1, batch, len(taps[0]))

        def advance(x: Tensor) -> Tensor:
            nonlocal past
            seen = torch.cat([past, x])  # (3 + T, B, D)
            past = seen[-(CONV_WIDTH - 1) :]
            y = torch.addcmul(bias, seen[: len(x)], taps[0])
            for late, tap in enumerate(taps[1:], start=1):
                y = torch.addcmul(y, seen[late : late + len(x)], tap)
            return y

        return advance


# --- sLSTM: a scalar memory in each cell, with recurrent connections inside a head -----------------------------------


class SLSTMBlock(nn.Module):
    """x + sLSTM(norm x), then x + feed-forward(norm x)."""

    def __init__(self, config: NetworkConfig, number: int, blocks: int) -> None:
        super().__init__()
        self.xlstm_norm = Norm(config.embedding_dim)
        self.xlstm = SLSTM(config, number, blocks)
        self.ffn_norm = Norm(config.embedding_dim)
        self.ffn = FeedForward(config, blocks)

    def stream(self, batch: int) -> Stream:
        layer = self.xlstm.stream(batch)

        def advance(x: Tensor) -> Tensor:
            x = x + layer(self.xlstm_norm(x))
            y: Tensor = x + self.ffn(self.ffn_norm(x))
            return y

        return advance


class SLSTM(nn.Module):
    def __init__(self, config: NetworkConfig, number: int, blocks: int) -> None:
        super().__init__()
        dim, heads = config.embedding_dim, config.heads
        self.conv1d = CausalConv(dim)
        self.fgate = Headwise(dim, heads, dim)
        self.igate = Headwise(dim, heads, dim)
        self.zgate = Headwise(dim, heads, dim)
        self.ogate = Headwise(dim, heads, dim)
        self.slstm_cell = SLSTMCell(config, number, blocks)
        self.group_norm = Norm(dim)

    def stream(self, batch: int) -> Stream:
        convolve = self.conv1d.stream(batch)
        kernel, bias = self.slstm_cell.folded()
        heads, dim, _ = kernel.shape
        bias_if, bias_zo = bias.chunk(2, dim=-1)  # (N, 1, 2d) each
        # fgate feeds the input gate and igate the forget gate, as the published layer does
        weight_if = torch.cat([self.fgate.weight, self.igate.weight], dim=1).transpose(1, 2)  # (N, d, 2d)
        weight_zo = torch.cat([2 * self.zgate.weight, self.ogate.weight], dim=1).transpose(1, 2)
        h = c = kernel.new_zeros(heads, batch, dim)
        n = torch.full_like(c, -math.inf)

        def split(x: Tensor) -> Tensor:  # (T, B, D) -> (N, T * B, d)
            return x.reshape(-1, heads, dim).transpose(0, 1)

        def advance(x: Tensor) -> Tensor:
            nonlocal h, c, n
            gates_if = torch.baddbmm(bias_if, split(F.silu(convolve(x))), weight_if)
            gates_zo = torch.baddbmm(bias_zo, split(x), weight_zo)
            gates = torch.cat([gates_if, gates_zo], dim=-1)  # (N, T * B, 4d)
            out, h, c, n = slstm_scan(gates.view(heads, len(x), batch, -1), kernel, h, c, n)
            return self.group_norm.headwise(out.transpose(1, 2), HALVED_EPS)  # (T, B, N, d) -> (T, B, D)

        return advance


def slstm_scan(gates: Tensor, kernel: Tensor, h: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sLSTM step by step: gates (N, T, B, 4d) before the recurrent part -> halved hidden (T, N, B, d), state.

    Only the quotient of cell and normaliser (eq. 8-10) matters, and it is a running mean of z: with n the logarithm
    of the normaliser, the old mean keeps the share sigmoid(n + log f - i). So nothing can overflow, and the state
    needs no stabiliser of its own. c and h are kept halved, for tanh(z) / 2 = sigmoid(2z) - 1/2, where the
    sigmoid is five times faster than the tanh; `SLSTMCell.folded` doubles z and the recurrent weights accordingly.
    """
    half = gates.new_full([1], 0.5)  # of a number torch would make a tensor at each step
    hidden = []
    for inputs in gates.unbind(1):
        i, f, z, o = torch.baddbmm(inputs, h, kernel).chunk(4, dim=-1)  # (N, B, d) each
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

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel (N, d, 4d) and bias (N, 1, 4d) as `slstm_scan` takes them."""
        heads, four, dim = self._recurrent_kernel_.shape
        z_doubled = self._bias_.new_tensor([1.0, 1.0, 2.0, 1.0]).repeat_interleave(dim)
        kernel = self._recurrent_kernel_.transpose(1, 2) * (2 * z_doubled)
        bias = self._bias_.view(4, heads, dim).transpose(0, 1).reshape(heads, 1, four) * z_doubled
        return kernel, bias


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

    def stream(self, batch: int) -> Stream:
        layer = self.xlstm.stream(batch)

        def advance(x: Tensor) -> Tensor:
            return x + layer(self.xlstm_norm(x))

        return advance


class MLSTM(nn.Module):
    def __init__(self, config: NetworkConfig, blocks: int) -> None:
        super().__init__()
        dim, inner = config.embedding_dim, config.inner_dim
        self.heads = config.heads
        self.learnable_skip = nn.Parameter(torch.ones(inner))
        self.proj_up = projection_up(dim, 2 * inner)
        self.q_proj = Headwise(inner, inner // QKV_BLOCK, dim)
        self.k_proj = Headwise(inner, inner // QKV_BLOCK, dim)
        self.v_proj = Headwise(inner, inner // QKV_BLOCK, dim)
        self.conv1d = CausalConv(inner)
        self.mlstm_cell = MLSTMCell(inner, config.heads)
        self.proj_down = projection_down(inner, dim, blocks)

    def stream(self, batch: int) -> Stream:
        """Here q enters only by its products with k and by the gates, so that its weights are folded into theirs."""
        convolve = self.conv1d.stream(batch)
        heads, inner = self.heads, len(self.learnable_skip)
        dim = inner // heads
        weight_input, weight_gate = self.proj_up.weight.chunk(2)
        wq, wk, wv = self.q_proj.weight, self.k_proj.weight, self.v_proj.weight  # (I / 4, 4, 4)
        weight_k = grouped(wq.transpose(1, 2) @ wk / math.sqrt(dim))
        weight_v = grouped(wv)
        gate_conv, gate_input, gate_bias = self.mlstm_cell.folded(wq, wk, wv)
        memory = wq.new_zeros(batch * heads, dim, dim)
        n = wq.new_zeros(batch * heads, 1, dim)
        m = wq.new_full((batch * heads, 1), -math.inf)

        def split(x: Tensor) -> Tensor:  # (T * B, N * d) -> (B * N, T, d)
            return x.view(-1, batch * heads, dim).transpose(0, 1)

        def advance(x: Tensor) -> Tensor:
            nonlocal memory, n, m
            steps = len(x)
            inputs, gate = linear(x, weight_input), linear(x, weight_gate, "swish")
            conv = F.silu(convolve(inputs))
            inputs, rows = inputs.view(steps * batch, inner), conv.view(steps * batch, inner)
            gates = gate_bias + gate_conv @ rows.t() + gate_input @ inputs.t()  # (2N, T * B)
            i, f = gates.view(2, heads, steps, batch).permute(0, 3, 1, 2).reshape(2, batch * heads, steps)
            k, v = split(blockwise(rows, weight_k)), split(blockwise(inputs, weight_v))
            h, memory, n, m = mlstm_chunk(split(rows), k, v, i, f, memory, n, m)
            h = self.mlstm_cell.outnorm.headwise(h.transpose(0, 1).view(steps, batch, heads, dim))
            y: Tensor = self.proj_down(torch.addcmul(h, self.learnable_skip, conv) * gate)
            return y

        return advance


def mlstm_chunk(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, memory: Tensor, n: Tensor, m: Tensor
) -> tuple[Tensor, ...]:
    """One chunk of the mLSTM (eq. 19-27, appendix A.3): q, k, v (B * N, T, d), gates i, f (B * N, T) -> h, state.

    The state is the memory (B * N, d, d), the normaliser n (B * N, 1, d), both scaled by exp(-m), and m (B * N, 1).
    k comes scaled by 1 / sqrt(d). With F the running sum of log f in the chunk, what step s wrote has at step t the
    weight exp(F_t - F_s + i_s); all weights are taken relative to the largest, exp(m_t) with m_t = F_t + peak_t.
    Logarithms are to base 2: exp2 takes a quarter of the time of exp, a tenth where it underflows.
    """
    steps = i.shape[-1]
    forgotten = F.logsigmoid(f).cumsum(-1) * LOG2E
    written = i * LOG2E - forgotten
    peak = torch.maximum(m, written.detach().cummax(-1).values)
    future = written.new_full((steps, steps), -math.inf).triu(1)
    decay = torch.exp2(written.unsqueeze(1) + future - peak.unsqueeze(2))  # (B * N, T now, T written)
    carried = torch.exp2(m - peak).unsqueeze(2)  # (B * N, T, 1): what is left of the state
    m = forgotten + peak

    scores = (q @ k.transpose(1, 2)) * decay
    products = scores.sum(-1, keepdim=True) + carried * (q * n).sum(-1, keepdim=True)
    h = torch.baddbmm(carried * (q @ memory), scores, v)
    h = h / (torch.maximum(products.abs(), torch.exp2(-m).unsqueeze(2)) + MLSTM_EPS)

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

    def folded(self, wq: Tensor, wk: Tensor, wv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gates' weights on what q and k are made of (2N, I), on what v is made of (2N, I), and bias (2N, 1)."""
        weight = torch.cat([self.igate.weight, self.fgate.weight])  # (2N, 3I)
        of_q, of_k, of_v = (
            torch.einsum("gbo,boi->gbi", part.view(len(part), -1, QKV_BLOCK), w).flatten(1)
            for part, w in zip(weight.chunk(3, dim=1), (wq, wk, wv), strict=True)
        )
        return of_q + of_k, of_v, torch.cat([self.igate.bias, self.fgate.bias]).unsqueeze(1)


# --- Linear maps and how they start: as in the reference, Wang et al. 2019 and Nguyen & Salazar 2019 -----------------


class Headwise(nn.Module):
    """The weight of a block-diagonal map: (blocks, out, in)."""

    def __init__(self, width: int, blocks: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, width // blocks, width // blocks))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (5 * embedding_dim)))


def grouped(weight: Tensor) -> Tensor:
    """Blocks (I / 4, out, in) of four as transposed blocks of 16: (I / 16, 16 in, 16 out)."""
    per_group = GROUP // QKV_BLOCK
    blocks = weight.transpose(1, 2).view(-1, per_group, QKV_BLOCK, QKV_BLOCK)
    eye = torch.eye(per_group, dtype=weight.dtype, device=weight.device)
    return torch.einsum("gbio,bc->gbico", blocks, eye).reshape(-1, GROUP, GROUP)


def blockwise(rows: Tensor, weight: Tensor) -> Tensor:
    """(R, I) times a block-diagonal (I / 16, 16, 16) -> (R, I)."""
    blocks = rows.view(rows.shape[0], -1, GROUP).transpose(0, 1)
    return torch.bmm(blocks, weight).transpose(0, 1).flatten(1)


class Projection(nn.Module):
    """A linear map without bias."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "gelu": F.gelu, "swish": F.silu}


def linear(x: Tensor, weight: Tensor, activation: str = "none") -> Tensor:
    """(..., in) times a weight (out, in) -> (..., out), then one of ACTIVATIONS.

    Scoring on a CPU both are one call of oneDNN, by the operator that torch.compile takes: torch's own choice for the
    product, MKL, needs twice as long on AMD processors.
    """
    scoring = torch.is_inference_mode_enabled() and x.device.type == "cpu" and x.dtype == torch.float32
    if scoring and torch.backends.mkldnn.is_available():
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, activation, [], "none")
        return y
    return ACTIVATIONS[activation](F.linear(x, weight))


def projection_up(inputs: int, outputs: int) -> Projection:
    return Projection(inputs, outputs, std=math.sqrt(2 / (5 * inputs)))


def projection_down(inputs: int, outputs: int, blocks: int) -> Projection:
    return Projection(inputs, outputs, std=2 / (blocks * math.sqrt(outputs)))
