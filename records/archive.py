"""Finds the records of an archive, one after the other, in flat memory however many there are."""

import csv
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from ecgbatch.settings import EcgbatchError

Rate = Literal["lr", "hr"]

_HEAD_BYTES = 4096
_SORTED_ENTRIES = 100_000


class ArchiveRecord(NamedTuple):
    """A record: path without suffix relative to the archive's folder, age in years, sex (0 male, 1 female)."""

    path: str
    age: float | None
    sex: int | None


def find_records(root: Path, manifest: Path | None = None, rate: Rate = "lr") -> Iterator[ArchiveRecord]:
    """The records of the archive in the folder `root`, in the order of their source.

    The source is, in this order: the CSV `manifest` (columns path, age, sex), `ptbxl_database.csv` in `root`
    (`rate` chooses between its 100 and 500 Hz files), `RECORDS` in `root` and below, or every header in the folder.
    The last two take age and sex from the headers' comments. A path may come up twice if its source has it twice.

    Raises EcgbatchError if there is no such archive, if the source cannot be read, or, at the end, if it had
    no records.
    """
    _check_folder(root)
    source = _source(root, manifest)
    if source is None:
        records = _walk(root)
    elif source.name == "RECORDS" and not manifest:
        records = _listed_records(root)
    else:
        records = _table_records(source, "path" if manifest else f"filename_{rate}")
    return _at_least_one(records, root, describe(root, manifest))


def describe(root: Path, manifest: Path | None = None) -> str:
    """Where `find_records` finds the records, for a message: `RECORDS`, `a search for .hea files`, ..."""
    source = _source(root, manifest)
    if source is None:
        return "a search for .hea files"
    return str(source) if manifest else source.name


def _source(root: Path, manifest: Path | None) -> Path | None:
    """The file that lists the archive's records; None for a walk."""
    if manifest:
        return manifest
    return next((f for name in ("ptbxl_database.csv", "RECORDS") if (f := root / name).is_file()), None)


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise EcgbatchError(f"there is no archive at {root}: give the folder that holds the recordings")
    if not root.is_dir():
        raise EcgbatchError(f"{root} is not a folder: give the folder that holds the recordings")


def _at_least_one(records: Iterator[ArchiveRecord], root: Path, source: str) -> Iterator[ArchiveRecord]:
    first = next(records, None)
    if first is None:
        raise EcgbatchError(f"{root} has no records ({source}): give the folder of WFDB files (.hea) or a manifest")
    yield first
    yield from records


def _normal(path: str) -> str:
    """A record's path with `/`, without suffix, and such as every database takes."""
    path = path.strip().replace("\\", "/").removesuffix(".hea")
    while path.startswith("./"):
        path = path[2:]
    if not path.isascii():
        path = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return path.replace("\0", "\N{REPLACEMENT CHARACTER}")


# ------------------------------------------------------------------------------------------ age and sex

_AGE = re.compile(r"([-+]?\d{1,9}(?:\.\d*)?)\s*(?:y|yrs?|years?)?", re.ASCII | re.IGNORECASE)
_AGE_COMMENT = re.compile(r"#.*?\bage>?[ \t]*[:=][ \t]*((?:[^\s<]|[ ](?! ))*)", re.IGNORECASE)
_SEX_COMMENT = re.compile(r"#.*?\b(?:sex|gender)>?[ \t]*[:=][ \t]*(\w*)", re.IGNORECASE)
_SEXES = {"0": 0, "0.0": 0, "m": 0, "male": 0, "1": 1, "1.0": 1, "f": 1, "female": 1}


def _age(text: str | None) -> float | None:
    match = _AGE.fullmatch(text.strip()) if text else None
    return float(match[1]) if match else None


def _sex(text: str | None) -> int | None:
    return _SEXES.get(text.strip().lower()) if text else None


def _age_and_sex(head: str) -> tuple[float | None, int | None]:
    """From comments such as `#Age: 56`, `# Sex: Male` or `# <age>: 56  <sex>: M`."""
    age, sex = _AGE_COMMENT.search(head), _SEX_COMMENT.search(head)
    return _age(age[1] if age else None), _sex(sex[1] if sex else None)


# ------------------------------------------------------------------------------------------ tables


def _table_records(table: Path, path_column: str) -> Iterator[ArchiveRecord]:
    """Opens a CSV file at once, to find its faults early, and reads it line by line."""
    try:
        file = table.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise EcgbatchError(f"cannot read {table}: {error.strerror}") from error
    rows = _rows(table, file)
    names = [name.strip().lower() for name in next(rows, (0, []))[1]]
    if path_column not in names:
        raise EcgbatchError(f"{table} has no column {path_column!r}: its first line must name the columns")
    path, age, sex = (names.index(name) if name in names else len(names) for name in (path_column, "age", "sex"))
    return _parse_rows(table, rows, path, age, sex)


def _rows(table: Path, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; blank lines are left out."""
    with file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except (OSError, csv.Error) as error:
            raise EcgbatchError(f"cannot read {table} after line {reader.line_num}: {error}") from error


def _parse_rows(
    table: Path, rows: Iterator[tuple[int, list[str]]], path: int, age: int, sex: int
) -> Iterator[ArchiveRecord]:
    last = max(path, age, sex)
    for line, cells in rows:
        cells += [""] * (last + 1 - len(cells))
        if not (record := _normal(cells[path])):
            raise EcgbatchError(f"{table} has no path on line {line}: give each line one or remove the line")
        yield ArchiveRecord(record, _age(cells[age]), _sex(cells[sex]))


# ------------------------------------------------------------------------------------------ RECORDS


def _listed_records(root: Path) -> Iterator[ArchiveRecord]:
    """The records of `RECORDS` and of the `RECORDS` in the folders that it names, as PhysioNet nests them."""
    stack = [_Listing(root, "")]
    while stack:
        name = next(stack[-1].lines, None)
        if name is None:
            stack.pop()
            continue
        path = stack[-1].prefix + name
        # A folder that is not there becomes a record that cannot be read: seen, and in nobody's way.
        if not name.endswith("/") or not _is_below(path) or not (root / path).is_dir():
            path = _normal(path.rstrip("/"))
            yield ArchiveRecord(path, *_age_and_sex(_head(root, path) if _is_below(path) else ""))
        elif (root / path / "RECORDS").is_file():
            stack.append(_Listing(root, path))
        else:
            yield from _walk(root, path)


class _Listing:
    """One `RECORDS` file that is being read. `prefix` is its folder's path, with `/` at the end, or empty."""

    def __init__(self, root: Path, prefix: str) -> None:
        self.prefix = prefix
        self.lines = self._read(root / prefix / "RECORDS")

    def _read(self, file: Path) -> Iterator[str]:
        try:
            with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                yield from (name for line in lines if (name := line.strip().replace("\\", "/").removeprefix("./")))
        except OSError as error:
            raise EcgbatchError(f"cannot read {file}: {error.strerror}") from error


def _is_below(path: str) -> bool:
    """Whether a path leads down; `./`, which a listing could follow for ever, does not."""
    return all(part not in ("", ".", "..") for part in path.removesuffix("/").split("/"))


# ------------------------------------------------------------------------------------------ headers

_SEGMENTED = re.compile(r"[^\s/#]+/\d+\s.*")


def _head(root: Path, path: str) -> str:
    """The first lines of a record's header, empty where there is none; reading the record will tell why."""
    try:
        descriptor = os.open(f"{root}/{path}.hea", os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            return file.read(_HEAD_BYTES).decode("latin-1") if regular else ""
    except (OSError, ValueError):
        return ""


def _segments(head: str) -> list[str]:
    """The segments that the header of a record of several segments names."""
    lines = [line for line in head.splitlines() if line and line[0] != "#"]
    if not lines or not _SEGMENTED.fullmatch(lines[0]):
        return []
    return [line.split()[0] for line in lines[1:]]


def _walk(root: Path, prefix: str = "") -> Iterator[ArchiveRecord]:
    """Every header below `root`/`prefix` but hidden ones and the segments of longer records, in name order."""
    stack = [_Folder(root, prefix, frozenset())]
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
        elif entry.name.endswith(".hea") and not folder.is_segment(stem := entry.name.removesuffix(".hea")):
            path = folder.prefix + stem
            head = _head(root, path)
            folder.segments.update(_segments(head))
            yield ArchiveRecord(_normal(path), *_age_and_sex(head))
        elif _is_folder(entry) and (inner := _Folder(root, f"{folder.prefix}{entry.name}/", folder.chain)).is_new:
            stack.append(inner)


class _Folder:
    """A folder that is being walked. Its entries are in name order, unless there are too many to hold."""

    def __init__(self, root: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        self.prefix = prefix
        self._path = root / prefix
        with self._reading():
            status = self._path.stat()
            scan = os.scandir(self._path)
            first = sorted(itertools.islice(scan, _SORTED_ENTRIES), key=lambda entry: entry.name)
        identity = (status.st_dev, status.st_ino)
        self.is_new = identity not in above
        self.chain = above | {identity}
        self.segments: set[str] = set()
        self._layouts = {e.name.removesuffix("_layout.hea") for e in first if e.name.endswith("_layout.hea")}
        self.entries = self._visible(itertools.chain(first, scan))

    def is_segment(self, stem: str) -> bool:
        """Whether a header belongs to a record of several segments, as far as is known."""
        name, _, number = stem.rpartition("_")
        return stem in self.segments or (name in self._layouts and (number.isdecimal() or number == "layout"))

    def _visible(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        with self._reading():
            yield from (entry for entry in entries if not entry.name.startswith("."))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EcgbatchError(f"cannot read the folder {self._path}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
