"""Damaged and hostile files of every format: never anything but a recording or a reason, and never for long."""

import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from ecg_files import ARCHIVE_TOML, WRITERS, code15
from ecg_made import Ecg, make

from ecgbatch.records.files import Files
from ecgbatch.records.formats import hdf5, numpy_arrays
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError

DAMAGED_COPIES = 15
SECONDS = 1.0
"""Of the processor's time: a busy machine is not a file's fault."""

_NUMBERS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\0\0\x80", b"99999999", b"-1")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, numbers replaced, or parts lost, doubled or overwritten, mostly near the beginning."""
    made = bytearray(content)
    at = rng.randrange(min(len(made), rng.choice((64, 600, 4000, len(made)))))
    match rng.randrange(6):
        case 0:
            made[at] ^= 1 << rng.randrange(8)
        case 1:
            return content[: rng.randrange(len(content))]
        case 2:
            number = rng.choice(_NUMBERS)
            made[at : at + len(number)] = number
        case 3:
            del made[at : at + rng.choice((1, 7, 100, 3000))]
        case 4:
            made[at:at] = made[: rng.choice((1, 8, 500))]
        case _:
            made[at : at + 256] = rng.randbytes(rng.choice((1, 16, 256)))
    return bytes(made)


def ends(root: Path, record: str) -> Reason | None:
    """Reads a record that must be read or fail with a reason, soon; the reason."""
    started = time.process_time()
    try:
        read(root, record)
        reason = None
    except RecordError as error:
        assert error.detail and error.detail.isprintable()
        reason = error.reason
    assert time.process_time() - started < SECONDS
    return reason


@pytest.mark.parametrize("name", [*WRITERS, "part.hdf5", "compressed.hdf5"])
def test_damaged_copies(ecg: Ecg, tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    (tmp_path / "archive.toml").write_text(ARCHIVE_TOML.format(rate=ecg.rate))
    if name in WRITERS:
        content, member = WRITERS[name](ecg), ""
    else:
        (tmp_path / "archive.toml").unlink()
        options = {"chunks": (1, 4096, 12), "compression": "gzip"} if name == "compressed.hdf5" else {}
        code15(tmp_path / name, [make(400)], [1], **options)
        content, member = (tmp_path / name).read_bytes(), "::1"
    (tmp_path / name).write_bytes(content)
    assert ends(tmp_path, name + member) is None
    for _ in range(DAMAGED_COPIES):
        (tmp_path / name).write_bytes(damaged(content, rng))
        ends(tmp_path, name + member)


def deep_xml() -> bytes:
    return b"<RestingECG>" + b"<a>" * 200_000


def wide_xml() -> bytes:
    return b"<RestingECG>" + b"<a/>" * 2_000_000 + b"</RestingECG>"


def entities() -> bytes:
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    return f'<!DOCTYPE RestingECG [<!ENTITY e0 "x">{lines}]><RestingECG>&e8;</RestingECG>'.encode()


def outside(path: Path) -> bytes:
    return f'<!DOCTYPE RestingECG [<!ENTITY x SYSTEM "file://{path}">]><RestingECG>&x;</RestingECG>'.encode()


def matlab(content: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM" + content


def cells_within_cells(depth: int) -> bytes:
    """What ends the process of readers that recurse."""
    head = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1) + struct.pack("<II", 1, 0)
    sizes = [(len(head) + 8) * n for n in range(depth, 0, -1)]
    return matlab(b"".join(struct.pack("<II", 14, size) + head for size in sizes) + struct.pack("<II", 14, 0))


def decompression_bomb() -> bytes:
    packed = zlib.compress(bytes(100 << 20), 9)
    return matlab(struct.pack("<II", 15, len(packed)) + packed)


def numpy_header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117) + b"\n"


def long_dimensions() -> bytes:
    return numpy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999, 12), }")


def pickled() -> bytes:
    return numpy_header(b"{'descr': '|O', 'fortran_order': False, 'shape': (1000, 12), }")


@pytest.mark.parametrize(
    "make_file",
    [deep_xml, wide_xml, entities, lambda: cells_within_cells(100_000), decompression_bomb, long_dimensions, pickled],
    ids=["deep XML", "wide XML", "entities", "cells", "bomb", "dimensions", "pickle"],
)
def test_hostile_files(tmp_path: Path, make_file: Callable[[], bytes]) -> None:
    (tmp_path / "hostile").write_bytes(make_file())
    assert ends(tmp_path, "hostile") is not None


def test_no_more_records_are_listed_than_a_file_can_hold(tmp_path: Path) -> None:
    header = numpy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 10, 12), }")
    (tmp_path / "x.npy").write_bytes(header + bytes(960 * 3 + 8))
    assert list(numpy_arrays.FORMAT.members(Files(tmp_path), "x.npy")) == ["0", "1", "2"]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("tracings", (99_999_999, 4096, 12), np.float32, chunks=(1, 4096, 12))
        file["exam_id"] = [1]
    assert list(hdf5.FORMAT.members(Files(tmp_path), "x.h5")) == [None]
    assert ends(tmp_path, "x.h5") is Reason.TRUNCATED


def test_no_other_file_is_read_for_xml(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x.xml").write_bytes(outside(tmp_path / "secret"))
    with pytest.raises(RecordError, match="entities") as caught:
        read(tmp_path, "x.xml")
    assert "secret" not in caught.value.detail


def test_a_philips_lead_of_negative_size_ends(tmp_path: Path) -> None:
    content = WRITERS["philips.xml"](make(500)).decode("utf-16")
    start = content.index(">", content.index("<parsedwaveforms")) + 1
    hostile = content[:start] + "+P///wEAAAA" + content[start + 11 :]  # -8 bytes
    (tmp_path / "x.xml").write_bytes(hostile.encode("utf-16"))
    assert ends(tmp_path, "x.xml") is Reason.TRUNCATED


def test_hdf5_that_refers_to_other_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "target.h5", "w") as file:
        file["ecg"] = np.zeros((12, 5000), np.float16)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["ecg"] = h5py.ExternalLink("target.h5", "ecg")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((12, 5000), np.float16)
        layout[:] = h5py.VirtualSource("target.h5", "ecg", (12, 5000))
        file.create_virtual_dataset("ecg", layout)
    with h5py.File(tmp_path / "external.h5", "w") as file:
        external = [("target.h5", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("ecg", (12, 5000), np.float16, external=external)
    assert ends(tmp_path, "link.h5") is Reason.MISSING_LAYOUT
    assert ends(tmp_path, "virtual.h5") is Reason.UNSAFE_PATH
    assert ends(tmp_path, "external.h5") is Reason.UNSAFE_PATH
