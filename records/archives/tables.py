"""The records that a CSV table names, with their age and sex."""

import csv
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

from ecgbatch.records.archives.demographics import NUMBERS, SEXES, age_in_years
from ecgbatch.records.archives.lines import TextFile, lines
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


class Row(NamedTuple):
    """A line of a table: its number, its cells, and the age and sex that it tells."""

    line: int
    cells: list[str]
    age: float | None
    sex: int | None


class Table:
    """A CSV file that is being read; `columns` names its columns for roles, where they have other names.

    Raises EcgbatchError for a role's column that is named and not there, and for a column of sex that can be
    understood in more than one way.
    """

    def __init__(self, file: TextFile, columns: Mapping[str, str]) -> None:
        self.file = file
        self._columns = columns
        self._lines = _lines(file)
        self.header = next(self._lines, (0, []))[1]
        self._names = [name.strip().casefold() for name in self.header]

    def index(self, role: str, needed: bool = False) -> int | None:
        """Where a role's column is; its name may be written in any case. None where there is none, if not `needed`."""
        wanted = (self._columns[role],) if role in self._columns else _DEFAULTS.get(role, (role,))
        for name in wanted:
            if name.strip().casefold() in self._names:
                return self._names.index(name.strip().casefold())
        if not needed and role not in self._columns:
            return None
        known = ", ".join(name.strip() for name in self.header[:20]) or "none"
        raise EcgbatchError(
            f"{self.file.name} has no column {wanted[0]!r}: it has {known}; name one with --columns {role}=NAME"
        )

    def rows(self) -> Iterator[Row]:
        """The rows, of which the first 10,000 are looked at before one is given."""
        age, sex = self.index("age"), self.index("sex")
        sex_of = _sex_reader(self.file, self.header[sex] if sex is not None else "")
        first = list(islice(self._lines, _LOOKED_AT))
        for line, cells in first:
            sex_of(line, cell(cells, sex))
        for line, cells in chain(first, self._lines):
            yield Row(line, cells, age_in_years(cell(cells, age)), sex_of(line, cell(cells, sex)))


def table_records(search: Search, file: TextFile, columns: Mapping[str, str]) -> Iterator[Record]:
    """The records that a CSV table names. Raises EcgbatchError as Table, and for a line without a path."""
    table = Table(file, columns)
    index = table.index("path", needed=True)
    for row in table.rows():
        path, member = as_on_disk(search, cell(row.cells, index))
        if not path:
            raise EcgbatchError(f"{file.name} has no path on line {row.line}: give each line one or remove the line")
        yield Record(write_down(path, member), row.age, row.sex)


def columns_of(file: TextFile) -> list[str]:
    """The names in a table's first line, in lower case."""
    return [name.strip().casefold() for name in Table(file, {}).header]


def cell(cells: list[str], index: int | None) -> str:
    """A row's cell, empty where the column or the cell is not there."""
    return cells[index] if index is not None and index < len(cells) else ""


def _lines(file: TextFile) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; blank lines are left out."""
    reader = csv.reader(f"{line}\n" for line in lines(file))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise EcgbatchError(f"cannot read {file.name} after line {reader.line_num}: {error}") from error


def _sex_reader(file: TextFile, column: str) -> Callable[[int, str], int | None]:
    """What understands a column's cells. It raises EcgbatchError where numbers stand that may mean either."""
    known = _BY_NAME.get(column.strip().casefold(), SEXES)

    def sex_of(line: int, text: str) -> int | None:
        word = text.strip().lower()
        if word in known or not word.replace(".", "").isdecimal():
            return known.get(word)
        raise EcgbatchError(
            f"{file.name}, line {line}: it cannot be told what {word} means in the column {column.strip()!r}; "
            "write M and F, or name the column sex (0 male, 1 female), is_male or is_female"
        )

    return sex_of
