# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"
"""The loop of the sLSTM over time on an NVIDIA GPU: one launch of a Triton function forwards, one backwards.

Triton comes with torch's builds for CUDA and needs no nvcc: it carries its assembler, and asks for a C compiler once,
for its launcher. Where a function cannot be built the loop is plain torch, with the same numbers. Each is compared with
plain torch when it is first wanted, and not used where they disagree.

A program has one head and TILE records, and all time steps: the state of the cell stays in its registers.
"""

import logging
import math
from typing import Any

import torch
from torch import Tensor

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.network import SLSTMScan, slstm_scan

try:
    import triton
    import triton.language as tl
except ImportError:  # as with torch's builds for a CPU
    triton = None

TILE = 16  # the least that a product of tiles takes
SCAN_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 3e-3  # relative to the largest: a training multiplies in TF32

log = logging.getLogger(__name__)

Scanned = tuple[Tensor, Tensor, Tensor, Tensor]


def triton_scan(gates: Tensor, recurrent: Tensor, h: Tensor, c: Tensor, n: Tensor) -> Scanned:
    """As `slstm_scan`, in one launch; differentiable, with one more."""
    if torch.is_grad_enabled():
        scanned: Scanned = Scan.apply(gates, recurrent, h, c, n)  # type: ignore[no-untyped-call]
        return scanned
    hidden, (h, c, n), _ = _forward(gates, recurrent, h, c, n, keep=False)
    return hidden, h, c, n


class Scan(torch.autograd.Function):
    """The scan that keeps what its gradient needs: the gates with their recurrent part, and the cells of each step."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, recurrent: Tensor, h: Tensor, c: Tensor, n: Tensor) -> Scanned:
        hidden, (last_h, last_c, last_n), kept = _forward(gates, recurrent, h, c, n, keep=True)
        ctx.save_for_backward(recurrent, h, hidden, *kept)
        return hidden, last_h, last_c, last_n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        recurrent, h, hidden, whole, cells = ctx.saved_tensors
        heads, steps, batch, _ = whole.shape
        dim = recurrent.shape[1]
        of_hidden, *of_state = (part.contiguous() for part in gradients)
        states = torch.stack(of_state)  # the gradient of the last state, and in its place that of the first
        of_gates = torch.empty_like(whole)
        slstm_loop_back[heads, triton.cdiv(batch, TILE)](
            whole, recurrent.contiguous(), cells, of_hidden, of_gates, states, steps, batch, **_sizes(dim)
        )
        before = torch.cat([h.unsqueeze(0), hidden[:-1]])  # (T, N, B, d), what each step began with
        rows = before.transpose(0, 1).reshape(heads, steps * batch, dim)
        of_recurrent = rows.transpose(1, 2) @ of_gates.view(heads, steps * batch, 4 * dim)
        return of_gates, of_recurrent, *states.unbind()


def _forward(
    gates: Tensor, recurrent: Tensor, h: Tensor, c: Tensor, n: Tensor, keep: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Hidden (T, N, B, d), the last state (3, N, B, d), and what is kept: whole gates, and cells (1 + T, 2, N, B, d).

    The cells, c and n, are those before the first step and after each.
    """
    heads, steps, batch, _ = gates.shape
    dim = recurrent.shape[1]
    hidden = gates.new_empty(steps, heads, batch, dim)
    states = torch.stack([h, c, n])  # what the loop begins with, and in its place what it ends with
    whole = torch.empty_like(gates, memory_format=torch.contiguous_format) if keep else gates.new_empty(1)
    cells = torch.stack([c, n]).expand(1 + steps, -1, -1, -1, -1).contiguous() if keep else gates.new_empty(1)
    slstm_loop[heads, triton.cdiv(batch, TILE)](
        gates.contiguous(), recurrent.contiguous(), hidden, states, whole, cells, steps, batch, **_sizes(dim), KEEP=keep
    )
    return hidden, states, (whole, cells)


def _sizes(dim: int) -> dict[str, int]:
    """WIDTH is DIM filled up to a power of two."""
    return {"DIM": dim, "WIDTH": max(TILE, triton.next_power_of_2(dim)), "TILE": TILE}


# --- Whether it can be used here --------------------------------------------------------------------------------------


def fastest_scan(config: NetworkConfig, device: torch.device, gradient: bool = False) -> SLSTMScan:
    """The Triton scan on a GPU where it can be used, and plain torch elsewhere; with `gradient` one to train with."""
    if device.type != "cuda" or triton is None:
        return slstm_scan
    return checked(triton_scan, config, device, gradient)


def checked(scan: SLSTMScan, config: NetworkConfig, device: torch.device, gradient: bool = False) -> SLSTMScan:
    """The scan, if it can be built here and gives what plain torch gives in float64, as its gradient must, if wanted.

    Else `slstm_scan`, and a warning says why.
    """
    example = _example(config, device)
    try:
        with torch.no_grad():
            difference = _largest(scan(*example), slstm_scan(*(part.double() for part in example)))
        of_gradients = _gradient_difference(scan, example) if gradient else 0.0
    except Exception as error:  # from Triton: no C compiler, no Python.h, too little shared memory, …
        log.warning("the sLSTM runs in plain torch, which is slower: its Triton code cannot be built here: %s", error)
        return slstm_scan
    if difference > SCAN_TOLERANCE or of_gradients > GRADIENT_TOLERANCE:
        worst = max(difference, of_gradients)
        log.warning("the sLSTM runs in plain torch, which is slower: its Triton code is off by %.1e here", worst)
        return slstm_scan
    return scan


def _example(config: NetworkConfig, device: torch.device) -> tuple[Tensor, ...]:
    numbers = torch.Generator().manual_seed(0)
    heads, dim, batch = config.heads, config.head_dim, TILE + 1
    gates = 3 * torch.randn(heads, 100, batch, 4 * dim, generator=numbers).to(device)
    recurrent = torch.randn(heads, dim, 4 * dim, generator=numbers).to(device) / math.sqrt(dim)
    zero = gates.new_zeros(heads, batch, dim)
    return gates, recurrent, zero, zero, torch.full_like(zero, -math.inf)


def _gradient_difference(scan: SLSTMScan, example: tuple[Tensor, ...]) -> float:
    """Of the gradients of gates and recurrent weights, relative to the largest."""
    found = []
    for each, kind in ((scan, torch.float32), (slstm_scan, torch.float64)):
        gates, recurrent, *state = (part.to(kind) for part in example)
        inputs = [part.detach().clone().requires_grad_() for part in (gates, recurrent)]
        with torch.enable_grad():
            hidden, *_ = each(*inputs, *state)
            found.append(torch.autograd.grad(hidden.square().sum(), inputs))
    return max(_largest([ours], [plain]) / float(plain.abs().max()) for ours, plain in zip(*found, strict=True))


def _largest(ours: tuple[Tensor, ...] | list[Tensor], plain: tuple[Tensor, ...] | list[Tensor]) -> float:
    return max(float((a - b).abs().max().nan_to_num(math.inf)) for a, b in zip(ours, plain, strict=True))


# --- The Triton functions ---------------------------------------------------------------------------------------------

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
        whole: tl.tensor,
        cells: tl.tensor,
        steps: tl.tensor,
        batch: tl.tensor,
        DIM: tl.constexpr,  # noqa: N803
        WIDTH: tl.constexpr,  # noqa: N803
        TILE: tl.constexpr,  # noqa: N803
        KEEP: tl.constexpr,  # noqa: N803
    ) -> None:
        """`models.network.slstm_scan` from its first step to its last."""
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

        of_gates = head.to(tl.int64) * steps * batch * 4 * DIM + record * 4 * DIM + column
        inputs = gates + of_gates
        cell = (head * batch + record) * DIM + column
        size = heads * batch * DIM
        out = hidden + cell
        h = tl.load(state + cell, inside, 0.0)
        c = tl.load(state + size + cell, inside, 0.0)
        n = tl.load(state + 2 * size + cell, inside, 0.0)
        if KEEP:
            whole += of_gates
            cells += 2 * size + cell
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
            if KEEP:
                tl.store(whole, i, inside)
                tl.store(whole + DIM, f, inside)
                tl.store(whole + 2 * DIM, z, inside)
                tl.store(whole + 3 * DIM, o, inside)
                tl.store(cells, c, inside)
                tl.store(cells + size, n, inside)
                whole += batch * 4 * DIM
                cells += 2 * size
            inputs += batch * 4 * DIM
            out += size
        tl.store(state + cell, h, inside)
        tl.store(state + size + cell, c, inside)
        tl.store(state + 2 * size + cell, n, inside)

    @triton.jit(do_not_specialize=["steps", "batch"])
    def slstm_loop_back(
        whole: tl.tensor,
        recurrent: tl.tensor,
        cells: tl.tensor,
        of_hidden: tl.tensor,
        of_gates: tl.tensor,
        of_state: tl.tensor,
        steps: tl.tensor,
        batch: tl.tensor,
        DIM: tl.constexpr,  # noqa: N803
        WIDTH: tl.constexpr,  # noqa: N803
        TILE: tl.constexpr,  # noqa: N803
    ) -> None:
        """The gradient of `slstm_loop`, from its last step to its first.

        A step is lead = n + log sigmoid(f) - i, kept = sigmoid(lead), c' = kept c + (1 - kept) (sigmoid(z) - 1/2),
        n' = i + softplus(lead), h' = sigmoid(o) c'; `d_x` is the gradient of x.
        """
        head = tl.program_id(0)
        heads = tl.num_programs(0)
        record = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
        column = tl.arange(0, WIDTH)[None, :]
        inside = (record < batch) & (column < DIM)

        row = tl.arange(0, WIDTH)[:, None]
        weights = recurrent + (head * DIM + column) * 4 * DIM + row  # transposed: from a gate to the hidden state
        square = (row < DIM) & (column < DIM)
        weight_i = tl.load(weights, square, 0.0)
        weight_f = tl.load(weights + DIM, square, 0.0)
        weight_z = tl.load(weights + 2 * DIM, square, 0.0)
        weight_o = tl.load(weights + 3 * DIM, square, 0.0)

        size = heads * batch * DIM
        step = batch * 4 * DIM
        cell = (head * batch + record) * DIM + column
        last = steps - 1
        at = head.to(tl.int64) * steps * step + record * 4 * DIM + column + last.to(tl.int64) * step
        whole += at
        of_gates += at
        cells += cell + steps.to(tl.int64) * 2 * size
        of_hidden += cell + last.to(tl.int64) * size
        d_h = tl.load(of_state + cell, inside, 0.0)
        d_c = tl.load(of_state + size + cell, inside, 0.0)
        d_n = tl.load(of_state + 2 * size + cell, inside, 0.0)
        c = tl.load(cells, inside, 0.0)
        for _ in range(steps):
            c_before = tl.load(cells - 2 * size, inside, 0.0)
            n_before = tl.load(cells - size, inside, 0.0)
            i = tl.load(whole, inside, 0.0)
            f = tl.load(whole + DIM, inside, 0.0)
            z = sigmoid(tl.load(whole + 2 * DIM, inside, 0.0))
            o = sigmoid(tl.load(whole + 3 * DIM, inside, 0.0))
            kept = sigmoid(n_before + log_sigmoid(f) - i)

            d_h += tl.load(of_hidden, inside, 0.0)
            d_c += d_h * o
            d_o = d_h * c * o * (1.0 - o)
            d_z = d_c * (1.0 - kept) * z * (1.0 - z)
            d_lead = d_c * (c_before - z + 0.5) * kept * (1.0 - kept) + d_n * kept
            d_i = d_n - d_lead
            d_f = d_lead * sigmoid(-f)
            d_n = d_lead
            d_c *= kept
            d_h = tl.dot(d_i, weight_i, input_precision="ieee")
            d_h += tl.dot(d_f, weight_f, input_precision="ieee")
            d_h += tl.dot(d_z, weight_z, input_precision="ieee")
            d_h += tl.dot(d_o, weight_o, input_precision="ieee")
            tl.store(of_gates, d_i, inside)
            tl.store(of_gates + DIM, d_f, inside)
            tl.store(of_gates + 2 * DIM, d_z, inside)
            tl.store(of_gates + 3 * DIM, d_o, inside)
            c = c_before
            whole -= step
            of_gates -= step
            cells -= 2 * size
            of_hidden -= size
        tl.store(of_state + cell, d_h, inside)
        tl.store(of_state + size + cell, d_c, inside)
        tl.store(of_state + 2 * size + cell, d_n, inside)
