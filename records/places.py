"""Where an archive's files are: in a folder, in a `.zip` as it was downloaded, or behind a URL."""

import io
import os
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from ecgbatch.records.recording import Reason, RecordError
from ecgbatch.records.remote import ListedEntry, Remote, url_of
from ecgbatch.settings import EcgbatchError


class DatabaseInUse(RecordError):
    """A file of an SQLite database that some process has open."""


class Entry(Protocol):
    """What is in a folder, as os.DirEntry."""

    @property
    def name(self) -> str:
        """Without its folder."""

    def is_dir(self) -> bool:
        """Whether it is a folder, or a link to one."""

    def is_symlink(self) -> bool:
        """Whether it is a link."""


class Place(Protocol):
    """The files of an archive, by their paths relative to it."""

    def check(self) -> None:
        """Raises EcgbatchError, with what to do, where there is no archive."""

    def open(self, path: str) -> tuple[BinaryIO, int]:
        """A regular file, open for reading, and its size in bytes.

        Raises OSError, or RecordError (`not_a_file`, `unsafe_path`) for what must not be opened.
        """

    def exists(self, path: str) -> bool:
        """Whether there is anything at this path, be it a link to nothing."""

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder at this path."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """What is in a folder. Raises OSError."""

    def may_enter(self, path: str) -> bool:
        """Whether what is at this path lies in the archive, or may be followed out of it."""

    def identity(self, folder: str) -> Hashable:
        """What a folder is, by whatever path it was reached."""


def place_at(root: Path, follow_links: bool = False) -> Place:
    """The place of an archive; links may lead out of it only with `follow_links`."""
    if url := url_of(root):
        return _remote(url)
    return ZippedFolder(root) if is_zip(root) else Folder(root, follow_links)


@lru_cache(maxsize=4)
def _remote(url: str) -> Remote:
    """One of each, so that it keeps what it has just fetched."""
    return Remote(url)


def is_zip(root: Path) -> bool:
    """Whether an archive is a zip file, by its name."""
    return root.suffix.lower() == ".zip" and os.path.isfile(root)


class Folder:
    """A folder. Links are followed within it; out of it only with `follow_links`."""

    def __init__(self, root: Path, follow_links: bool = False) -> None:
        self._root = str(root)
        self._real_root = os.path.realpath(root).rstrip("/") + "/"
        self._follow_links = follow_links

    def check(self) -> None:
        what = f"there is no archive at {self._root}"
        try:
            os.stat(f"{self._root}/.")
        except NotADirectoryError:
            raise EcgbatchError(f"{self._root} is not a folder: give the folder of recordings, or a .zip") from None
        except OSError as error:
            raise EcgbatchError(f"{what} ({error.strerror}): give the folder of recordings, or a .zip") from error

    def open(self, path: str) -> tuple[BinaryIO, int]:
        full = f"{self._root}/{path}"
        # Opening a pipe may block and opening a device may act on it, so look before; and after, to be sure.
        _check_is_file(os.stat(full), path)
        _check_is_no_open_database(full, path)
        file = os.fdopen(os.open(full, os.O_RDONLY | os.O_NONBLOCK), "rb")
        try:
            status = os.fstat(file.fileno())
            _check_is_file(status, path)
            if not self._follow_links and not _real_path(file.fileno(), full).startswith(self._real_root):
                detail = f"{_name(path)} is a link out of the archive; ECGBATCH_FOLLOW_LINKS=true allows it"
                raise RecordError(Reason.UNSAFE_PATH, detail)
        except RecordError:
            file.close()
            raise
        return file, status.st_size

    def exists(self, path: str) -> bool:
        try:
            return os.path.lexists(f"{self._root}/{path}")
        except ValueError:  # it holds NUL
            return False

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(f"{self._root}/{path}")

    def entries(self, folder: str) -> Iterator[Entry]:
        with os.scandir(f"{self._root}/{folder}") as scan:
            yield from scan

    def may_enter(self, path: str) -> bool:
        return self._follow_links or (os.path.realpath(f"{self._root}/{path}") + "/").startswith(self._real_root)

    def identity(self, folder: str) -> Hashable:
        try:
            status = os.stat(f"{self._root}/{folder}")
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _check_is_file(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RecordError(Reason.NOT_A_FILE, f"{_name(path)} is not a regular file")


def _check_is_no_open_database(full: str, path: str) -> None:
    """An SQLite database that is in use has a file NAME-wal beside it. No other code may open and close it: that would
    take away the locks which this process has on it, by POSIX, and another process would delete what it writes.
    """
    real = os.path.realpath(full) if os.path.islink(full) else full
    if real.endswith(("-wal", "-shm")) or os.path.exists(f"{real}-wal"):
        raise DatabaseInUse(Reason.NOT_A_FILE, f"{_name(path)} belongs to a database that is in use")


def _real_path(descriptor: int, path: str) -> str:
    """Where an open file is, links followed: Linux tells it in one call, elsewhere each folder is asked."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.realpath(path)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


# ------------------------------------------------------------------------------------------ zip

LARGEST_SOUGHT_IN = 64 << 20
"""Bytes of a member in which a record may be looked for that is not at its beginning."""

_UNPACK = "a file of many records cannot be read in a .zip: unpack it"


class _Content:
    """An opened zip file: its members by path and the members of each folder.

    If all of it lies in one folder, as in a downloaded archive, that is where paths begin. Members whose paths lead
    out are not there.
    """

    def __init__(self, path: str) -> None:
        self.file = zipfile.ZipFile(path)
        members = {info.filename: info for info in self.file.infolist() if _leads_down(info.filename)}
        tops = {name.partition("/")[::2] for name in members}
        folders = {top for top, _ in tops}
        start = f"{folders.pop()}/" if len(folders) == 1 and all("/" in name for name in members) else ""
        self.files = {name[len(start) :]: info for name, info in members.items() if not info.is_dir()}
        self.folders: dict[str, dict[str, bool]] = defaultdict(dict)
        for name in self.files:
            self._add(name, is_folder=False)

    def _add(self, path: str, is_folder: bool) -> None:
        folder, _, name = path.rpartition("/")
        known = name in self.folders[folder]
        self.folders[folder][name] = is_folder
        if folder and not known:
            self._add(folder, is_folder=True)


def _leads_down(name: str) -> bool:
    return all(part not in ("", ".", "..") for part in name.removesuffix("/").split("/")) and "\\" not in name


@lru_cache(maxsize=2)
def _content(path: str, _unchanged: tuple[int, ...]) -> _Content:
    return _Content(path)


class ZippedFolder:
    """A `.zip`. It has no links: a member that is one is no file."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    @property
    def _content(self) -> _Content:
        status = os.stat(self._root)  # a process of its own has a file of its own: they would share its position
        with _damage_is_an_os_error():
            return _content(self._root, (os.getpid(), status.st_ino, status.st_size, status.st_mtime_ns))

    def check(self) -> None:
        try:
            _ = self._content
        except OSError as error:
            raise EcgbatchError(
                f"{self._root} cannot be read as a .zip ({error}): unpack it, or get it again"
            ) from None

    def open(self, path: str) -> tuple[BinaryIO, int]:
        """What a damaged member raises is made an OSError."""
        content = self._content
        info = content.files.get(path)
        if info is None:
            raise FileNotFoundError(2, "there is no such member")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise RecordError(Reason.NOT_A_FILE, f"{_name(path)} is not a regular file")
        with _damage_is_an_os_error():
            return io.BufferedReader(_MemberFile(content.file.open(info), info.file_size)), info.file_size

    def exists(self, path: str) -> bool:
        return path in self._content.files or self.is_folder(path)

    def is_folder(self, path: str) -> bool:
        return path.strip("/") in self._content.folders

    def entries(self, folder: str) -> Iterator[Entry]:
        return (ListedEntry(name, is_folder) for name, is_folder in self._content.folders[folder.strip("/")].items())

    def may_enter(self, path: str) -> bool:
        return True

    def identity(self, folder: str) -> Hashable:
        return folder.strip("/")


@contextmanager
def _damage_is_an_os_error() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise OSError(5, "it is damaged, encrypted, or compressed in a way that is not known here") from error


class _MemberFile(io.RawIOBase):
    """A member that is open for reading. To go to a place in it costs unpacking all that comes before."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _damage_is_an_os_error():
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        if self._size > LARGEST_SOUGHT_IN:
            raise RecordError(Reason.UNREADABLE_SIGNAL, _UNPACK)
        with _damage_is_an_os_error():
            return self._file.seek(offset, whence)

    def fileno(self) -> int:
        raise RecordError(Reason.UNREADABLE_SIGNAL, _UNPACK)

    def close(self) -> None:
        self._file.close()
        super().close()
