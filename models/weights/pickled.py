"""Reads the pickle in a file of torch.save as data: builds plain values and descriptions of tensors, and runs nothing.

The instructions of a pickle are followed here one by one, those that torch.save writes for tensors, numbers, texts,
lists, tuples, dictionaries and sets. Any other, and any name of code beside those of `CALLS`, ends it.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGEST = 4 * 2**20
"""Bytes of a pickle; that of a Lightning checkpoint has a few hundred thousand at most."""

KINDS = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Kinds of numbers by torch's names for where they are stored, as numpy calls them; numpy has no bfloat16."""

DTYPES = {"float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}


class NotPlainError(Exception):
    """The pickle holds something else than tensors and plain values; the message says what."""


@dataclass(frozen=True)
class Storage:
    """Where numbers lie in the file: their kind, the name of their entry, and how many there are."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor: the numbers of a storage that it shows. Each is shown once at most, and none beyond the end."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Name:
    """Something of Python's that the pickle names."""

    text: str


def load(data: bytes) -> Any:
    """What the pickle holds.

    Raises NotPlainError for what is no tensor and no plain value, and ValueError, TypeError, LookupError or
    AttributeError for what is no pickle.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                _put(stack[-1], pair)
            case "SETITEMS":
                pairs = since_mark()
                _put(stack[-1], pairs)
            case "BINPUT" | "LONG_BINPUT":
                memo[int(argument or 0)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[int(argument or 0)])
            case "GLOBAL":
                stack.append(_named(str(argument).replace(" ", ".")))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments))
            case "BUILD":  # attributes of a state_dict, the versions of its layers: not needed
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise NotPlainError("an object with attributes")
            case name:
                raise NotPlainError(f"the instruction {name}")
    raise ValueError("the pickle has no end")


def _put(target: dict[Any, Any], pairs: list[Any]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int, float, bool, type(None))):  # others may take for ever to compare
            raise NotPlainError("a dictionary by other keys than texts and numbers")
        target[key] = value


def _named(text: str) -> _Name:
    module, _, name = text.rpartition(".")
    if text not in CALLS and not (module == "torch" and (name in KINDS or name in DTYPES)):
        raise NotPlainError("".join(c if c.isprintable() else "?" for c in text[:100]))
    return _Name(text)


def _storage(identity: Any) -> Storage:
    _, kind, key, _, count = identity
    module, _, name = kind.text.rpartition(".")
    if module != "torch" or not isinstance(key, str) or not _are_counts((count,)):
        raise ValueError("a storage without a kind, a name or a size")
    return Storage(KINDS[name], key, count)


def _called(function: _Name, arguments: Any) -> Any:
    return CALLS[function.text](*arguments)


def _tensor(storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or not _are_counts((offset, *shape, *strides)) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage, a shape or strides")
    tensor = Tensor(storage, offset, tuple(shape), tuple(strides))
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if tensor.size > storage.count or (tensor.size and last >= storage.count):
        raise NotPlainError(f"a tensor of {tensor.size:,} numbers of which the file has {storage.count:,}")
    return tensor


def _are_counts(values: tuple[Any, ...]) -> bool:
    return len(values) < 20 and all(type(value) is int and 0 <= value < 2**60 for value in values)


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch.Size": lambda lengths: tuple(lengths),
    "__builtin__.set": lambda items: list(items),
    "builtins.set": lambda items: list(items),
}
"""What a pickle may ask to be called, and what stands for it here."""
