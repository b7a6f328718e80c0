# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"
"""The network and the cleaning on an NVIDIA GPU.

The layers are those of `models.network`. What differs is the order of the work: there a few time steps pass through all
layers, which suits a CPU's caches; here a layer sees all time steps of a batch at once, so that a GPU gets few, large
pieces, and the sLSTM's loop over time is one launch of a Triton function. Triton comes with torch's builds for CUDA and
needs no nvcc: it carries its assembler, and asks for a C compiler once, for its launcher. Where the function cannot be
built the loop is plain torch, with the same numbers.

None of this has run on a GPU yet, and its speed is not measured. All but the Triton function is tested on a CPU; that
function is tested in Triton's interpreter, and it compiles for NVIDIA's architectures 8.0, 8.9 and 9.0. For that reason
it is compared with plain torch on each start, and not used where they disagree.
"""

import logging
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgbatch.models import preprocessing
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.filtering import Filters
from ecgbatch.models.network import (
    MLSTM,
    SLSTM,
    MLSTMScan,
    ParallelXLSTM,
    SLSTMScan,
    mlstm_chunk,
    patched,
    slstm_scan,
)
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

TILE = 16  # records in one program of the loop, the least that a product of tiles takes
SCAN_TOLERANCE = 1e-5

log = logging.getLogger(__name__)


class CudaNetwork:
    """The network and the cleaning on one device, which is a GPU but for tests.

    Raises EcgbatchError where torch finds no GPU. All arithmetic is in float32 without TF32, the filters' in float64.
    """

    def __init__(
        self, weights: Weights, config: NetworkConfig, normalization: Normalization, device: str = "cuda"
    ) -> None:
        self.device = torch.device(device)
        self.normalization = normalization
        scan: SLSTMScan = slstm_scan
        if self.device.type == "cuda":
            require_gpu()
            if triton is not None:
                scan = checked(triton_scan, config, self.device)
        torch.set_float32_matmul_precision("highest")  # some environments turn TF32 on
        self._network = WholeSequence(config, scan, mlstm_in_chunks)
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


# --- The network, a layer after the other ----------------------------------------------------------------------------


class WholeSequence(ParallelXLSTM):
    """`ParallelXLSTM` with all time steps at once in what is not quadratic in them. For inference.

    `slstm_scan` and `mlstm_scan` run the cells over time, from the first step to the last. A batch of B records of ten
    seconds takes about 12 MB of memory for each of them at an embedding of 128.
    """

    def __init__(self, config: NetworkConfig, slstm_scan: SLSTMScan, mlstm_scan: MLSTMScan) -> None:
        super().__init__(config)
        for layer in self.modules():
            if isinstance(layer, SLSTM):
                layer.scan = slstm_scan
            elif isinstance(layer, MLSTM):
                layer.scan = mlstm_scan

    def pooled(self, signal: Tensor) -> Tensor:
        x, _ = self.fused(patched(signal, self.config.patch).transpose(0, 1))
        return torch.cat([x.mean(0), x.amax(0)], dim=-1)


def mlstm_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, memory: Tensor, n: Tensor, m: Tensor, length: int = 100
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `mlstm_chunk`, for any number of steps; a chunk is longer than on a CPU, for fewer launches."""
    hidden = []
    for start in range(0, q.shape[1], length):
        now = slice(start, start + length)
        h, memory, n, m = mlstm_chunk(q[:, now], k[:, now], v[:, now], i[:, now], f[:, now], memory, n, m)
        hidden.append(h)
    return torch.cat(hidden, 1), memory, n, m


# --- The loop of the sLSTM over time ----------------------------------------------------------------------------------


def triton_scan(
    gates: Tensor, recurrent: Tensor, h: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `slstm_scan`, in one launch: a program has one head and a tile of records, and all time steps."""
    heads, steps, batch, _ = gates.shape
    dim = recurrent.shape[1]
    hidden = gates.new_empty(steps, heads, batch, dim)
    state = torch.stack([h, c, n])  # what the loop begins with, and in its place what it ends with
    width = max(TILE, triton.next_power_of_2(dim))
    slstm_loop[heads, triton.cdiv(batch, TILE)](
        gates.contiguous(), recurrent.contiguous(), hidden, state, steps, batch, DIM=dim, WIDTH=width, TILE=TILE
    )
    h, c, n = state.unbind()
    return hidden, h, c, n


def checked(scan: SLSTMScan, config: NetworkConfig, device: torch.device) -> SLSTMScan:
    """The scan, if it can be built here and gives what plain torch gives; else `slstm_scan`, and a warning says why."""
    numbers = torch.Generator().manual_seed(0)
    heads, dim, batch = config.heads, config.head_dim, TILE + 1
    gates = 3 * torch.randn(heads, 100, batch, 4 * dim, generator=numbers).to(device)
    recurrent = torch.randn(heads, dim, 4 * dim, generator=numbers).to(device) / math.sqrt(dim)
    zero = gates.new_zeros(heads, batch, dim)
    start = zero, zero, torch.full_like(zero, -math.inf)
    try:
        pairs = zip(scan(gates, recurrent, *start), slstm_scan(gates, recurrent, *start), strict=True)
        difference = max((ours - plain).abs().max().nan_to_num(math.inf).item() for ours, plain in pairs)
    except Exception as error:  # from Triton: no C compiler, no Python.h, too little shared memory, …
        log.warning("the sLSTM runs in plain torch, which is slower: its Triton code cannot be built here: %s", error)
        return slstm_scan
    if difference > SCAN_TOLERANCE:
        log.warning("the sLSTM runs in plain torch, which is slower: its Triton code is off by %.1e here", difference)
        return slstm_scan
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
    def slstm_loop(
        gates: tl.tensor,
        recurrent: tl.tensor,
        hidden: tl.tensor,
        state: tl.tensor,
        steps: tl.tensor,
        batch: tl.tensor,
        DIM: tl.constexpr,  # noqa: N803
        WIDTH: tl.constexpr,  # noqa: N803
        TILE: tl.constexpr,  # noqa: N803
    ) -> None:
        """`models.network.slstm_scan` from its first step to its last; WIDTH is DIM filled up to a power of two."""
        head = tl.program_id(0)
        heads = tl.num_programs(0)
        record = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
        column = tl.arange(0, WIDTH)[None, :]
        inside = (record < batch) & (column < DIM)

        row = tl.arange(0, WIDTH)[:, None]
        weights = recurrent + (head * DIM + row) * 4 * DIM + column
        square = (row < DIM) & (column < DIM)
        weight_i = tl.load(weights, square, 0.0)
        weight_f = tl.load(weights + DIM, square, 0.0)
        weight_z = tl.load(weights + 2 * DIM, square, 0.0)
        weight_o = tl.load(weights + 3 * DIM, square, 0.0)

        inputs = gates + head.to(tl.int64) * steps * batch * 4 * DIM + record * 4 * DIM + column
        cell = (head * batch + record) * DIM + column
        size = heads * batch * DIM
        out = hidden + cell
        h = tl.load(state + cell, inside, 0.0)
        c = tl.load(state + size + cell, inside, 0.0)
        n = tl.load(state + 2 * size + cell, inside, 0.0)
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
            out += size
        tl.store(state + cell, h, inside)
        tl.store(state + size + cell, c, inside)
        tl.store(state + 2 * size + cell, n, inside)
