"""Writes WFDB records, sound and damaged, and reads them in every way there is."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import wfdb
from hypothesis import settings
from numpy.typing import NDArray

from ecgbatch.records import compiled, formats
from ecgbatch.records.files import Files
from ecgbatch.records.finishing import finish
from ecgbatch.records.formats import wfdb_compiled
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError, Recording

FEW = settings(max_examples=25, deadline=None)
needs_compiler = pytest.mark.skipif(
    not compiled.available(), reason="the compiled reader is not built: needs a C++ compiler at install time"
)
HEADER = "\n".join(["r 12 100 1000", *(f"r.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS)])
FRAGMENTS = [
    *("r 12 100 1000", "r/2 12 100 1000", "r 12", "r 12 500 99999999", "s1 500", "~ 500", "#Age: 1", "", " "),
    *(f"r.dat {form} 1000(0)/mV 16 0 0 0 0 I" for form in ("16", "212", "8x3", "516", "310:7", "16+24", "24x999999")),
    *("r.dat 16", "r.dat 16 1e400/mV 16 0 0 0 0 V1", "r.dat 16 nan", "~ 0 200/mV 16 0 0 0 0 II", "\0", "r 12 1e999"),
]


def samples(seed: int = 0, count: int = 1000, leads: int = 12, bits: int = 16) -> NDArray[np.int64]:
    """Random samples of a format's whole range but the one value that means an invalid sample."""
    highest = 2 ** (bits - 1)
    return np.random.default_rng(seed).integers(1 - highest, highest, (count, leads))


def write(
    folder: Path,
    digital: NDArray[np.int64],
    rate: str = "100",
    names: tuple[str, ...] = LEADS,
    scale: str = "1000(0)/mV",
    name: str = "r",
    length: str | None = None,
    checksums: NDArray[np.int64] | None = None,
) -> None:
    """Writes a record of format 16."""
    sums = digital.sum(axis=0) % 65536 if checksums is None else checksums
    lines = [f"{name} {len(names)} {rate} {len(digital) if length is None else length}"]
    lines += [f"{name}.dat 16 {scale} 16 0 0 {sums[i]} 0 {lead}" for i, lead in enumerate(names)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.dat").write_bytes(digital.astype("<i2").tobytes())


def failure(root: Path, record: str = "r") -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(root, record)
    error = caught.value
    assert error.stage == "read"
    assert error.detail and error.detail.isprintable() and len(error.detail) <= 300
    return error


def reason(root: Path, record: str = "r") -> Reason:
    return failure(root, record).reason


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def by_wfdb(path: Path) -> NDArray[np.float64]:
    """The first ten seconds in the order of LEADS."""
    record = wfdb.rdrecord(str(path), sampto=int(10 * wfdb.rdheader(str(path)).fs))
    found = [name.upper() for name in record.sig_name]
    signal: NDArray[np.float64] = record.p_signal[:, [found.index(lead.upper()) for lead in LEADS]]
    return signal


def compiled_takes(record: Path) -> bool:
    """Whether a record is read the plain way; then the general way must give the same."""
    plain = wfdb_compiled.read(record.parent, record.name, 5, True)
    if plain is None:
        return False
    files = Files(record.parent, follow_links=True)
    general = finish(formats.decode(files, record.name, None, 10), files.sha256, 5)
    assert plain.signal.tobytes() == general.signal.tobytes()
    assert (plain.sha256, plain.flags, plain.age) == (general.sha256, general.flags, general.age)
    return True


class allocating_at_most:  # noqa: N801
    """Fails if Python or numpy held more bytes at once than given."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *_: object) -> None:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < self.limit, f"{peak} bytes"


def read_or_fail(header: bytes, data: bytes) -> Recording | None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "r.hea").write_bytes(header)
        (Path(folder) / "r.dat").write_bytes(data)
        try:
            with allocating_at_most(32 << 20):
                recording = read(Path(folder), "r")
        except RecordError:
            return None
        compiled_takes(Path(folder) / "r")
        return recording
