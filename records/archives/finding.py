"""Finds the records of an archive, one after the other, in flat memory however many there are."""

import os
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple

from ecgbatch.records.archives.listing import listed_records
from ecgbatch.records.archives.search import PassedOver, Search
from ecgbatch.records.archives.tables import ROLES, columns_of, table_records
from ecgbatch.records.archives.walk import walk
from ecgbatch.records.paths import on_disk
from ecgbatch.records.recording import Record, RecordError
from ecgbatch.settings import EcgbatchError

Rate = Literal["lr", "hr"]

_MUST_BE_AMONG = 10_000
"""One of so many records must be there, else the list is another archive's."""


class Source(NamedTuple):
    """What lists an archive's records: a file, or nothing; and for a table the columns of path, age and sex."""

    file: Path | None
    columns: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return "a search for .hea files" if self.file is None else self.file.name


def find_records(
    root: Path,
    manifest: Path | None = None,
    rate: Rate = "lr",
    columns: Mapping[str, str] | None = None,
    follow_links: bool = False,
    passed_over: PassedOver | None = None,
) -> Iterator[Record]:
    """The records of the archive in the folder `root`, in the order of their source.

    The source is, in this order: the CSV `manifest` (with columns path, age, sex, or those that `columns` names for
    them), `ptbxl_database.csv` in `root` (`rate` chooses between its 100 and 500 Hz files), `exams.csv` as CODE-15 has
    it, `RECORDS` in `root` and below, `record_list.csv` with a column path, or every header in the folder. A table
    with age or sex goes before `RECORDS`, which, like the search, takes them from the headers' comments. A path may
    come up twice if its source has it twice. What is not taken is counted in `passed_over`.

    Raises EcgbatchError, before the first record, if there is no such archive, if the source cannot be read, if it
    has no records, or if none of its first 10,000 records is there; later, if the rest of the source cannot be read.
    """
    check_folder(root)
    source = find_source(root, manifest, rate, columns)
    search = Search(root, follow_links, passed_over if passed_over is not None else PassedOver())
    if source.file is None:
        records = walk(search)
    elif source.columns is None:
        records = listed_records(search)
    else:
        records = table_records(search, source.file, source.columns)
    return _some_there(search, records, source)


def find_source(
    root: Path, manifest: Path | None = None, rate: Rate = "lr", columns: Mapping[str, str] | None = None
) -> Source:
    """What `find_records` finds the records by. Raises EcgbatchError for `columns` that no table is there for."""
    named = dict(columns or {})
    if unknown := set(named) - set(ROLES):
        raise EcgbatchError(f"--columns names {', '.join(ROLES)}, not {', '.join(sorted(unknown))}")
    if manifest is not None:
        return Source(manifest, named)
    if os.path.isfile(table := root / "ptbxl_database.csv"):
        return Source(table, {"path": f"filename_{rate}"} | named)
    if os.path.isfile(table := root / "exams.csv") and "exam_id" in columns_of(table):
        return Source(table, {"path": "exam_id"} | named)
    records = root / "RECORDS" if os.path.isfile(root / "RECORDS") else None
    if os.path.isfile(table := root / "record_list.csv"):
        known = columns_of(table)
        if named or ("path" in known and (records is None or {"age", "sex"} & {*known})):
            return Source(table, named)
    if named:
        raise EcgbatchError("--columns needs a table: give one with --manifest")
    return Source(records)


def check_folder(root: Path) -> None:
    """Raises EcgbatchError unless `root` is a folder that can be entered."""
    try:
        is_folder = os.path.isdir(root)
        os.stat(f"{root}/.")
    except NotADirectoryError:
        is_folder = False
    except OSError as error:
        raise EcgbatchError(
            f"there is no archive at {root} ({error.strerror}): give the folder that holds the recordings"
        ) from error
    if not is_folder:
        raise EcgbatchError(f"{root} is not a folder: give the folder that holds the recordings")


def _some_there(search: Search, records: Iterator[Record], source: Source) -> Iterator[Record]:
    """The records, if there are any and one of the first is there."""
    first: list[Record] = []
    for record in islice(records, _MUST_BE_AMONG):
        first.append(record)
        if _is_there(search, record):
            return chain(first, records)
    if not first:
        raise EcgbatchError(
            f"{search.root} has no records ({source}): give the folder of WFDB files (.hea) or a manifest"
        )
    if any(_file(search, record) for record in first):
        raise EcgbatchError(
            f"the first {len(first):,} records of {search.root} are links that lead out of it, as {first[0].path}: "
            "ECGBATCH_FOLLOW_LINKS=1 follows them"
        )
    raise EcgbatchError(
        f"{source} names records that are not in {search.root}: none of the first {len(first):,} is there, "
        f"as {first[0].path}{_hint(search.root, source)}"
    )


def _is_there(search: Search, record: Record) -> bool:
    file = _file(search, record)
    return file is not None and search.may_enter(file)


def _file(search: Search, record: Record) -> str | None:
    try:
        return search.file_of(on_disk(record.path)[0])
    except RecordError:
        return None


def _hint(root: Path, source: Source) -> str:
    for column, folder, rate in (("filename_hr", "records500", "lr"), ("filename_lr", "records100", "hr")):
        if source.columns is not None and source.columns.get("path") == column and not os.path.isdir(root / folder):
            return f"; there is no folder {folder}: get it, or take --rate {rate}"
    return ""
