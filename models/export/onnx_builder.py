"""Builds ONNX graphs: nodes, constants and loops, and matrices in eight bits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ecgbatch.models.weights.model import Weights

FEWEST_INPUTS = 8  # of a matrix in eight bits: below that the scales take more than is saved
GATES = ".mlstm_cell."  # the mLSTM's gates are folded with other weights, and few: they stay float32
BATCH = "batch"

Shape = tuple[int | str, ...]
"""Sizes, of which one may be a name."""


@dataclass
class Carried:
    """What a loop carries from one turn to the next."""

    start: str
    shape: Shape
    following: str = ""


@dataclass
class Scope:
    """The nodes of the main graph or of a loop's body, and the kind of number that the loop carries."""

    kind: int = TensorProto.FLOAT
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    carried: dict[str, Carried] = field(default_factory=dict)


class Graph:
    """Nodes and constants, added one by one; what a method returns is the name of its output.

    With `int8`, matrices are stored as eight-bit numbers with a scale for each output channel.
    """

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self.scopes = [Scope()]
        self.constants: dict[tuple[Any, ...], TensorProto] = {}
        self._numbers = count()

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        names = [self._name(kind) for _ in range(outputs)]
        self.scopes[-1].nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        array = np.array(value.detach().numpy() if isinstance(value, Tensor) else value, dtype, order="C")
        key = dtype, array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, self._name("constant"))
        return self.constants[key].name

    def matrix(self, weight: Tensor) -> str:
        """A constant (..., in, out) to multiply by from the right."""
        if not self.int8 or weight.shape[-2] < FEWEST_INPUTS:
            return self.constant(weight)
        numbers, scale = quantized(weight.detach().numpy(), axis=-2)
        with self.outside():  # for DequantizeLinear, ONNX Runtime would round the other factor to eight bits as well
            floats = self.op("Cast", self.constant(numbers, np.int8), to=TensorProto.FLOAT)
            return self.op("Mul", floats, self.constant(scale))

    def whole_numbers(self, *values: int | str) -> str:
        """Numbers, and names of tensors (1,), as one tensor."""
        each = [value if isinstance(value, str) else self.constant([value], np.int64) for value in values]
        return self.op("Concat", *each, axis=0)

    def size(self, x: str, axis: int) -> str:
        """The size of an axis, (1,)."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(shape, np.int64))

    def slice(self, x: str, start: int | str, end: int | str, step: int = 1) -> str:
        """x[start:end:step] along the first axis."""
        numbers = [self.constant([n], np.int64) if isinstance(n, int) else n for n in (start, end, 0, step)]
        return self.op("Slice", x, *numbers)

    def transpose(self, x: str, *axes: int) -> str:
        return self.op("Transpose", x, perm=axes)

    def split(self, x: str, *sizes: int, axis: int = -1) -> list[str]:
        return self.ops("Split", x, self.constant(sizes, np.int64), outputs=len(sizes), axis=axis)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is added within is computed once, before all loops."""
        scopes, self.scopes = self.scopes, self.scopes[:1]
        yield
        self.scopes = scopes

    def scan(
        self, body: Callable[[str], str], sequence: str, given: Shape, axis: int = 0, kind: int = TensorProto.FLOAT
    ) -> list[str]:
        """Runs `body` over an axis of the sequence.

        Gives all that was `carried` as it is in the end, then what `body` returned, of the sizes `given`, stacked on
        axis 0.
        """
        self.scopes.append(Scope(kind))
        part = self._name("part")
        result = self.op("Identity", body(part))  # a name may not be put out twice
        scope = self.scopes.pop()
        carried = scope.carried.values()
        values = partial(helper.make_tensor_value_info, elem_type=kind)
        inputs = [values(name, shape=each.shape) for name, each in scope.carried.items()] + [values(part, shape=None)]
        outputs = [values(each.following, shape=each.shape) for each in carried] + [values(result, shape=given)]
        loop = helper.make_graph(scope.nodes, "loop", inputs, outputs)
        start = [each.start for each in carried]
        attributes = {"body": loop, "num_scan_inputs": 1, "scan_input_axes": [axis]}
        return self.ops("Scan", *start, sequence, outputs=len(outputs), **attributes)

    def carried(self, start: float | str, shape: Shape) -> str:
        """Inside the body of a loop: what `carry` set in the turn before, at first `start`."""
        name = self._name("carried")
        if not isinstance(start, str):
            start = self._filled(start, shape)
        self.scopes[-1].carried[name] = Carried(start, shape)
        return name

    def carry(self, name: str, following: str) -> None:
        self.scopes[-1].carried[name].following = following

    def _filled(self, value: float, shape: Shape) -> str:
        with self.outside():
            batch = self.size("signal", 0)
            fill = numpy_helper.from_array(np.array([value], np.float32))
            sizes = self.whole_numbers(*(batch if size == BATCH else size for size in shape))
            return self.op("ConstantOfShape", sizes, value=fill)

    def _name(self, kind: str) -> str:
        return f"{kind.lower()}_{next(self._numbers)}"


def floats(name: str, shape: Shape | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def quantized(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers within ±127 and the scale that gives back the weight, one for all that lies along `axis`."""
    largest = np.abs(weight).max(axis, keepdims=True)
    scale = np.maximum(largest / 127, np.finfo(np.float32).tiny)
    return np.rint(weight / scale).astype(np.int8), scale


def rounded(weights: Weights) -> Weights:
    """The weights that a graph with `int8` computes with."""
    matrices = {
        key
        for key, value in weights.items()
        if value.ndim > 1 and value.shape[-1] >= FEWEST_INPUTS and GATES not in key
    }
    return {key: dequantized(value) if key in matrices else value for key, value in weights.items()}


def dequantized(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    numbers, scale = quantized(weight, axis=-1)
    return numbers * scale
