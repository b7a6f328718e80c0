# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"
"""The network and the cleaning on an NVIDIA GPU.

The parameters and most of the layers are those of `models.network`. What differs is the order of the work: there a
few time steps pass through all layers, which suits a CPU's caches; here an sLSTM layer sees all time steps of a batch
at once, so that a GPU gets few, large pieces, and the loop over time is one launch of a Triton kernel. Triton comes
with torch's builds for CUDA and needs no nvcc: it carries its assembler, and asks for a C compiler once, for its
launcher. Where the kernel cannot be built the loop is plain torch, with the same numbers.

None of this has run on a GPU yet, and its speed is not measured. All but the kernel is tested on a CPU; the kernel is
tested in Triton's interpreter, and it compiles for NVIDIA's architectures 8.0, 8.9 and 9.0. For that reason it is
compared with plain torch on each start, and not used where they disagree.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ecgbatch.models import preprocessing
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.filtering import Filters
from ecgbatch.models.network import HALVED_EPS, SLSTM, Branch, ParallelXLSTM, SLSTMBlock, patched, slstm_scan
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.weights.model import Weights
from ecgbatch.records import quality
from ecgbatch.records.quality import Quality
from ecgbatch.settings import EcgbatchError

try:
    import triton
    import triton.language as tl
except ImportError:  # as with torch's builds for a CPU
    triton = None

MLSTM_CHUNK = 100  # time steps; more than on a CPU, for fewer launches
TILE = 16  # records in one program of the kernel, the least that a product of tiles takes
SCAN_TOLERANCE = 1e-5

log = logging.getLogger(__name__)

Scan = Callable[[Tensor, Tensor], Tensor]
"""Gates (N, T, B, 4d) before the recurrent part, kernel (N, d, 4d) -> halved hidden (T, B, N, d)."""


class CudaNetwork:
    """The network and the cleaning on one device, which is a GPU but for tests.

    Raises EcgbatchError where torch finds no GPU. All arithmetic is in float32 without TF32, the filters' in float64.
    """

    def __init__(
        self, weights: Weights, config: NetworkConfig, normalization: Normalization, device: str = "cuda"
    ) -> None:
        self.device = torch.device(device)
        self.normalization = normalization
        scan: Scan = plain_scan
        if self.device.type == "cuda":
            require_gpu()
            if triton is not None:
                scan = checked(triton_scan, config, self.device)
        torch.set_float32_matmul_precision("highest")  # some environments turn TF32 on
        self._network = WholeSequence(config, scan)
        self._network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        self._network.eval().to(self.device)
        self._filters = Filters().to(self.device)

    def clean(self, signals: NDArray[np.float64]) -> tuple[Tensor, list[Quality]]:
        """As `preprocessing.clean`: (B, T, 12) in mV at 100 Hz -> a tensor on the device, and the quality of each."""
        with torch.inference_mode():
            filtered = self._filters(self._put(signals))
            scaled = (filtered.float() - self.normalization.mean) / (self.normalization.std + preprocessing.STD_EPS)
            return scaled, quality.measure(filtered.cpu().numpy())

    def __call__(self, signal: Tensor | NDArray[np.float32], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, T, 12) from `clean`, (B, 2) age in years and sex -> probabilities (B, 5)."""
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = self._network(self._put(signal), self._put(metadata)).cpu().numpy()
            return probabilities

    def _put(self, values: Tensor | NDArray[Any]) -> Tensor:
        """On the device, by way of pinned memory, so that the copy runs beside what the GPU is at."""
        tensor = torch.as_tensor(values)
        if tensor.device.type == self.device.type:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def require_gpu() -> None:
    """Raises EcgbatchError where torch finds no GPU."""
    if not torch.cuda.is_available():
        raise EcgbatchError("torch finds no CUDA device here: use device cpu")


# --- The network, an sLSTM layer after the other ----------------------------------------------------------------------


class WholeSequence(ParallelXLSTM):
    """`ParallelXLSTM` with all time steps at once in what is not quadratic in them. For inference.

    A batch of B records takes about 7 MB of memory for each of them at an embedding of 128.
    """

    def __init__(self, config: NetworkConfig, scan: Scan) -> None:
        super().__init__(config)
        self.scan = scan

    def pooled(self, signal: Tensor) -> Tensor:
        patches = patched(signal, self.config.patch)
        x = F.relu(self.embedding_norm(self.embedding(patches.transpose(0, 1))))  # (T, B, D)
        for slstm, mlstm in self.levels():
            x = (self.slstm_blocks_of(slstm, x) + in_chunks(mlstm, x)) / 2
        return torch.cat([x.mean(0), x.amax(0)], dim=-1)

    def levels(self) -> Iterable[tuple[Branch, Branch]]:
        if self.config.variant == "stacked":
            return [(self.slstm_branch, self.mlstm_branch)]
        return zip(cast(Iterable[Branch], self.slstm_blocks), cast(Iterable[Branch], self.mlstm_blocks), strict=True)

    def slstm_blocks_of(self, branch: Branch, x: Tensor) -> Tensor:
        for block in cast(Iterable[SLSTMBlock], branch.blocks):
            x = x + self.slstm(block.xlstm, block.xlstm_norm(x))
            x = x + block.ffn(block.ffn_norm(x))
        y: Tensor = branch.post_blocks_norm(x)
        return y

    def slstm(self, layer: SLSTM, x: Tensor) -> Tensor:
        """(T, B, D) -> (T, B, D); as `SLSTM.stream`, but for the scan."""
        steps, batch, _ = x.shape
        kernel, bias = layer.slstm_cell.folded()
        heads, dim, _ = kernel.shape
        bias_if, bias_zo = bias.chunk(2, dim=-1)
        weight_if = torch.cat([layer.fgate.weight, layer.igate.weight], dim=1).transpose(1, 2)  # (N, d, 2d)
        weight_zo = torch.cat([2 * layer.zgate.weight, layer.ogate.weight], dim=1).transpose(1, 2)

        def split(x: Tensor) -> Tensor:  # (T, B, D) -> (N, T * B, d)
            return x.reshape(-1, heads, dim).transpose(0, 1)

        gates_if = torch.baddbmm(bias_if, split(F.silu(layer.conv1d.stream(batch)(x))), weight_if)
        gates_zo = torch.baddbmm(bias_zo, split(x), weight_zo)
        gates = torch.cat([gates_if, gates_zo], dim=-1).view(heads, steps, batch, 4 * dim)
        return layer.group_norm.headwise(self.scan(gates, kernel), HALVED_EPS)


def in_chunks(branch: Branch, x: Tensor) -> Tensor:
    """(T, B, D) through a branch that carries its state from chunk to chunk."""
    advance = branch.stream(x.shape[1])
    return torch.cat([advance(chunk) for chunk in x.split(MLSTM_CHUNK)])


# --- The loop of the sLSTM over time ----------------------------------------------------------------------------------


def plain_scan(gates: Tensor, kernel: Tensor) -> Tensor:
    heads, dim, _ = kernel.shape
    zero = gates.new_zeros(heads, gates.shape[2], dim)
    hidden, _, _, _ = slstm_scan(gates, kernel, zero, zero, torch.full_like(zero, -math.inf))
    return hidden.transpose(1, 2)


def triton_scan(gates: Tensor, kernel: Tensor) -> Tensor:
    """As `plain_scan`, in one launch: a program has one head and a tile of records, and all time steps."""
    heads, steps, batch, _ = gates.shape
    dim = kernel.shape[1]
    hidden = gates.new_empty(steps, batch, heads, dim)
    width = max(TILE, triton.next_power_of_2(dim))
    slstm_kernel[heads, triton.cdiv(batch, TILE)](
        gates.contiguous(), kernel.contiguous(), hidden, steps, batch, DIM=dim, WIDTH=width, TILE=TILE
    )
    return hidden


def checked(scan: Scan, config: NetworkConfig, device: torch.device) -> Scan:
    """The scan, if it can be built here and gives what plain torch gives; else `plain_scan`, and a warning says why."""
    numbers = torch.Generator().manual_seed(0)
    heads, dim = config.heads, config.head_dim
    gates = 3 * torch.randn(heads, 100, TILE + 1, 4 * dim, generator=numbers).to(device)
    kernel = torch.randn(heads, dim, 4 * dim, generator=numbers).to(device) / math.sqrt(dim)
    try:
        difference = (scan(gates, kernel) - plain_scan(gates, kernel)).abs().max().item()
    except Exception as error:  # from Triton: no C compiler, no Python.h, too little shared memory, …
        log.warning("the sLSTM runs in plain torch, which is slower: its kernel cannot be built here: %s", error)
        return plain_scan
    if not difference <= SCAN_TOLERANCE:  # not a number is a disagreement, too
        log.warning("the sLSTM runs in plain torch, which is slower: its kernel is off by %.1e here", difference)
        return plain_scan
    return scan


if triton is not None:

    @triton.jit
    def sigmoid(x: tl.tensor) -> tl.tensor:
        return 1.0 / (1.0 + tl.exp(-x))

    @triton.jit
    def log_sigmoid(x: tl.tensor) -> tl.tensor:
        """min(x, 0) - log(1 + e), e = exp(-|x|), the logarithm as 2 artanh(e / (2 + e)).

        The GPU's own logarithm has an absolute error near 1, which would add up over the time steps.
        """
        e = tl.exp(-tl.abs(x))
        s = e / (2.0 + e)  # 0 to 1/3
        q = s * s
        series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13))))))
        return tl.minimum(x, 0.0) - 2.0 * s * series

    @triton.jit(do_not_specialize=["steps", "batch"])  # one build for every batch
    def slstm_kernel(
        gates: tl.tensor,
        kernel: tl.tensor,
        hidden: tl.tensor,
        steps: tl.tensor,
        batch: tl.tensor,
        DIM: tl.constexpr,  # noqa: N803
        WIDTH: tl.constexpr,  # noqa: N803
        TILE: tl.constexpr,  # noqa: N803
    ) -> None:
        """`models.network.slstm_scan` from its first step to its last; WIDTH is DIM filled up to a power of two."""
        head = tl.program_id(0)
        record = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
        column = tl.arange(0, WIDTH)[None, :]
        inside = (record < batch) & (column < DIM)

        row = tl.arange(0, WIDTH)[:, None]
        weights = kernel + (head * DIM + row) * 4 * DIM + column
        square = (row < DIM) & (column < DIM)
        weight_i = tl.load(weights, square, 0.0)
        weight_f = tl.load(weights + DIM, square, 0.0)
        weight_z = tl.load(weights + 2 * DIM, square, 0.0)
        weight_o = tl.load(weights + 3 * DIM, square, 0.0)

        inputs = gates + head.to(tl.int64) * steps * batch * 4 * DIM + record * 4 * DIM + column
        out = hidden + (record * tl.num_programs(0) + head) * DIM + column
        h = tl.full((TILE, WIDTH), 0.0, tl.float32)
        c = tl.full((TILE, WIDTH), 0.0, tl.float32)
        n = tl.full((TILE, WIDTH), float("-inf"), tl.float32)
        for _ in range(steps):
            i = tl.load(inputs, inside, 0.0) + tl.dot(h, weight_i, input_precision="ieee")
            f = tl.load(inputs + DIM, inside, 0.0) + tl.dot(h, weight_f, input_precision="ieee")
            z = tl.load(inputs + 2 * DIM, inside, 0.0) + tl.dot(h, weight_z, input_precision="ieee")
            o = tl.load(inputs + 3 * DIM, inside, 0.0) + tl.dot(h, weight_o, input_precision="ieee")
            novelty = i - (log_sigmoid(f) + n)
            c += (sigmoid(z) - 0.5 - c) * sigmoid(novelty)
            n = i - log_sigmoid(novelty)
            h = sigmoid(o) * c
            tl.store(out, h, inside)
            inputs += batch * 4 * DIM
            out += batch * tl.num_programs(0) * DIM
