"""The records of a folder that nothing lists: every header below it."""

import itertools
import os
from collections.abc import Iterable, Iterator

from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.archives.search import LINK_OUT, UNREADABLE_FOLDER, Search, identity, is_within
from ecgbatch.records.formats.wfdb_header import segment_names
from ecgbatch.records.paths import write_down
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

_SORTED_ENTRIES = 100_000


def walk(search: Search, prefix: str = "") -> Iterator[Record]:
    """Every header below `prefix` but hidden ones and the segments of longer records, in name order.

    A folder that cannot be read is passed over, and so is a link to a folder: within the archive that folder is
    found at its own place; out of it links are followed only where the search says so, each folder once.
    Raises EcgbatchError if the archive's own folder cannot be read.
    """
    links = _Links(search, prefix)
    stack = [_Folder(search, prefix, linked=False)]
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
        elif entry.name.endswith(".hea") and not folder.is_segment(stem := entry.name.removesuffix(".hea")):
            path = folder.prefix + stem
            lines, comments = search.header(path, in_place=not (folder.linked or entry.is_symlink()))
            folder.segments.update(segment_names(lines))
            yield Record(write_down(path), *from_comments(comments))
        elif links.may_enter(folder, entry):
            linked = folder.linked or entry.is_symlink()
            stack.append(_Folder(search, f"{folder.prefix}{entry.name}/", linked))


class _Folder:
    """A folder that is being walked. Its entries are in name order, unless there are too many to hold.

    `linked` is whether a link led here. A folder that cannot be read has no entries.
    """

    def __init__(self, search: Search, prefix: str, linked: bool) -> None:
        self.prefix, self.linked = prefix, linked
        self.segments: set[str] = set()
        self._layouts: set[str] = set()
        self.entries = self._read(search)

    def is_segment(self, stem: str) -> bool:
        """Whether a header belongs to a record of several segments, as far as is known."""
        name, _, number = stem.rpartition("_")
        return stem in self.segments or (name in self._layouts and (number.isdecimal() or number == "layout"))

    def _read(self, search: Search) -> Iterator[os.DirEntry[str]]:
        path = search.root / self.prefix
        try:
            with os.scandir(path) as scan:
                visible = (entry for entry in scan if not entry.name.startswith("."))
                first = sorted(itertools.islice(visible, _SORTED_ENTRIES), key=lambda entry: entry.name)
                self._layouts.update(_layouts(first))
                yield from itertools.chain(first, visible)
        except OSError as error:
            if not self.prefix:
                raise EcgbatchError(f"cannot read the folder {path}: {error.strerror}") from error
            search.passed_over.add(UNREADABLE_FOLDER, self.prefix)


def _layouts(entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
    suffix = "_layout.hea"
    return (entry.name.removesuffix(suffix) for entry in entries if entry.name.endswith(suffix))


class _Links:
    """Which folders a walk enters, so that it enters each once."""

    def __init__(self, search: Search, prefix: str) -> None:
        self._search = search
        self._start = os.path.realpath(search.root / prefix)
        self._seen = {identity(search.root), identity(search.root / prefix)}

    def may_enter(self, folder: _Folder, entry: os.DirEntry[str]) -> bool:
        """Whether the entry is a folder, not yet seen, that the walk may enter."""
        try:
            if not entry.is_dir():
                return False
            if entry.is_symlink() and not self._follow(folder.prefix + entry.name):
                return False
            return not (folder.linked or entry.is_symlink()) or self._is_new(folder.prefix + entry.name)
        except OSError:
            return False

    def _follow(self, path: str) -> bool:
        real = os.path.realpath(self._search.root / path)
        if is_within(real, self._start) and "/." not in real[len(self._start) :]:
            return False  # the walk comes by it at its own place
        if self._search.follow_links or is_within(real, self._search.real_root):
            return True
        self._search.passed_over.add(LINK_OUT, path)
        return False

    def _is_new(self, path: str) -> bool:
        folder = identity(self._search.root / path)
        new = folder not in self._seen
        self._seen.add(folder)
        return new
