"""The records of a folder that nothing lists: every header below it, and every file of another format."""

import itertools
import os
from collections.abc import Iterator

from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.archives.search import LINK_OUT, OPEN_DATABASE, UNREADABLE_FILE, UNREADABLE_FOLDER, Search
from ecgbatch.records.formats import format_of
from ecgbatch.records.formats.format import HEAD_BYTES
from ecgbatch.records.formats.wfdb_header import segment_names
from ecgbatch.records.paths import write_down
from ecgbatch.records.places import DatabaseInUse, Entry
from ecgbatch.records.recording import Reason, Record, RecordError
from ecgbatch.settings import EcgbatchError

_SORTED_ENTRIES = 100_000
_SIGNAL_SUFFIXES = (".dat", ".mat")
_LISTS = ("RECORDS", "archive.toml")


def walk(search: Search, prefix: str = "") -> Iterator[Record]:
    """Every record below `prefix`, in name order, but for hidden ones and the segments of longer records.

    A record is a header, or what a file of another format holds, known by its content. A folder that cannot be read
    is passed over, and so is a file of no known format that belongs to no header. A link to a folder within the
    archive is not entered, since that folder is found at its own place; out of it links are followed only where the
    search says so, each folder once. Raises EcgbatchError if the archive's own folder cannot be read.
    """
    links = _Links(search, prefix)
    stack = [_Folder(search, prefix, linked=False)]
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
        elif entry.name.endswith(".hea"):
            if not folder.is_segment(stem := entry.name.removesuffix(".hea")):
                path = folder.prefix + stem
                lines, comments = search.header(path, in_place=not (folder.linked or entry.is_symlink()))
                folder.segments.update(segment_names(lines))
                yield Record(write_down(path), *from_comments(comments))
        elif links.may_enter(folder, entry):
            linked = folder.linked or entry.is_symlink()
            stack.append(_Folder(search, f"{folder.prefix}{entry.name}/", linked))
        elif not folder.belongs_to_header(entry.name) and not _is_folder(entry):
            yield from _of_other_format(search, folder.prefix + entry.name)


def in_file(search: Search, name: str) -> Iterator[Record]:
    """The record or records of one file in the archive's folder; of a WFDB record it may be any of its files."""
    stem = name.removesuffix(".hea")
    for header in (stem, os.path.splitext(name)[0]):
        if search.place.exists(f"{header}.hea"):
            yield Record(write_down(header), *from_comments(search.header(header)[1]))
            return
    yield from _of_other_format(search, name)


def _of_other_format(search: Search, path: str) -> Iterator[Record]:
    try:
        format = format_of(search.files.head(path, HEAD_BYTES))
    except DatabaseInUse:
        search.passed_over.add(OPEN_DATABASE, path)
        return
    except RecordError as error:
        search.passed_over.add(LINK_OUT if error.reason == Reason.UNSAFE_PATH else UNREADABLE_FILE, path)
        return
    if format is None:
        suffix = os.path.splitext(path)[1].lower() or "other"
        search.passed_over.add(f"{suffix[:20]} files of no known format", path)
        return
    for member in format.members(search.files, path):
        yield Record(write_down(path, member))


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


class _Folder:
    """A folder that is being walked. Its entries are in name order, unless there are too many to hold.

    `linked` is whether a link led here. A folder that cannot be read has no entries.
    """

    def __init__(self, search: Search, prefix: str, linked: bool) -> None:
        self.prefix, self.linked = prefix, linked
        self.segments: set[str] = set()
        self._layouts: set[str] = set()
        self._headers: set[str] = set()
        self.entries = self._read(search)

    def is_segment(self, stem: str) -> bool:
        """Whether a header belongs to a record of several segments, as far as is known."""
        name, _, number = stem.rpartition("_")
        return stem in self.segments or (name in self._layouts and (number.isdecimal() or number == "layout"))

    def belongs_to_header(self, name: str) -> bool:
        """Whether a file goes with a header in this folder, as far as is known: by its name, or as a signal file."""
        stem, suffix = os.path.splitext(name)
        return stem in self._headers or (suffix in _SIGNAL_SUFFIXES and bool(self._headers)) or name in _LISTS

    def _read(self, search: Search) -> Iterator[Entry]:
        try:
            visible = (entry for entry in search.place.entries(self.prefix) if not entry.name.startswith("."))
            first = sorted(itertools.islice(visible, _SORTED_ENTRIES), key=lambda entry: entry.name)
            self._headers.update(e.name.removesuffix(".hea") for e in first if e.name.endswith(".hea"))
            self._layouts.update(h.removesuffix("_layout") for h in self._headers if h.endswith("_layout"))
            yield from itertools.chain(first, visible)
        except OSError as error:
            if not self.prefix:
                raise EcgbatchError(f"cannot read the folder {search.root}: {error.strerror}") from error
            search.passed_over.add(UNREADABLE_FOLDER, self.prefix)


class _Links:
    """Which folders a walk enters, so that it enters each once."""

    def __init__(self, search: Search, prefix: str) -> None:
        self._search = search
        self._start = os.path.realpath(search.root / prefix)
        self._seen = {search.place.identity(""), search.place.identity(prefix)}

    def may_enter(self, folder: _Folder, entry: Entry) -> bool:
        """Whether the entry is a folder, not yet seen, that the walk may enter."""
        path = folder.prefix + entry.name
        if not _is_folder(entry) or (entry.is_symlink() and not self._follow(path)):
            return False
        return not (folder.linked or entry.is_symlink()) or self._is_new(path)

    def _follow(self, path: str) -> bool:
        real = os.path.realpath(self._search.root / path)
        if f"{real}/".startswith(f"{self._start}/") and "/." not in real[len(self._start) :]:
            return False  # the walk comes by it at its own place
        if self._search.place.may_enter(path):
            return True
        self._search.passed_over.add(LINK_OUT, path)
        return False

    def _is_new(self, path: str) -> bool:
        folder = self._search.place.identity(path)
        new = folder not in self._seen
        self._seen.add(folder)
        return new
