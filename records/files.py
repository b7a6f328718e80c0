"""Opens the files of a record: regular files below the archive's folder, of a bounded size, all of them digested."""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ecgbatch.records.places import place_at
from ecgbatch.records.recording import Reason, RecordError

LARGEST_RECORD = 4 << 30
"""Bytes of all files of a record together."""

_CHUNK_BYTES = 1 << 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class Content(NamedTuple):
    """A file's first bytes, all of them unless fewer were asked for, and its size."""

    data: bytes
    size: int


class Files:
    """The files of one record, by their paths relative to the archive's folder, and their common digest.

    Links are followed as in `records.places`.
    """

    def __init__(self, root: Path, follow_links: bool = False) -> None:
        self._place = place_at(root, follow_links)
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of all that was loaded, in that order."""
        return self._digest.hexdigest()

    def exists(self, path: str) -> bool:
        """Whether there is anything at this path."""
        return self._place.exists(path)

    def load(
        self,
        path: str,
        limit: int,
        *,
        keep: int | None = None,
        missing: Reason = Reason.MISSING_HEADER,
        unreadable: Reason = Reason.UNREADABLE_HEADER,
    ) -> Content:
        """A file's first `keep` bytes, or all; it goes into the digest as a whole.

        Raises RecordError: `missing`, `unreadable`, `not_a_file`, `unsafe_path`, or `too_large` for a file of more
        than `limit` bytes.
        """
        name = path.rpartition("/")[2]
        file, size = self._open(path, name, missing, unreadable)
        with file:
            self._size += size
            if size > limit or self._size > LARGEST_RECORD:
                most = min(limit, LARGEST_RECORD)
                raise RecordError(Reason.TOO_LARGE, f"{name} has {size} bytes; a record may have {most}")
            try:
                data = file.read(size if keep is None else min(size, keep))
                if data.startswith(_LFS_POINTER):
                    raise RecordError(unreadable, f"{name} is a Git LFS pointer: run git lfs pull")
                self._digest.update(data)
                have = len(data)
                while have < size and (chunk := file.read(_CHUNK_BYTES)):
                    self._digest.update(chunk)
                    have += len(chunk)
            except OSError as error:
                raise RecordError(unreadable, f"{name}: {error.strerror}") from error
        return Content(data, have)

    def head(self, path: str, count: int) -> bytes:
        """A file's first bytes, to see what it is; they do not go into the digest. Raises RecordError as `load`."""
        name = path.rpartition("/")[2]
        file, _ = self._open(path, name, Reason.MISSING_HEADER, Reason.UNREADABLE_HEADER)
        with file:
            try:
                data = file.read(count)
            except OSError as error:
                raise RecordError(Reason.UNREADABLE_HEADER, f"{name}: {error.strerror}") from error
        if data.startswith(_LFS_POINTER):
            raise RecordError(Reason.UNREADABLE_HEADER, f"{name} is a Git LFS pointer: run git lfs pull")
        return data

    def open(self, path: str) -> BinaryIO:
        """A file of many records, open for reading; `digest` takes what is read of it. Raises RecordError as `load`."""
        return self._open(path, path.rpartition("/")[2], Reason.MISSING_SIGNAL_FILE, Reason.UNREADABLE_SIGNAL)[0]

    def digest(self, data: bytes | memoryview) -> None:
        """Adds to the digest what was read of an open file."""
        self._digest.update(data)

    def _open(self, path: str, name: str, missing: Reason, unreadable: Reason) -> tuple[BinaryIO, int]:
        try:
            return self._place.open(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RecordError(missing, f"there is no {name}") from error
        except OSError as error:
            raise RecordError(unreadable, f"{name}: {error.strerror}") from error


def check_path(record: str) -> None:
    """Raises RecordError (`unsafe_path`) for a record's path that does not lead down from the archive's folder."""
    parts = re.split(r"[/\\]" if os.sep == "\\" else "/", record)
    if parts[0] == "" or parts[-1] in ("", ".") or ".." in parts or "\0" in record:
        raise RecordError(Reason.UNSAFE_PATH, f"{record!r} is no path below the archive's folder")
    if re.match(r"[\w+.-]{1,20}://", record):
        raise RecordError(Reason.UNSAFE_PATH, f"{record!r} is a URL")
