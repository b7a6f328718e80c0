"""The network as an ONNX graph of standard operators, streaming over time as `models.network` does.

An operator Scan runs over chunks of time steps, which pass through all layers; in it another one runs the sLSTM step
by step. Formulas and shapes are those of `models.network`: B records, L time steps of a chunk, D embedding, I inner
width of the mLSTM, N heads, d width of a head. One file serves any B and any length.
"""

import json
import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from ecgbatch.models import folding
from ecgbatch.models.config import METADATA_DIM, QKV_BLOCK, NetworkConfig
from ecgbatch.models.export.onnx_builder import BATCH, Graph, Shape, floats
from ecgbatch.models.layers import NORM_EPS, CausalConv, Norm
from ecgbatch.models.network import MLSTM, MLSTM_EPS, SLSTM, FeedForward, MLSTMBlock, ParallelXLSTM, SLSTMBlock
from ecgbatch.models.preprocessing import BLOCK, FILTERS, STD_EPS, Filter, Normalization
from ecgbatch.records.leads import LEADS

OPSET, IR_VERSION = 20, 9  # of 2023, the first with Gelu
CHUNK = 50  # time steps
SIGNALS = "signals"
END = np.iinfo(np.int64)  # where a Slice ends that goes to the end


# --- The network ------------------------------------------------------------------------------------------------------


def onnx_model(
    network: ParallelXLSTM, normalization: Normalization | None, int8: bool, about: dict[str, Any]
) -> onnx.ModelProto:
    """The whole model: `signal` (B, T, 12) and `metadata` (B, 2) -> `probabilities` (B, K), all float32.

    The signal is cleaned already or, when there is a normalisation to clean it by, in mV at 100 Hz. `about` goes into
    the file's metadata.
    """
    g = Graph(int8)
    x = g.transpose("signal", 1, 0, 2)  # (T, B, 12)
    if normalization is not None:
        x = cleaned(g, x, normalization)
    pooled = streamed(g, network, x)
    seen = g.op("Relu", linear(g, "metadata", network.metadata_net[0]))
    reached = extremes(g, network.config, x) if network.config.extremes else []
    y = g.op("Concat", *pooled, seen, *reached, axis=-1)
    y = g.op("Relu", linear(g, y, network.classifier[0]))
    y = g.op("Relu", linear(g, y, network.classifier[3]))
    logits, classes = linear(g, y, network.classifier[6]), len(cast(nn.Linear, network.classifier[6]).weight)
    g.scopes[0].nodes.append(helper.make_node("Sigmoid", [logits], ["probabilities"]))

    shapes = {"signal": ("samples", len(LEADS)), "metadata": (METADATA_DIM,), "probabilities": (classes,)}
    *inputs, output = (floats(name, (BATCH, *shape)) for name, shape in shapes.items())
    graph = helper.make_graph(g.scopes[0].nodes, "ecgbatch", inputs, [output], [*g.constants.values()])
    opsets = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ecgbatch")
    helper.set_model_props(made, {key: json.dumps(value) for key, value in about.items()})
    return made


def cleaned(g: Graph, x: str, normalization: Normalization) -> str:
    """(T, B, 12) in mV -> the same shape, filtered and normalised; see `models.preprocessing.filtered`."""
    by_time = g.op("Cast", g.reshape(x, 0, -1), to=TensorProto.DOUBLE)
    for each in FILTERS:
        by_time = both_ways(g, by_time, each)
    filtered = g.reshape(g.op("Cast", by_time, to=TensorProto.FLOAT), 0, -1, len(LEADS))
    centred = g.op("Sub", filtered, g.constant(normalization.mean))
    return g.op("Div", centred, g.constant(normalization.std + STD_EPS))


def both_ways(g: Graph, x: str, which: Filter) -> str:
    """(T, n) forwards and backwards, the ends padded with the signal turned around its first and its last sample."""
    pad, two = which.padding, g.constant(2, np.float64)
    before = g.op("Sub", g.op("Mul", two, g.slice(x, 0, 1)), g.slice(x, pad, 0, -1))
    after = g.op("Sub", g.op("Mul", two, g.slice(x, -1, END.max)), g.slice(x, -2, -pad - 2, -1))
    x = g.op("Concat", before, x, after, axis=0)
    for _ in range(2):
        x = g.slice(forwards(g, x, which), -1, END.min, -1)
    return g.slice(x, pad, -pad)


def forwards(g: Graph, x: str, which: Filter) -> str:
    """(T, n) along the time, as if each signal had always had its first value."""
    matrix, order = g.constant(which.by_block, np.float64), len(which.at_rest)
    start = g.op("MatMul", g.constant(which.at_rest[:, np.newaxis], np.float64), g.slice(x, 0, 1))

    def filter_block(block: str) -> str:
        state = g.carried(start, (order, SIGNALS))
        filtered, after = g.split(g.op("MatMul", matrix, g.op("Concat", block, state, axis=0)), BLOCK, order, axis=0)
        g.carry(state, after)
        return filtered

    steps, signals = g.size(x, 0), g.size(x, 1)
    blocks = g.op("Reshape", filled_up(g, x, BLOCK), g.whole_numbers(-1, BLOCK, signals))
    *_, filtered = g.scan(filter_block, blocks, (BLOCK, SIGNALS), kind=TensorProto.DOUBLE)
    return g.slice(g.op("Reshape", filtered, g.whole_numbers(-1, signals)), 0, steps)


def filled_up(g: Graph, x: str, multiple: int) -> str:
    """With zeros at the end of the first axis, to a multiple of that length."""
    size = g.constant([multiple], np.int64)
    missing = g.op("Mod", g.op("Sub", size, g.op("Mod", g.size(x, 0), size)), size)
    return g.op("Pad", x, g.whole_numbers(0, missing), "", g.constant([0], np.int64))


def streamed(g: Graph, network: ParallelXLSTM, x: str) -> list[str]:
    """(T, B, 12) -> mean over time of the fused branches, and mean of the maxima of all spans, (B, D) each.

    The last chunk is filled up with zeros, whose steps are cut off again: the network only looks back.
    """
    config = network.config
    batch = g.size(x, 1)
    patch = g.constant([config.patch], np.int64)
    steps = g.op("Div", g.size(x, 0), patch)
    seen = filled_up(g, g.slice(x, 0, g.op("Mul", steps, patch)), CHUNK * config.patch)
    patches = g.op("Reshape", seen, g.whole_numbers(-1, config.patch, batch, len(LEADS)))
    patches = g.transpose(patches, 0, 2, 1, 3)
    chunks = g.op("Reshape", patches, g.whole_numbers(-1, CHUNK, batch, config.inputs))
    norm = network.embedding_norm

    def advance(chunk: str) -> str:
        x = linear(g, chunk, network.embedding)
        x = g.op("LayerNormalization", x, g.constant(norm.weight), g.constant(norm.bias), axis=-1, epsilon=NORM_EPS)
        x = g.op("Relu", x)
        for slstm_branch, mlstm_branch in network.levels():
            left = right = x
            for one in cast(Iterable[SLSTMBlock], slstm_branch.blocks):
                left = g.op("Add", left, slstm(g, one.xlstm, normed(g, left, one.xlstm_norm), CHUNK))
                left = g.op("Add", left, feed_forward(g, one.ffn, normed(g, left, one.ffn_norm)))
            for other in cast(Iterable[MLSTMBlock], mlstm_branch.blocks):
                right = g.op("Add", right, mlstm(g, other.xlstm, normed(g, right, other.xlstm_norm), CHUNK))
            left = normed(g, left, slstm_branch.post_blocks_norm)
            right = normed(g, right, mlstm_branch.post_blocks_norm)
            x = g.op("Mul", g.op("Add", left, right), g.constant(0.5))
        return x

    *_, fused = g.scan(advance, chunks, (CHUNK, BATCH, config.embedding_dim))
    fused = g.slice(g.op("Reshape", fused, g.whole_numbers(-1, batch, config.embedding_dim)), 0, steps)
    time = g.constant([0], np.int64)
    return [g.op("ReduceMean", fused, time, keepdims=0), mean_of_maxima(g, fused, config.span)]


def mean_of_maxima(g: Graph, x: str, span: int) -> str:
    """(T, B, D) -> (B, D), see `NetworkConfig.spans`."""
    time = g.constant([0], np.int64)
    if not span:
        return g.op("ReduceMax", x, time, keepdims=0)
    one, length = g.constant([1], np.int64), g.constant([span], np.int64)
    before_last = g.op("Max", g.op("Sub", g.op("Div", g.size(x, 0), length), one), g.constant([0], np.int64))
    last = g.op("Mul", before_last, length)
    spans = g.op("Reshape", g.slice(x, 0, last), g.whole_numbers(before_last, span, g.size(x, 1), g.size(x, 2)))
    maxima = g.op("ReduceMax", spans, g.constant([1], np.int64), keepdims=0)
    highest_of_last = g.op("ReduceMax", g.slice(x, last, END.max), time, keepdims=1)
    return g.op("ReduceMean", g.op("Concat", maxima, highest_of_last, axis=0), time, keepdims=0)


def extremes(g: Graph, config: NetworkConfig, x: str) -> list[str]:
    """(T, B, 12) -> the largest and the smallest value of each lead, (B, 12) each; see `models.network.extremes`."""
    patch = g.constant([config.patch], np.int64)
    whole = g.slice(x, 0, g.op("Mul", g.op("Div", g.size(x, 0), patch), patch))
    lowest = mean_of_maxima(g, g.op("Neg", whole), config.extremes)
    return [mean_of_maxima(g, whole, config.extremes), g.op("Neg", lowest)]


def linear(g: Graph, x: str, layer: nn.Module) -> str:
    weight, bias = cast(nn.Linear, layer).weight, cast(nn.Linear, layer).bias
    return g.op("Add", g.op("MatMul", x, g.matrix(weight.t())), g.constant(bias))


def normed(g: Graph, x: str, norm: Norm) -> str:
    return g.op("LayerNormalization", x, g.constant(1 + norm.weight), axis=-1, epsilon=NORM_EPS)


def normed_headwise(g: Graph, x: str, norm: Norm, heads: int) -> str:
    """(..., N, d), each head normalised by itself, times the weights (N, d)."""
    weight = 1 + norm.weight.view(heads, -1)
    alone = g.op("LayerNormalization", x, g.constant(np.ones(weight.shape[1])), axis=-1, epsilon=NORM_EPS)
    return g.op("Mul", alone, g.constant(weight))


def causal_conv(g: Graph, x: str, conv: CausalConv, length: int) -> str:
    """(L, B, D) -> (L, B, D), each channel by itself over the last four steps."""
    taps = conv.conv.weight.squeeze(1).t()  # (4, D)
    late, dim = len(taps) - 1, taps.shape[1]
    past = g.carried(0.0, (late, BATCH, dim))
    seen = g.op("Concat", past, x, axis=0)
    starts = [g.constant([step], np.int64) for step in range(late + 1)]
    ends = [g.constant([step + length], np.int64) for step in range(late + 1)]
    g.carry(past, g.op("Slice", seen, g.constant([length], np.int64), ends[-1], starts[0]))
    y = g.constant(cast(Tensor, conv.conv.bias))
    for tap, start, end in zip(taps, starts, ends, strict=True):
        y = g.op("Add", g.op("Mul", g.op("Slice", seen, start, end, starts[0]), g.constant(tap)), y)
    return y


def slstm(g: Graph, layer: SLSTM, x: str, length: int) -> str:
    """(L, B, D) -> (L, B, D). The forget gate is negated, for -log f = softplus(-f)."""
    heads = layer.heads
    weights = folding.slstm(dict(layer.named_parameters()), heads, factors=(1, -1, 1, 1))
    dim = weights.recurrent.shape[1]
    recurrent = g.matrix(weights.recurrent)

    def product(x: str, weight: Tensor) -> str:  # (L, B, D) -> (N, L * B, 2d)
        by_head = g.transpose(g.reshape(x, length, -1, heads, dim), 2, 0, 1, 3)
        return g.op("MatMul", g.reshape(by_head, heads, -1, dim), g.matrix(weight))

    convolved = g.silu(causal_conv(g, x, layer.conv1d, length))
    products = [product(convolved, weights.input_forget), product(x, weights.cell_output)]
    bias = g.constant(weights.bias.unsqueeze(1))
    gates = g.reshape(g.op("Add", g.op("Concat", *products, axis=-1), bias), heads, length, -1, 4 * dim)
    shape: Shape = (heads, BATCH, dim)
    between_chunks = [g.carried(start, shape) for start in (0.0, 0.0, -math.inf)]

    def step(gates: str) -> str:
        """`models.network.slstm_scan`, but that hidden and cell are not halved: (N, B, 4d) -> (N, B, d)."""
        h, c, n = before = [g.carried(each, shape) for each in between_chunks]
        i, f, z, o = g.split(g.op("Add", gates, g.op("MatMul", h, recurrent)), dim, dim, dim, dim)
        known = g.op("Sub", g.op("Sub", n, g.op("Softplus", f)), i)  # less the logarithm of what is new
        z = g.op("Tanh", z)
        c = g.op("Add", z, g.op("Mul", g.op("Sigmoid", known), g.op("Sub", c, z)))
        n = g.op("Add", i, g.op("Softplus", known))
        h = g.op("Mul", g.op("Sigmoid", o), c)
        for each, following in zip(before, (h, c, n), strict=True):
            g.carry(each, following)
        return h

    *after, hidden = g.scan(step, gates, shape, axis=1)  # (L, N, B, d)
    for each, following in zip(between_chunks, after, strict=True):
        g.carry(each, following)
    by_head = normed_headwise(g, g.transpose(hidden, 0, 2, 1, 3), layer.group_norm, heads)
    return g.reshape(by_head, length, -1, heads * dim)


def feed_forward(g: Graph, layer: FeedForward, x: str) -> str:
    up = g.op("MatMul", x, g.matrix(layer.proj_up.weight.t()))
    width = layer.proj_down.weight.shape[1]
    gate, value = g.split(up, width, width)
    return g.op("MatMul", g.op("Mul", g.op("Gelu", gate), value), g.matrix(layer.proj_down.weight.t()))


def mlstm(g: Graph, layer: MLSTM, x: str, length: int) -> str:
    """(L, B, D) -> (L, B, D), with the weights of q folded into those of k and of the gates, as in `MLSTM`."""
    heads, inner = layer.heads, len(layer.learnable_skip)
    dim = inner // heads
    weights = folding.mlstm(dict(layer.named_parameters()), heads)

    inputs, gate = g.split(g.op("MatMul", x, g.matrix(layer.proj_up.weight.t())), inner, inner)
    conv = g.silu(causal_conv(g, inputs, layer.conv1d, length))

    def split(x: str) -> str:  # (L, B, I) -> (B, N, L, d)
        return g.transpose(g.reshape(x, length, -1, heads, dim), 1, 2, 0, 3)

    q = split(conv)
    k = g.op("MatMul", q, block_diagonal(g, weights.query_key, heads))
    v = g.op("MatMul", split(inputs), block_diagonal(g, weights.value, heads))
    sources = ((conv, weights.gates_convolved), (inputs, weights.gates_plain))
    products = [g.op("MatMul", source, g.constant(weight.t())) for source, weight in sources]
    gates = g.op("Add", g.op("Add", *products), g.constant(weights.gates_bias))  # (L, B, 2N)
    i, f = g.split(g.transpose(g.reshape(gates, length, -1, 2 * heads, 1), 1, 2, 0, 3), heads, heads, axis=1)

    h = g.transpose(mlstm_chunk(g, q, k, v, i, f, (heads, length, dim)), 2, 0, 1, 3)  # (L, B, N, d)
    h = g.reshape(normed_headwise(g, h, layer.mlstm_cell.outnorm, heads), length, -1, inner)
    h = g.op("Add", h, g.op("Mul", g.constant(layer.learnable_skip), conv))
    return g.op("MatMul", g.op("Mul", h, g.silu(gate)), g.matrix(layer.proj_down.weight.t()))


def mlstm_chunk(g: Graph, q: str, k: str, v: str, i: str, f: str, sizes: tuple[int, int, int]) -> str:
    """q, k, v (B, N, L, d), gates i, f (B, N, L, 1) -> h (B, N, L, d); see `models.network.mlstm_chunk`.

    The normaliser is the last column of the memory (B, N, d, d + 1), as if a one stood beside each v.
    """
    heads, length, dim = sizes
    memory = g.carried(0.0, (BATCH, heads, dim, dim + 1))
    m = g.carried(-math.inf, (BATCH, heads, 1, 1))
    time, end, last = g.constant(2, np.int64), g.constant([length - 1], np.int64), g.constant([-1], np.int64)
    forgotten = g.op("CumSum", g.op("Neg", g.op("Softplus", g.op("Neg", f))), time)  # (B, N, L, 1)
    future = g.constant(torch.full((length, length), -math.inf).triu(1))
    written = g.op("Add", g.transpose(g.op("Sub", i, forgotten), 0, 1, 3, 2), future)  # (B, N, L now, L written)
    peak = g.op("Max", m, g.op("ReduceMax", written, last))
    decay = g.op("Exp", g.op("Sub", written, peak))
    left = g.op("Exp", g.op("Sub", m, peak))  # (B, N, L, 1): what is left of the state
    m_now = g.op("Add", forgotten, peak)

    v = g.op("Pad", v, g.constant([0] * 7 + [1], np.int64), g.constant(1))
    k = g.transpose(k, 0, 1, 3, 2)
    scores = g.op("Mul", g.op("MatMul", q, k), decay)
    remembered = g.op("Mul", left, g.op("MatMul", q, memory))
    h, products = g.split(g.op("Add", g.op("MatMul", scores, v), remembered), dim, 1)
    floor = g.op("Exp", g.op("Neg", m_now))
    h = g.op("Div", h, g.op("Add", g.op("Max", g.op("Abs", products), floor), g.constant(MLSTM_EPS)))

    added = g.op("MatMul", g.op("Mul", k, g.op("Gather", decay, end, axis=2)), v)
    g.carry(memory, g.op("Add", added, g.op("Mul", g.op("Gather", left, end, axis=2), memory)))
    g.carry(m, g.op("Gather", m_now, end, axis=2))
    return h


def block_diagonal(g: Graph, weight: Tensor, heads: int) -> str:
    """Blocks (I / 4, out, in) as one matrix (N, d, d) a head to multiply by from the right; stored as the blocks."""
    blocks = weight.transpose(1, 2).reshape(heads, -1, QKV_BLOCK, 1, QKV_BLOCK)
    per_head = blocks.shape[1]
    stored = g.constant(blocks), g.constant(torch.eye(per_head).view(per_head, 1, per_head, 1))
    with g.outside():
        return g.reshape(g.op("Mul", *stored), heads, per_head * QKV_BLOCK, per_head * QKV_BLOCK)
