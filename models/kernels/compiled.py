"""The cleaning and the network compiled for the processor at hand: numpy arrays, without scipy and torch.

The kernel (`cpu/`) is one thread per call and releases the interpreter lock. It computes each record by
itself, so a record's probabilities are the same, bit for bit, in every batch.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models import folding
from ecgbatch.models.config import (
    CLASSIFIER_HIDDEN,
    CONV_WIDTH,
    LABELS,
    LAST_LAYER,
    METADATA_DIM,
    METADATA_HIDDEN,
    QKV_BLOCK,
    NetworkConfig,
)
from ecgbatch.models.preprocessing import FILTERS, STD_EPS, Normalization
from ecgbatch.records.leads import LEADS
from ecgbatch.records.quality import Quality
from ecgbatch.settings import EcgbatchError

try:
    _kernel: Any = importlib.import_module("ecgbatch.models.kernels._kernel")
except ImportError:  # no C++ compiler when the package was installed
    _kernel = None

Array = NDArray[np.float32]
AnyArray = NDArray[np.floating[Any]]
_FILTERS = [np.array([*each.numerator, *each.denominator, *each.at_rest]) for each in FILTERS]

Shapes = Iterator[tuple[str, tuple[int, ...]]]
LONGEST = 1 << 20
"""Samples of a signal that the kernel takes."""
LANES = 16  # the kernel's vectors: every head's width is a multiple of it


def available() -> bool:
    """Whether the kernel was built when the package was installed."""
    return _kernel is not None


def usable_instructions() -> tuple[str, ...]:
    """Instruction sets that both the kernel and this processor have, the fastest first."""
    return tuple(_kernel.instructions()) if _kernel is not None else ()


def instructions() -> str:
    """The instruction set that the kernel uses here: "avx512", "avx2" or "baseline".

    Raises EcgbatchError when the kernel was not built.
    """
    return _choose(None)


def _choose(wanted: str | None) -> str:
    usable = usable_instructions()
    if not usable:
        raise EcgbatchError("the compiled kernel was not built: install a C++ compiler, then ecgbatch again")
    if wanted is not None and wanted not in usable:
        raise EcgbatchError(f"{wanted} instructions are not to be had here: use one of {', '.join(usable)}")
    return wanted or usable[0]


def supports(config: NetworkConfig) -> bool:
    """Whether the kernel computes networks of these sizes: heads of both kinds as wide as a multiple of 16."""
    return config.embedding_dim % (LANES * config.heads) == 0 and config.inner_dim % (LANES * config.heads) == 0


def clean(
    signals: NDArray[np.float64], normalization: Normalization, instructions: str | None = None
) -> tuple[Array, list[Quality]]:
    """`models.preprocessing.clean`, compiled: (B, T, 12) in mV at 100 Hz -> the same shape, as the network takes it.

    Beside it what `records.quality.measure` says of each record, after both filters. All `usable_instructions()` give
    the same to the last bit. From scipy the filtered signal differs by less than 1e-10 of its largest value, before it
    is rounded to float32. Raises EcgbatchError for an array that is not float64 or not C-contiguous, ValueError for T
    not above 21, the filters' padding.
    """
    _check("signals", signals, (None, None, len(LEADS)), np.float64)
    batch, samples = signals.shape[:2]
    if samples > LONGEST:
        raise EcgbatchError(f"a signal must have at most {LONGEST} samples, not {samples}: cut it")
    cleaned, qualities = np.empty(signals.shape, np.float32), np.empty((batch, 2))
    scale = (normalization.mean, normalization.std + STD_EPS)
    _kernel.clean(_choose(instructions), *_FILTERS, *scale, signals, cleaned, qualities, batch, samples)
    return cleaned, [Quality(*each) for each in qualities.tolist()]


class CompiledNetwork:
    """A network ready to score; threads may share it.

    `weights` are float32 by state_dict key, in the layout of the "vanilla" sLSTM cell. `instructions` asks for
    one of `usable_instructions()` instead of the fastest. Raises EcgbatchError when the kernel was not built, does
    not support the sizes or the instructions, or when the weights are not those of `config`.
    """

    def __init__(self, weights: Mapping[str, Array], config: NetworkConfig, instructions: str | None = None) -> None:
        self.config = config
        self.instructions = _choose(instructions)
        if not supports(config):
            raise EcgbatchError(
                f"the compiled kernel needs heads as wide as a multiple of {LANES}, not {config.head_dim}: use torch"
            )
        self.classes = classes_of(weights)
        _check_weights(weights, config, self.classes)
        stacked = config.variant == "stacked"
        self._network = _kernel.load(
            self.instructions,
            config.inputs,
            config.embedding_dim,
            config.inner_dim,
            config.heads,
            1 if stacked else config.blocks,
            config.blocks if stacked else 1,
            config.ffn_dim,
            self.classes,
            config.span,
            config.extremes,
            np.concatenate([part.astype(np.float32).ravel() for part in _for_kernel(weights, config)]),
        )

    def __call__(self, signal: Array, metadata: Array) -> Array:
        """(B, T, 12) filtered and normalised, (B, 2) age in years and sex -> (B, K) probabilities.

        Both float32 and C-contiguous. Raises EcgbatchError for arrays of another kind, MemoryError when the
        workspace (1.5 kB per time step and 1 MB at embedding 128, whatever the batch) is not to be had.
        """
        return self._run(signal, metadata, np.empty(0, np.float32))

    def embed(self, signal: Array, metadata: Array) -> tuple[Array, Array]:
        """The probabilities, the same to the last bit, and the features (B, F) that the classifier was given."""
        features = np.empty((len(signal), self.config.features_dim), np.float32)
        return self._run(signal, metadata, features), features

    def _run(self, signal: Array, metadata: Array, features: Array) -> Array:
        _check("signal", signal, (None, None, len(LEADS)), np.float32)
        _check("metadata", metadata, (len(signal), METADATA_DIM), np.float32)
        batch, samples = signal.shape[:2]
        if not self.config.patch <= samples <= LONGEST:
            raise EcgbatchError(f"a signal must have {self.config.patch} to {LONGEST} samples, not {samples}: cut it")
        probabilities = np.empty((batch, self.classes), dtype=np.float32)
        _kernel.run(self._network, signal, metadata, probabilities, features, batch, samples)
        return probabilities


def _check(name: str, array: AnyArray, shape: tuple[int | None, ...], dtype: type[np.floating[Any]]) -> None:
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise EcgbatchError(f"{name} must have the shape ({wanted}), not {array.shape}")
    if array.dtype != dtype or not array.flags.c_contiguous:
        kind = f"{dtype.__name__} and C-contiguous"
        raise EcgbatchError(f"{name} must be {kind}, not {array.dtype}: use ascontiguousarray")


def classes_of(weights: Mapping[str, Any]) -> int:
    """How many classes weights tell, by their last layer; without one, as many as there are superclasses."""
    return np.size(weights[f"{LAST_LAYER}.bias"]) if f"{LAST_LAYER}.bias" in weights else len(LABELS)


def _check_weights(weights: Mapping[str, Array], config: NetworkConfig, classes: int) -> None:
    expected = dict(parameter_shapes(config, classes))
    for name, shape in expected.items():
        if name not in weights:
            raise EcgbatchError(f"the weights lack {name}")
        if weights[name].shape != shape:
            raise EcgbatchError(f"{name} must have the shape {shape}, not {weights[name].shape}")
        if weights[name].dtype != np.float32:
            raise EcgbatchError(f"{name} must be float32, not {weights[name].dtype}")
    if unknown := set(weights) - set(expected):
        raise EcgbatchError(f"{min(unknown)} is no parameter of this network")


def _shapes_within(prefix: str, shapes: Shapes) -> Shapes:
    for name, shape in shapes:
        yield f"{prefix}.{name}", shape


def parameter_shapes(config: NetworkConfig, classes: int = len(LABELS)) -> Shapes:
    """Name and shape of every parameter of a network of so many classes, as in its state_dict."""
    dim = config.embedding_dim
    wide, narrow = CLASSIFIER_HIDDEN
    yield "embedding.weight", (dim, config.inputs)
    yield "embedding.bias", (dim,)
    yield "embedding_norm.weight", (dim,)
    yield "embedding_norm.bias", (dim,)
    for slstm, mlstm, blocks in _levels(config):
        for branch, shapes in ((slstm, _slstm_shapes), (mlstm, _mlstm_shapes)):
            for number in range(blocks):
                yield from _shapes_within(f"{branch}.blocks.{number}", shapes(config))
            yield f"{branch}.post_blocks_norm.weight", (dim,)
    yield "metadata_net.0.weight", (METADATA_HIDDEN, METADATA_DIM)
    yield "metadata_net.0.bias", (METADATA_HIDDEN,)
    yield "classifier.0.weight", (wide, config.features_dim)
    yield "classifier.0.bias", (wide,)
    yield "classifier.3.weight", (narrow, wide)
    yield "classifier.3.bias", (narrow,)
    yield f"{LAST_LAYER}.weight", (classes, narrow)
    yield f"{LAST_LAYER}.bias", (classes,)


def _levels(config: NetworkConfig) -> list[tuple[str, str, int]]:
    """Names of the two branches of each level, and how many blocks each has there."""
    if config.variant == "stacked":
        return [("slstm_branch", "mlstm_branch", config.blocks)]
    return [(f"slstm_blocks.{level}", f"mlstm_blocks.{level}", 1) for level in range(config.blocks)]


def _slstm_shapes(config: NetworkConfig) -> Shapes:
    dim, heads, head, ffn = config.embedding_dim, config.heads, config.head_dim, config.ffn_dim
    yield "xlstm_norm.weight", (dim,)
    yield "xlstm.conv1d.conv.weight", (dim, 1, CONV_WIDTH)
    yield "xlstm.conv1d.conv.bias", (dim,)
    for gate in ("fgate", "igate", "zgate", "ogate"):
        yield f"xlstm.{gate}.weight", (heads, head, head)
    yield "xlstm.slstm_cell._recurrent_kernel_", (heads, 4 * head, head)
    yield "xlstm.slstm_cell._bias_", (4 * dim,)
    yield "xlstm.group_norm.weight", (dim,)
    yield "ffn_norm.weight", (dim,)
    yield "ffn.proj_up.weight", (2 * ffn, dim)
    yield "ffn.proj_down.weight", (dim, ffn)


def _mlstm_shapes(config: NetworkConfig) -> Shapes:
    dim, heads, inner = config.embedding_dim, config.heads, config.inner_dim
    yield "xlstm_norm.weight", (dim,)
    yield "xlstm.proj_up.weight", (2 * inner, dim)
    yield "xlstm.conv1d.conv.weight", (inner, 1, CONV_WIDTH)
    yield "xlstm.conv1d.conv.bias", (inner,)
    for projection in ("q_proj", "k_proj", "v_proj"):
        yield f"xlstm.{projection}.weight", (inner // QKV_BLOCK, QKV_BLOCK, QKV_BLOCK)
    for gate in ("igate", "fgate"):
        yield f"xlstm.mlstm_cell.{gate}.weight", (heads, 3 * inner)
        yield f"xlstm.mlstm_cell.{gate}.bias", (heads,)
    yield "xlstm.mlstm_cell.outnorm.weight", (inner,)
    yield "xlstm.learnable_skip", (inner,)
    yield "xlstm.proj_down.weight", (dim, inner)


def _for_kernel(weights: Mapping[str, Array], config: NetworkConfig) -> Iterator[AnyArray]:
    """All weights in the order and the layouts in which the kernel reads them."""
    for name in ("embedding.weight", "embedding.bias", "embedding_norm.weight", "embedding_norm.bias"):
        yield weights[name]
    for slstm, mlstm, blocks in _levels(config):
        for branch, layout in ((slstm, _slstm_for_kernel), (mlstm, _mlstm_for_kernel)):
            for number in range(blocks):
                yield from layout(_within(f"{branch}.blocks.{number}.", weights), config)
            yield 1 + weights[f"{branch}.post_blocks_norm.weight"]
    for layer in ("metadata_net.0", "classifier.0", "classifier.3", LAST_LAYER):
        yield weights[f"{layer}.weight"]
        yield weights[f"{layer}.bias"]


def _slstm_for_kernel(w: Mapping[str, Array], config: NetworkConfig) -> Iterator[AnyArray]:
    layer = folding.slstm(_within("xlstm.", w), config.heads)
    yield 1 + w["xlstm_norm.weight"]
    yield w["xlstm.conv1d.conv.weight"].T
    yield w["xlstm.conv1d.conv.bias"]
    for head in range(config.heads):
        bias_input_forget, bias_cell_output = np.split(layer.bias[head], 2)
        yield layer.input_forget[head].T
        yield bias_input_forget
        yield layer.cell_output[head].T
        yield bias_cell_output
    yield layer.recurrent
    yield 1 + w["xlstm.group_norm.weight"]
    yield 1 + w["ffn_norm.weight"]
    yield w["ffn.proj_up.weight"]
    yield w["ffn.proj_down.weight"]


def _mlstm_for_kernel(w: Mapping[str, Array], config: NetworkConfig) -> Iterator[AnyArray]:
    in_float64 = {name: value.astype(np.float64) for name, value in _within("xlstm.", w).items()}
    layer = folding.mlstm(in_float64, config.heads)
    yield 1 + w["xlstm_norm.weight"]
    yield w["xlstm.proj_up.weight"]
    yield w["xlstm.conv1d.conv.weight"].T
    yield w["xlstm.conv1d.conv.bias"]
    for projection in (layer.query, layer.key, layer.value):
        yield projection.transpose(2, 0, 1)
    yield layer.gates_convolved
    yield layer.gates_bias
    yield layer.gates_plain
    yield 1 + w["xlstm.mlstm_cell.outnorm.weight"]
    yield w["xlstm.learnable_skip"]
    yield w["xlstm.proj_down.weight"]


def _within(prefix: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
