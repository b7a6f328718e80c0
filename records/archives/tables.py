"""The records that a CSV table names, with their age and sex."""

import csv
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from ecgbatch.records.archives.demographics import NUMBERS, SEXES, age_in_years
from ecgbatch.records.archives.lines import lines
from ecgbatch.records.archives.listing import as_on_disk
from ecgbatch.records.archives.search import Search
from ecgbatch.records.paths import write_down
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

ROLES = ("path", "age", "sex")
_LOOKED_AT = 10_000
"""Lines from which it is told how a table writes sex, before the first record is taken."""

_TRUE, _FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
_BY_NAME = {
    "is_male": dict.fromkeys(_TRUE, 0) | dict.fromkeys(_FALSE, 1),
    "is_female": dict.fromkeys(_TRUE, 1) | dict.fromkeys(_FALSE, 0),
}
_BY_NAME |= {"male": _BY_NAME["is_male"], "female": _BY_NAME["is_female"], "sex": SEXES | NUMBERS}
"""How the values of a column of this name are understood; those of any other name must be words."""

_DEFAULTS = {"sex": ("sex", "is_male", "is_female", "gender")}
"""Columns that are looked for where none is named; for the other roles it is the role's own name."""

Row = tuple[int, list[str]]


def table_records(search: Search, table: Path, columns: Mapping[str, str]) -> Iterator[Record]:
    """The records of a CSV table, line by line; `columns` names the columns of path, age and sex.

    Opens the table at once, to find its faults early. Raises EcgbatchError for a column that is not there, a line
    without a path, and for a column of sex that can be understood in more than one way.
    """
    rows = _rows(table)
    header = next(rows, (0, []))[1]
    path, age, sex = (_index(table, header, role, columns) for role in ROLES)
    first = list(islice(rows, _LOOKED_AT))
    sex_of = _sex_reader(table, header[sex] if sex is not None else "", sex)
    for row in first:
        sex_of(row)
    return (
        Record(_path(search, table, row, path), age_in_years(_cell(row, age)), sex_of(row))
        for row in chain(first, rows)
    )


def _rows(table: Path) -> Iterator[Row]:
    """Line numbers and cells; blank lines are left out."""
    reader = csv.reader(f"{line}\n" for line in lines(table))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise EcgbatchError(f"cannot read {table} after line {reader.line_num}: {error}") from error


def columns_of(table: Path) -> list[str]:
    """The names in a table's first line, in lower case."""
    return [name.strip().casefold() for name in next(_rows(table), (0, []))[1]]


def _index(table: Path, header: list[str], role: str, columns: Mapping[str, str]) -> int | None:
    """Where a role's column is; its name may be written in any case."""
    names = [name.strip().casefold() for name in header]
    wanted = (columns[role],) if role in columns else _DEFAULTS.get(role, (role,))
    for name in wanted:
        if name.strip().casefold() in names:
            return names.index(name.strip().casefold())
    if role != "path" and role not in columns:
        return None
    known = ", ".join(name.strip() for name in header[:20]) or "none"
    raise EcgbatchError(f"{table} has no column {wanted[0]!r}: it has {known}; name one with --columns {role}=NAME")


def _cell(row: Row, index: int | None) -> str:
    cells = row[1]
    return cells[index] if index is not None and index < len(cells) else ""


def _path(search: Search, table: Path, row: Row, index: int | None) -> str:
    if path := as_on_disk(search, _cell(row, index)):
        return write_down(path)
    raise EcgbatchError(f"{table} has no path on line {row[0]}: give each line one or remove the line")


def _sex_reader(table: Path, column: str, index: int | None) -> Callable[[Row], int | None]:
    """What tells a row's sex. It raises EcgbatchError where numbers stand that may mean either."""
    known = _BY_NAME.get(column.strip().casefold(), SEXES)

    def sex_of(row: Row) -> int | None:
        word = _cell(row, index).strip().lower()
        if word in known or not word.replace(".", "").isdecimal():
            return known.get(word)
        raise EcgbatchError(
            f"{table}, line {row[0]}: it cannot be told what {word} means in the column {column.strip()!r}; "
            "write M and F, or name the column sex (0 male, 1 female), is_male or is_female"
        )

    return sex_of
