"""What the layers of the network have in common: normalisation, causal convolution, linear maps.

Shapes are those of `models.network`: B records, T time steps, D features, N heads, d width of a head.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models.config import CONV_WIDTH, QKV_BLOCK

NORM_EPS = 1e-5
GROUP = 16  # blocks of four are multiplied as blocks of 16: a matrix library wastes less on those


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

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(T, B, D) and the three steps before it -> (T, B, D) and its last three steps."""
        taps = self.conv.weight.squeeze(1).t().contiguous().unbind()  # 4 of (D,)
        steps = x.shape[0]
        seen = torch.cat([past, x])  # (3 + T, B, D)
        y = torch.addcmul(cast(Tensor, self.conv.bias), seen[:steps], taps[0])
        for late, tap in enumerate(taps[1:], start=1):
            y = torch.addcmul(y, seen[late : late + steps], tap)
        return y, seen[1 - CONV_WIDTH :]

    def nothing_before(self, batch: int) -> Tensor:
        """What stands for the steps before a record."""
        return self.conv.weight.new_zeros(CONV_WIDTH - 1, batch, len(self.conv.weight))


# --- Linear maps, that start as in the reference: Wang et al. 2019 and Nguyen & Salazar 2019 ------------------------


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
