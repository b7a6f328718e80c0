"""Reads `normalization_params.npz`, the two numbers that a published training left beside its checkpoint."""

import io
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ecgbatch.models.preprocessing import Normalization
from ecgbatch.settings import EcgbatchError

LARGEST = 2**16
"""Bytes of the file, and of an array in it; two numbers take less than a thousand."""


def load_normalization(path: Path) -> Normalization:
    """Reads global_mean and global_std, in older files arr_0 and arr_1.

    Raises EcgbatchError for a file that holds neither, or something else than two numbers; nothing larger than 64 KiB
    is unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(_content(path))) as arrays:
            return Normalization(*_mean_and_std(path, arrays))
    except FileNotFoundError:
        raise EcgbatchError(f"there is no file {path}") from None
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise EcgbatchError(f"{path} is no .npz file of two numbers, as normalization_params.npz is") from None


def _content(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("no regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("too large")
    return content


def _mean_and_std(path: Path, arrays: zipfile.ZipFile) -> tuple[float, float]:
    entries = {entry.filename: entry for entry in arrays.infolist()}
    for mean, std in (("global_mean", "global_std"), ("arr_0", "arr_1")):
        if f"{mean}.npy" in entries and f"{std}.npy" in entries:
            return _number(arrays, entries[f"{mean}.npy"]), _number(arrays, entries[f"{std}.npy"])
    raise EcgbatchError(f"{path} holds neither global_mean and global_std nor arr_0 and arr_1")


def _number(arrays: zipfile.ZipFile, entry: zipfile.ZipInfo) -> float:
    """The one number of an array. Raises ValueError for anything else, before it is unpacked."""
    if entry.file_size > LARGEST:
        raise ValueError("too large")
    file = io.BytesIO(arrays.read(entry))
    read_header: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    if read_header is None:
        raise ValueError("an unknown version of .npy")
    shape, _, kind = read_header(file)
    if set(shape) - {1} or kind.kind not in "fiu":
        raise ValueError("no single number")
    return float(np.frombuffer(file.read(), kind, 1)[0])
