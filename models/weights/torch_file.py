"""Reads files of torch.save without torch: zip files of a pickle and of the numbers of each tensor, not compressed."""

import mmap
import os
import re
import stat
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.weights import pickled
from ecgbatch.models.weights.pickled import NotPlainError, Storage, Tensor
from ecgbatch.settings import EcgbatchError

LARGEST = 2**30
"""Bytes of a file; the published checkpoints have 2 to 7 million."""
MOST_ENTRIES = 10_000

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""How files of torch.save start, now and before torch 1.6."""

MALFORMED = (zipfile.BadZipFile, ValueError, TypeError, LookupError, AttributeError, EOFError, NotImplementedError)


class TorchFile:
    """A file of torch.save, open. `content` is what was saved, with a `Tensor` for each tensor.

    Raises EcgbatchError for a file that cannot be opened, is none of torch.save, is too large, holds more than tensors
    and plain values, or claims more numbers than it has; nothing in it is run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._storages: dict[Storage, NDArray[Any]] = {}
        try:
            self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        except FileNotFoundError:
            raise EcgbatchError(f"there is no file {path}") from None
        except OSError as error:
            raise EcgbatchError(f"{self._none()} ({error.strerror})") from None
        try:
            self._unread = self._check_size()
            self._zip = self._open_zip()
            self.content = self._content()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """A tensor's numbers as they are kept, bfloat16 as float32. Raises EcgbatchError as the class does."""
        if tensor.storage not in self._storages:
            try:
                self._storages[tensor.storage] = self._numbers(tensor.storage)
            except MALFORMED:
                raise EcgbatchError(self._none()) from None
        numbers = self._storages[tensor.storage][tensor.offset :]
        strides = [stride * numbers.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False).copy()

    def _none(self) -> str:
        return f"{self._path} is no checkpoint: give a .ckpt file that Lightning wrote"

    def _check_size(self) -> int:
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise EcgbatchError(self._none())
        if status.st_size > LARGEST:
            raise EcgbatchError(f"{self._path} is larger than {LARGEST / 2**30:g} GiB, as no checkpoint is")
        return status.st_size

    def _open_zip(self) -> zipfile.ZipFile:
        start = self._file.read(len(ZIP))
        if start.startswith(PICKLE):
            raise EcgbatchError(
                f"{self._path} is a bare pickle, as torch wrote before 1.6: refused; load it there and save it again"
            )
        if start != ZIP:
            raise EcgbatchError(self._none())
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            if sum(1 for _ in re.finditer(rb"PK\x01\x02", whole)) > MOST_ENTRIES:
                raise EcgbatchError(self._none())
        try:
            return zipfile.ZipFile(self._file)
        except MALFORMED:
            raise EcgbatchError(self._none()) from None

    def _content(self) -> Any:
        try:
            [name] = [name for name in self._zip.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            self._folder = name.removesuffix("data.pkl")
            order = self._folder + "byteorder"
            self._little = order not in self._zip.namelist() or self._read(order, 10) != b"big"
            return pickled.load(self._read(name, pickled.LARGEST))
        except NotPlainError as error:
            raise EcgbatchError(
                f"{self._path} holds more than tensors and plain values, which could run code: refused ({error})"
            ) from None
        except MALFORMED:
            raise EcgbatchError(self._none()) from None

    def _numbers(self, storage: Storage) -> NDArray[Any]:
        order = "<" if self._little else ">"
        kind = np.dtype(order + ("u2" if storage.kind == "bfloat16" else storage.kind))
        data = self._read(f"{self._folder}data/{storage.key}", storage.count * kind.itemsize)
        numbers = np.frombuffer(data, kind, storage.count)
        if storage.kind == "bfloat16":
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers

    def _read(self, name: str, most: int) -> bytes:
        """An entry's bytes, which must lie in the file as they are, and all entries together no more than the file."""
        entry = self._zip.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise EcgbatchError(f"{self._path} is compressed, as torch never does: refused")
        self._unread -= entry.file_size
        if entry.file_size > most or self._unread < 0:
            raise EcgbatchError(f"{self._path} claims more than it holds: refused")
        return self._zip.read(entry)
