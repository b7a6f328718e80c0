"""ISHNE Holter files (Badilini, Ann Noninvasive Electrocardiol 1998), their header as it is laid down there."""

import binascii
import struct

import numpy as np

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import Format, whole_file
from ecgbatch.records.formats.patient import day_of, years_between
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import Flag, Reason, RecordError

_MAGIC = b"ISHNE1.0"
_HEADER_BYTES = 522
_MOST_LEADS = 12
_LEADS = dict(enumerate(LEADS, start=5))
_NANOVOLTS_PER_MILLIVOLT = 1e6


def _decode(data: bytes, size: int) -> Decoded:
    if len(data) < _HEADER_BYTES:
        raise RecordError(Reason.TRUNCATED, "the file ends within its header")
    (variable_bytes,) = struct.unpack_from("<i", data, 10)
    (leads,) = struct.unpack_from("<h", data, 156)
    (rate,) = struct.unpack_from("<h", data, 272)
    start = _HEADER_BYTES + variable_bytes
    if not 0 < leads <= _MOST_LEADS or variable_bytes < 0 or start > len(data):
        raise RecordError(Reason.UNREADABLE_HEADER, "the header gives impossible numbers")
    codes = struct.unpack_from(f"<{leads}h", data, 158)
    nanovolts = struct.unpack_from(f"<{leads}h", data, 206)
    if min(nanovolts) <= 0:
        raise RecordError(Reason.UNSUPPORTED_UNITS, "the header gives no resolution for a lead")
    # The header's number of samples is not to be trusted: some devices give a constant, some all leads' together.
    frames = (len(data) - start) // (2 * leads)
    digital = np.frombuffer(data, "<i2", frames * leads, start).reshape(frames, leads)
    device = data[232:272].split(b"\0")[0].decode("latin-1").strip()
    return Decoded(
        digital * (np.array(nanovolts) / _NANOVOLTS_PER_MILLIVOLT),
        float(rate),
        tuple(_LEADS.get(code, f"code {code}") for code in codes),
        FORMAT.name,
        length=(size - start) // (2 * leads),
        flags=frozenset() if _checksum_agrees(data, start) else frozenset({Flag.CHECKSUM_MISMATCH}),
        age=years_between(day_of(*_reversed(data, 132)), day_of(*_reversed(data, 138))),
        sex={1: 0, 2: 1}.get(struct.unpack_from("<h", data, 128)[0]),
        device=device if device.lower() not in ("", "analog", "digital") else None,
    )


def _reversed(data: bytes, at: int) -> tuple[int, int, int]:
    """Year, month and day of three numbers that stand there as day, month and year."""
    day_of_month, month, year = struct.unpack_from("<3h", data, at)
    return year, month, day_of_month


def _checksum_agrees(data: bytes, start: int) -> bool:
    """CRC-16 of the header after itself, its bytes in either order; 0 where the device does not compute it."""
    (claimed,) = struct.unpack_from("<H", data, 8)
    computed = binascii.crc_hqx(data[10:start], 0xFFFF)
    return claimed in (0, computed, computed >> 8 | (computed & 0xFF) << 8)


FORMAT = Format("ishne", lambda head: head.startswith(_MAGIC), whole_file(_decode))
