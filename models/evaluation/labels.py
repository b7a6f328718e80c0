"""The labels that predictions are compared with: PTB-XL's, columns of 0 and 1 in a table of one's own, or headers'."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ecgbatch.models.config import LABELS
from ecgbatch.records.archives.lines import TextFile
from ecgbatch.records.archives.tables import ROLES, Row, Table, cell, columns_of
from ecgbatch.records.paths import write_down
from ecgbatch.records.places import is_zip
from ecgbatch.records.remote import url_of
from ecgbatch.settings import EcgbatchError

ZERO_OR_ONE = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}


class LabelledRecord(NamedTuple):
    """A record and its labels, 0 or 1 each, in the order of the classes that the table tells; age is in years.

    `statements`, of PTB-XL alone, are 0 or 1 for each row of scp_statements.csv. `patient` is by whatever name the
    table has; empty where it names none.
    """

    path: str
    fold: int | None
    age: float | None
    sex: float | None
    labels: tuple[int, ...]
    statements: tuple[int, ...] = ()
    patient: str = ""


@dataclass(frozen=True)
class Labels:
    """Records with labels, which of a model's classes these are, and the SHA-256 of where they were read.

    `left_out`, of an archive's headers, counts the records that have no labels.
    """

    classes: tuple[str, ...]
    records: list[LabelledRecord]
    sha256: str
    left_out: int | None = None


def read_labels(
    file: Path,
    columns: Mapping[str, str],
    superclass_only: bool = True,
    follow_links: bool = False,
    classes: tuple[str, ...] = LABELS,
) -> Labels:
    """What a CSV table, or the headers of the archive at `file`, see `snomed.archive_labels`, tell of some classes.

    A table with the column scp_codes is PTB-XL's, see `ptbxl`, with or without the records that have no superclass. Any
    other, one for which `columns` are named, or one that is asked for other classes, has a column path and one of 0 and
    1 for each class that it tells, by its name; age, sex, fold and patient if it likes. `columns` says which column is
    meant by each of these names, where it has another. Raises EcgbatchError for a table that is not so.
    """
    from ecgbatch.models.evaluation.ptbxl import labelled_records

    if file.is_dir() or is_zip(file) or url_of(file) is not None:
        from ecgbatch.models.evaluation.snomed import archive_labels

        if columns:
            raise EcgbatchError(f"--columns names those of a table, and {file} is an archive: its headers are read")
        if classes != LABELS:
            raise EcgbatchError(f"headers tell the superclasses alone: give a table that tells {', '.join(classes)}")
        return archive_labels(file, superclass_only, follow_links)
    if not file.exists():
        raise EcgbatchError(f"there is no file {file}: give ptbxl_database.csv, a table of your own, or an archive")
    told: tuple[str, ...] = LABELS
    if not columns and classes == LABELS and "scp_codes" in columns_of(text_file(file)):
        records = labelled_records(file, superclass_only)
    else:
        told, records = _plain_labels(file, columns, classes)
    if not records:
        raise EcgbatchError(f"{file} has no record with labels")
    return Labels(told, records, _sha256(file))


def _plain_labels(
    file: Path, columns: Mapping[str, str], classes: tuple[str, ...]
) -> tuple[tuple[str, ...], list[LabelledRecord]]:
    known = (*ROLES, "fold", "patient", *classes)
    if unknown := sorted(set(columns) - set(known)):
        raise EcgbatchError(f"--columns takes {', '.join(known)}, not {unknown[0]!r}")
    table = Table(text_file(file), columns)
    table.index("path", needed=True)
    told = tuple(name for name in classes if table.index(name) is not None)
    if not told:
        raise EcgbatchError(
            f"{file} tells none of {', '.join(classes)}: name a column with --columns {classes[0]}=NAME"
        )
    return told, list(_records(table, told))


def _records(table: Table, classes: tuple[str, ...]) -> Iterator[LabelledRecord]:
    path, fold, patient = (table.index(role) for role in ("path", "fold", "patient"))
    columns = [table.index(name) for name in classes]
    seen = set()
    for row in table.rows():
        record = normal_path(cell(row.cells, path))
        if not record or record in seen:
            raise EcgbatchError(f"{table.file.name}, line {row.line}: each line needs a path, and one of its own")
        seen.add(record)
        labels = tuple(ZERO_OR_ONE.get(cell(row.cells, column).strip(), -1) for column in columns)
        if -1 in labels:
            name = classes[labels.index(-1)]
            raise EcgbatchError(f"{table.file.name}, line {row.line}: {name} is neither 0 nor 1")
        named = cell(row.cells, patient).strip()
        yield LabelledRecord(record, fold_of(table, row, fold), row.age, row.sex, labels, patient=named)


def text_file(path: Path) -> TextFile:
    """A file of labels as `Table` takes it, opened only if it is a regular one."""

    def open_regular() -> BinaryIO:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "it is no regular file")
        return file

    return TextFile(str(path), open_regular)


def fold_of(table: Table, row: Row, column: int | None) -> int | None:
    """The fold that a row is in; None where the table tells none. Raises EcgbatchError for what is no number."""
    text = cell(row.cells, column).strip()
    if not text:
        return None
    if not text.removesuffix(".0").isdecimal() or len(text) > 9:
        raise EcgbatchError(f"{table.file.name}, line {row.line}: its fold is no whole number")
    return int(text.removesuffix(".0"))


def normal_path(text: str) -> str:
    """A record's path as the database has it: with `/`, without `./` and `.hea`."""
    return write_down(text.strip().replace("\\", "/").removeprefix("./").removesuffix(".hea"))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
