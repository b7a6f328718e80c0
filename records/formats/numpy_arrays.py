"""NumPy's `.npy` files, of one record (T, n) or of many (N, T, n), n leads; `archive.toml` tells the rest."""

import io
import math
import os
import tokenize
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import HEAD_BYTES, KEPT_BYTES, Format
from ecgbatch.records.formats.layout import Layout, layout_of
from ecgbatch.records.formats.library import reading_with
from ecgbatch.records.recording import Reason, RecordError

_MAGIC = b"\x93NUMPY"


class _Array(NamedTuple):
    """What the beginning of a file says of its array, and where its numbers begin."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    start: int


def _read(files: Files, path: str, member: str | None) -> Decoded:
    layout = layout_of(files, path) or Layout()
    with files.open(path) as file:
        array = _header(file.read(HEAD_BYTES))
        many = len(array.shape) == 3
        if many != (member is not None):
            raise RecordError(Reason.MISSING_RECORD, f"the file holds {array.shape[0]} records: name one, as FILE::0")
        index = _index(member, array.shape[0]) if member is not None else 0
        shape = array.shape[1:] if many else array.shape
        size = math.prod(shape) * array.dtype.itemsize
        if size > KEPT_BYTES:
            raise RecordError(Reason.TOO_LARGE, f"a record of {size} bytes, more than {KEPT_BYTES}")
        file.seek(array.start + index * size)
        content = file.read(size)
    files.digest(content)
    if len(content) < size:
        raise RecordError(Reason.TRUNCATED, "the file ends before the record does")
    return layout.decode(np.frombuffer(content, array.dtype).reshape(shape, order=array.order), FORMAT.name)


def _header(head: bytes) -> _Array:
    """Raises RecordError for what cannot be an array of records."""
    file = io.BytesIO(head)
    with reading_with("numpy", tokenize.TokenError, SyntaxError):
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    known = len(shape) == 2 or (len(shape) == 3 and not fortran)
    if dtype.kind not in "iuf" or not known or not all(0 < n < 1 << 40 for n in shape):
        detail = "an array must be of numbers, (T, n), or (N, T, n) in C order; pickled objects are not read"
        raise RecordError(Reason.UNREADABLE_HEADER, detail)
    return _Array(shape, "F" if fortran else "C", dtype, file.tell())


def _index(member: str, count: int) -> int:
    if not (member.isascii() and member.isdecimal() and len(member) < 19 and int(member) < count):
        raise RecordError(Reason.MISSING_RECORD, f"the file has records 0 to {count - 1}")
    return int(member)


def _members(files: Files, path: str) -> Iterator[str | None]:
    try:
        with files.open(path) as file:
            array = _header(file.read(HEAD_BYTES))
            there = (os.fstat(file.fileno()).st_size - array.start) // array.dtype.itemsize
    except (RecordError, OSError):
        yield None
        return
    claimed, *record = array.shape
    yield from map(str, range(min(claimed, there // math.prod(record)))) if len(record) == 2 else [None]


FORMAT = Format("npy", lambda head: head.startswith(_MAGIC), _read, _members)
