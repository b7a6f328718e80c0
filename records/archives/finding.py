"""Finds the records of an archive, one after the other, in flat memory however many there are."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple

from ecgbatch.records.archives.exams import exam_records
from ecgbatch.records.archives.lines import TextFile
from ecgbatch.records.archives.listing import listed_records
from ecgbatch.records.archives.search import PassedOver, Search
from ecgbatch.records.archives.tables import ROLES, columns_of, table_records
from ecgbatch.records.archives.walk import in_file, walk
from ecgbatch.records.paths import on_disk
from ecgbatch.records.places import is_zip, place_at
from ecgbatch.records.recording import Record, RecordError
from ecgbatch.records.remote import url_of
from ecgbatch.settings import EcgbatchError

PtbXlRate = Literal["lr", "hr"]

_MUST_BE_AMONG = 10_000
"""One of so many records must be there, else the list is another archive's."""
_MUST_BE_AMONG_REMOTE = 100


class Source(NamedTuple):
    """What lists an archive's records: a file, or nothing; and for a table the columns of path, age and sex."""

    file: TextFile | None
    columns: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return "a search through the folder" if self.file is None else self.file.name.rpartition("/")[2]


@dataclass(frozen=True)
class Archive:
    """An archive, and how its records are found.

    Their source is the first of these that there is:

    - the CSV `manifest`, with columns path, age, sex, or those that `columns` names for them;
    - `ptbxl_database.csv` in `root`, of which `rate` chooses the 100 or the 500 Hz files;
    - `exams.csv`, as CODE-15 has it; `record_list.csv` with a column path and one of age or sex;
    - `RECORDS` in `root` and below; `record_list.csv` with a column path;
    - every header in the folder, and every file of another format.

    Where `root` is a file, the archive is the folder that it is in, and `only` that file's records are its records.

    `RECORDS` and the search take age and sex from the headers' comments. Links lead out of `root` only with
    `follow_links`. What is not taken is counted in `passed_over`.
    """

    root: Path
    manifest: Path | None = None
    rate: PtbXlRate = "lr"
    columns: Mapping[str, str] = field(default_factory=dict)
    follow_links: bool = False
    passed_over: PassedOver = field(default_factory=PassedOver)
    only: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if _is_one_file(self.root):
            object.__setattr__(self, "only", self.root.name)
            object.__setattr__(self, "root", self.root.parent)
        if self.only is not None and (self.manifest is not None or self.columns):
            raise EcgbatchError(f"a list is of a folder: give {self.root} instead of its file {self.only}")

    def records(self) -> Iterator[Record]:
        """The records in the order of their source, in flat memory. A path comes up twice if its source has it twice.

        Raises EcgbatchError, before the first record, if there is no such archive, if the source cannot be read, if
        it has no records, or if none of its first 10,000 records is there; later, if the rest cannot be read.
        """
        search = Search(self.root, self.follow_links, self.passed_over)
        search.place.check()
        if self.only is not None:
            return _some_in(in_file(search, self.only), self.root / self.only)
        source = self.source()
        if source.file is None:
            records = walk(search)
        elif source.columns is None:
            records = listed_records(search)
        elif source.columns.get("path") == "exam_id":
            records = exam_records(search, source.file, source.columns)
        else:
            records = table_records(search, source.file, source.columns)
        return _some_there(search, records, source)

    def source(self) -> Source:
        """Where `records` finds the records. Raises EcgbatchError for `columns` where there is no table."""
        if self.only is not None:
            return Source(Search(self.root).text(self.only))
        if unknown := set(self.columns) - set(ROLES):
            raise EcgbatchError(f"--columns names {', '.join(ROLES)}, not {', '.join(sorted(unknown))}")
        if self.manifest is not None:
            manifest = self.manifest
            return Source(TextFile(str(manifest), lambda: manifest.open("rb")), self.columns)
        if table := self._file("ptbxl_database.csv"):
            return Source(table, {"path": f"filename_{self.rate}", **self.columns})
        if (table := self._file("exams.csv")) and "exam_id" in columns_of(table):
            return Source(table, {"path": "exam_id", **self.columns})
        records = self._file("RECORDS")
        if table := self._file("record_list.csv"):
            known = columns_of(table)
            if self.columns or ("path" in known and (records is None or {"age", "sex"} & {*known})):
                return Source(table, self.columns)
        if self.columns:
            raise EcgbatchError("--columns needs a table: give one with --manifest")
        return Source(records)

    def table_above(self) -> Path | None:
        """PTB-XL's table in a folder above, when only a part of its records was given."""
        above = (folder / "ptbxl_database.csv" for folder in self.root.parents[:2])
        return next((table for table in above if os.path.isfile(table)), None)

    def _file(self, name: str) -> TextFile | None:
        search = Search(self.root, self.follow_links)
        return search.text(name) if search.place.exists(name) and not search.place.is_folder(name) else None


def _is_one_file(root: Path) -> bool:
    """Whether there is a recording's file at `root`, or the header of a WFDB record of this name."""
    if url_of(root) is not None:
        return False
    return not os.path.isdir(root) and not is_zip(root) and (os.path.isfile(root) or os.path.isfile(f"{root}.hea"))


def check_archive(root: Path) -> None:
    """Raises EcgbatchError unless there is an archive at `root`: a folder that can be entered, a zip, or one file."""
    if not _is_one_file(root):
        place_at(root).check()


def _some_there(search: Search, records: Iterator[Record], source: Source) -> Iterator[Record]:
    """The records, if there are any and one of the first is there."""
    first: list[Record] = []
    for record in islice(records, _MUST_BE_AMONG if url_of(search.root) is None else _MUST_BE_AMONG_REMOTE):
        first.append(record)
        if _is_there(search, record):
            return chain(first, records)
    if not first:
        passed_over = "".join(f"; passed over: {count:,} {kind}" for kind, count, _ in search.passed_over)[:300]
        raise EcgbatchError(
            f"{search.root} has no records ({source}{passed_over}): give the folder that holds them, or a --manifest"
        )
    if any(_file(search, record) for record in first):
        raise EcgbatchError(
            f"the first {len(first):,} records of {search.root} are links that lead out of it, as {first[0].path}: "
            "ECGBATCH_FOLLOW_LINKS=true follows them"
        )
    raise EcgbatchError(
        f"{source} names records that are not in {search.root}: none of the first {len(first):,} is there, "
        f"as {first[0].path}{_hint(search, source)}"
    )


def _some_in(records: Iterator[Record], file: Path) -> Iterator[Record]:
    """The records of one file, if there are any."""
    first = list(islice(records, 1))
    if not first:
        raise EcgbatchError(f"{file} is no recording, or of no format that is read: docs/formats.md says which are")
    return chain(first, records)


def _is_there(search: Search, record: Record) -> bool:
    file = _file(search, record)
    return file is not None and search.place.may_enter(file)


def _file(search: Search, record: Record) -> str | None:
    try:
        return search.file_of(on_disk(record.path)[0])
    except RecordError:
        return None


def _hint(search: Search, source: Source) -> str:
    for column, folder, rate in (("filename_hr", "records500", "lr"), ("filename_lr", "records100", "hr")):
        if source.columns is not None and source.columns.get("path") == column and not search.place.is_folder(folder):
            return f"; there is no folder {folder}: get it, or take --rate {rate}"
    return ""
