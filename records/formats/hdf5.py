"""HDF5 files: the layouts of CODE-15, SaMi-Trop and SPH, and arrays that `archive.toml` tells about.

One record (T, n) or (n, T), or many (N, T, n), n leads.
"""

import math
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import KEPT_BYTES, Format
from ecgbatch.records.formats.layout import NAME, Layout, layout_of
from ecgbatch.records.formats.library import library, reading_with
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import Reason, RecordError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512
"""MATLAB 7.3 files are HDF5 after so many bytes of their own."""

_CODE15 = Layout(rate=400.0, per_millivolt=1.0, leads=LEADS, dataset="tracings", ids="exam_id")
"""Ribeiro et al., Zenodo 4916206; of a part's last row, which is empty, `exam_id` is 0."""
_SAMI_TROP = Layout(rate=400.0, per_millivolt=1.0, leads=LEADS, dataset="tracings")
"""Ribeiro et al., Zenodo 4905618: as CODE-15, but for its rows' names."""
_SAMI_TROP_FILE = "exams.hdf5"
_FILLED_UP = (4096, 12)
"""Samples and leads of both: recordings lie amid zeros."""

_SPH = Layout(rate=500.0, per_millivolt=1.0, leads=LEADS, dataset="ecg")
"""Liu et al., Scientific Data 9, 272 (2022): float16, (12, T)."""

_LOOKED_AT = 4096
"""Values at once, to find the first that is not zero."""

_LARGEST_CHUNK = 64 << 20
"""Bytes. Of a chunked array a whole chunk is decompressed to read a part of it."""


class _File:
    """An open file and what it holds. It stays open for the next record, which mostly is of the same file."""

    def __init__(self, file: BinaryIO, name: str, identity: tuple[int, ...], layout: Layout | None) -> None:
        self._h5py = library("h5py", "h5py")
        with reading_with("h5py"):
            self._content = self._h5py.File(file, "r")
            arrays = self._arrays(layout)
            self.layout = layout or self._known_layout(name, arrays)
            self.dataset = arrays[self._name(arrays)]
            self.shape = self.dataset.shape  # h5py asks the file each time
            self._check()
            self._rows = self._named_rows()
        self.key = (identity, layout)
        self._file = file

    def close(self) -> None:
        """Ends the use of the file."""
        self._content.close()
        self._file.close()

    @property
    def members(self) -> list[str] | None:
        """The names of its records; None if it holds one, which needs none."""
        if len(self.shape) == 2:
            return None
        return [str(i) for i in range(self.shape[0])] if self._rows is None else list(self._rows)

    def read(self, member: str | None) -> Any:
        """The samples of a record as they are in the file. Raises RecordError."""
        if (member is None) != (len(self.shape) == 2):
            detail = "the file is one record, not many" if member else "the file holds many records: name one, FILE::ID"
            raise RecordError(Reason.MISSING_RECORD, detail)
        with reading_with("h5py"):
            return np.ascontiguousarray(self.dataset[()] if member is None else self.dataset[self._row(member)])

    def _row(self, member: str) -> int:
        count = self.shape[0]
        if self._rows is not None and member in self._rows:
            return self._rows[member]
        if self._rows is None and member.isascii() and member.isdecimal() and len(member) < 19 and int(member) < count:
            return int(member)
        raise RecordError(Reason.MISSING_RECORD, "the file has no record of this name")

    def _arrays(self, layout: Layout | None) -> dict[str, Any]:
        """The arrays of numbers of two or three dimensions, or the one that the layout names."""
        names = [layout.dataset] if layout and layout.dataset else list(self._content)[:1000]
        found = {name: array for name in names if (array := self._array(name)) is not None}
        return {name: array for name, array in found.items() if array.ndim in (2, 3) and array.dtype.kind in "iuf"}

    def _array(self, name: str) -> Any:
        """The array of this name; None for all else, and for what a link would bring in from another file."""
        group = self._content
        *folders, last = name.split("/")
        for folder in folders:
            if not isinstance(group.get(folder, getlink=True), self._h5py.HardLink):
                return None
            group = group[folder]
        if not isinstance(group, self._h5py.Group) or not isinstance(
            group.get(last, getlink=True), self._h5py.HardLink
        ):
            return None
        found = group[last]
        return found if isinstance(found, self._h5py.Dataset) else None

    def _known_layout(self, name: str, arrays: dict[str, Any]) -> Layout:
        tracings, sph = arrays.get("tracings"), arrays.get("ecg")
        if tracings is not None and tracings.shape[1:] == _FILLED_UP:
            if self._array("exam_id") is not None:
                return _CODE15
            if name == _SAMI_TROP_FILE:
                return _SAMI_TROP
        if sph is not None and len(arrays) == 1 and sph.dtype == np.float16 and sph.shape[0] == len(LEADS):
            return _SPH
        return Layout()

    def _name(self, arrays: dict[str, Any]) -> str:
        if self.layout.dataset in arrays:
            return self.layout.dataset
        if self.layout.dataset is not None:
            raise RecordError(Reason.MISSING_LAYOUT, f"the file has no array {self.layout.dataset!r}")
        if len(arrays) != 1:
            detail = f"the file has {len(arrays)} arrays that could be recordings: {NAME} must name one as dataset"
            raise RecordError(Reason.MISSING_LAYOUT, detail)
        return next(iter(arrays))

    def _check(self) -> None:
        """That reading a record takes no more memory than it should, and no other file."""
        array = self.dataset
        record = math.prod(array.shape[-2:]) * array.dtype.itemsize
        chunk = math.prod(array.chunks or ()) * array.dtype.itemsize
        if record > KEPT_BYTES or chunk > _LARGEST_CHUNK:
            raise RecordError(Reason.TOO_LARGE, f"a record of {record} bytes, in chunks of {chunk}")
        if len(array.shape) == 3 and array.shape[0] > array.id.get_storage_size():
            raise RecordError(Reason.TRUNCATED, f"the file has no samples for the {array.shape[0]} records it claims")
        if _is_elsewhere(array):
            raise RecordError(Reason.UNSAFE_PATH, "the array's numbers are in other files")

    def _named_rows(self) -> dict[str, int] | None:
        """The row of each record's name, where they have names."""
        if self.layout.ids is None or len(self.shape) == 2:
            return None
        names = self._array(self.layout.ids)
        if names is None or names.ndim != 1 or names.shape[0] < self.shape[0] or names.external or names.is_virtual:
            raise RecordError(Reason.MISSING_LAYOUT, f"the file has no array {self.layout.ids!r} of its records' names")
        values = names[: self.shape[0]]
        words = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
        rows: dict[str, int] = {}
        for row, word in enumerate(words):
            rows.setdefault(word, row)
        if self.layout is _CODE15 and words[-1] == "0":
            rows.pop("0")
        return rows


def _is_elsewhere(array: Any) -> bool:
    return bool(array.external or array.is_virtual)


_open = threading.local()


def _opened(files: Files, path: str) -> _File:
    """The file at this path: the one that this thread has still open, if it is the same and unchanged."""
    last: _File | None = getattr(_open, "file", None)
    layout = layout_of(files, path)
    file = files.open(path)
    status = os.fstat(file.fileno())
    identity = (os.getpid(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if last is not None and last.key == (identity, layout):
        file.close()
        return last
    try:
        found = _File(file, path.rpartition("/")[2], identity, layout)
    except BaseException:
        file.close()
        raise
    if last is not None and last.key[0][0] == identity[0]:
        last.close()
    _open.file = found
    return found


def _read(files: Files, path: str, member: str | None) -> Decoded:
    file = _opened(files, path)
    samples = file.read(member)
    files.digest(samples.data)
    if file.layout in (_CODE15, _SAMI_TROP):
        samples = _without_filling(samples)
    return file.layout.decode(samples, FORMAT.name)


def _without_filling(samples: NDArray[Any]) -> NDArray[Any]:
    """What is left of a row without the zeros that fill it up."""
    leads = samples.shape[1]
    before = _zeros(samples.ravel()) // leads
    after = _zeros(samples.ravel()[::-1]) // leads
    return samples[before : len(samples) - after] if before < len(samples) else samples


def _zeros(values: NDArray[Any]) -> int:
    """How many zeros there are before anything else."""
    for start in range(0, len(values), _LOOKED_AT):
        other = values[start : start + _LOOKED_AT] != 0
        if other.any():
            return start + int(other.argmax())
    return len(values)


def _members(files: Files, path: str) -> Iterator[str | None]:
    try:
        found = _opened(files, path).members
    except RecordError:
        found = None
    yield from found if found is not None else [None]


def _recognises(head: bytes) -> bool:
    return head.startswith(_SIGNATURE) or head[_USER_BLOCK:].startswith(_SIGNATURE)


FORMAT = Format("hdf5", _recognises, _read, _members)
