"""MATLAB level 5 files (MAT-File Format, MathWorks): arrays, texts, and structs of one element that hold them.

scipy reads more, but a small file of cells within cells ends its process.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import Reason, RecordError

HEADER_BYTES = 128
LARGEST = 64 << 20
"""Of all variables of a file together, decompressed."""

Value = NDArray[Any] | str | dict[str, "Value"] | None
"""None for what is of another kind."""

_COMPRESSED, _MATRIX = 15, 14
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)
_DEEPEST = 3


class _Damaged(Exception):
    """An element does not fit into what holds it."""


def variables(data: bytes) -> dict[str, Value]:
    """The variables of a file by name. Raises RecordError."""
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, Value] = {}
    room = LARGEST
    try:
        for kind, content in _elements(data, HEADER_BYTES, order):
            if kind == _COMPRESSED:
                content = zlib.decompressobj().decompress(content, room + 1)
                room -= len(content)
                if room < 0:
                    raise RecordError(Reason.TOO_LARGE, f"the file's variables take more than {LARGEST} bytes")
                kind, content = next(_elements(content, 0, order), (0, b""))
            if kind == _MATRIX:
                name, value = _matrix(content, order, 0)
                found[name] = value
    except (_Damaged, zlib.error, struct.error, StopIteration, ValueError) as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the MATLAB file is damaged, or cut off") from error
    return found


def _elements(data: bytes, at: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the elements from `at` on; a small one has both in eight bytes."""
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
            if size > 4:
                raise _Damaged
        else:
            start, step = at + 8, 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > len(data):
            raise _Damaged
        yield kind, data[start : start + size]
        at += step


def _matrix(content: bytes, order: str, depth: int) -> tuple[str, Value]:
    """Name and value of an array."""
    if not content:
        return "", None
    parts = _elements(content, 0, order)
    flags, dimensions, name = (next(parts)[1] for _ in range(3))
    (kind,) = struct.unpack_from(f"{order}I", flags)
    shape = np.frombuffer(dimensions, f"{order}i4").tolist()
    text = name.decode("latin-1")
    if kind & 0xFF in _NUMERIC:
        return text, _numbers(*next(parts), order, shape)
    if kind & 0xFF == _CHAR:
        _, codes = next(parts)
        return text, codes.replace(b"\0", b"").decode("latin-1")
    if kind & 0xFF == _STRUCT and shape == [1, 1] and depth < _DEEPEST:
        return text, _struct(parts, order, depth)
    return text, None


def _numbers(kind: int, content: bytes, order: str, shape: list[int]) -> NDArray[Any]:
    if kind not in _NUMBERS or min(shape, default=-1) < 0:
        raise _Damaged
    return np.frombuffer(content, order + _NUMBERS[kind]).reshape(shape, order="F")


def _struct(parts: Iterator[tuple[int, bytes]], order: str, depth: int) -> dict[str, Value]:
    (width,) = struct.unpack_from(f"{order}i", next(parts)[1])
    _, names = next(parts)
    if not 0 < width <= len(names):
        raise _Damaged
    fields = [names[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), width)]
    return {field: _matrix(next(parts)[1], order, depth + 1)[1] for field in fields}
