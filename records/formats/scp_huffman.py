"""Huffman codes of SCP-ECG: the tables of its section 2, and what they make of a lead's bits."""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import Reason, RecordError

_DEFAULT = 19999
"""The number of tables that stands for the standard's own table."""

_LONGEST_PREFIX, _LONGEST_VALUE, _MOST_TABLES = 16, 24, 16


class _Code(NamedTuple):
    """A prefix's bits; the bits of the value that follows, if any; and a value, or the table to go on with."""

    prefix: int
    extra: int
    value: int
    table: int | None


class _Table(NamedTuple):
    """For each number of `bits` bits the code that it begins with, if any."""

    bits: int
    codes: list[_Code | None]


Tables = list[_Table]


def _table(codes: list[tuple[int, _Code]]) -> _Table:
    """Of codes and their prefixes, the first bit of which is the highest."""
    bits = max((code.prefix for _, code in codes), default=1)
    found: list[_Code | None] = [None] * (1 << bits)
    for prefix, code in codes:
        free = bits - code.prefix
        found[prefix << free : (prefix + 1) << free] = [code] * (1 << free)
    return _Table(bits, found)


def _default_table() -> _Table:
    codes = [(0b0, _Code(1, 0, 0, None))]
    for magnitude in range(1, 9):
        ones = ((1 << magnitude) - 1) << 2
        codes.append((ones, _Code(magnitude + 2, 0, magnitude, None)))
        codes.append((ones | 1, _Code(magnitude + 2, 0, -magnitude, None)))
    codes.append((0b1111111110, _Code(10, 8, 0, None)))
    codes.append((0b1111111111, _Code(10, 16, 0, None)))
    return _table(codes)


_DEFAULT_TABLES = [_default_table()]


def read_tables(section: bytes) -> Tables | None:
    """The tables of section 2, None if it has none. Raises RecordError for what cannot be a table."""
    (count,) = struct.unpack_from("<H", section)
    if count in (0, _DEFAULT):
        return _DEFAULT_TABLES if count else None
    if count > _MOST_TABLES:
        raise RecordError(Reason.UNREADABLE_HEADER, f"the file has {count} Huffman tables")
    tables = []
    at = 2
    for _ in range(count):
        (codes,) = struct.unpack_from("<H", section, at)
        tables.append(_table([_code(section, at + 2 + 9 * i, count) for i in range(codes)]))
        at += 2 + 9 * codes
    return tables


def _code(section: bytes, at: int, tables: int) -> tuple[int, _Code]:
    prefix, total, holds_value, value, reversed_bits = struct.unpack_from("<BBBhI", section, at)
    extra = total - prefix
    leads_nowhere = not holds_value and not 0 < value <= tables
    if not 0 < prefix <= _LONGEST_PREFIX or not 0 <= extra <= _LONGEST_VALUE or leads_nowhere:
        raise RecordError(Reason.UNREADABLE_HEADER, "a Huffman table is damaged")
    bits = sum((reversed_bits >> i & 1) << (prefix - 1 - i) for i in range(prefix))
    return bits, _Code(prefix, extra, value, None if holds_value else value - 1)


def decoded(data: bytes, count: int, tables: Tables) -> NDArray[np.int64]:
    """At most `count` values; fewer if the bits end before. Raises RecordError for bits that no code begins with."""
    content = np.frombuffer(data + bytes(8), np.uint8).astype(np.int64)
    words = (content[:-3] << 24 | content[1:-2] << 16 | content[2:-1] << 8 | content[3:]).tolist()
    bits, codes = tables[0]
    values: list[int] = []
    at, end = 0, 8 * len(data)
    while len(values) < count and at < end:
        code = codes[words[at >> 3] >> (32 - (at & 7) - bits) & ((1 << bits) - 1)]
        if code is None:
            raise RecordError(Reason.UNREADABLE_SIGNAL, "a lead's bits are no Huffman codes")
        prefix, extra, value, table = code
        at += prefix
        if at + extra > end:
            break
        if table is not None:
            bits, codes = tables[table]
            continue
        if extra:
            number = words[at >> 3] >> (32 - (at & 7) - extra) & ((1 << extra) - 1)
            value += number - (1 << extra) if number >> (extra - 1) else number
            at += extra
        values.append(value)
    return np.array(values, dtype=np.int64)
