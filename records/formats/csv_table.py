"""CSV files of one record: a column a lead, named in the first line or by `archive.toml`, which tells the rest."""

import csv
import io

import numpy as np

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import Format, check_only, load_whole
from ecgbatch.records.formats.layout import Layout, layout_of
from ecgbatch.records.leads import leads_of_signals
from ecgbatch.records.recording import Reason, RecordError

_SEPARATORS = (",", ";", "\t")
_FEWEST_LEADS = 8
_LARGEST = 16 << 20
_COUNTS = (8, 12)


def _read(files: Files, path: str, member: str | None) -> Decoded:
    check_only(member)
    layout = layout_of(files, path) or Layout()
    data = load_whole(files, path, _LARGEST)
    first = _cells(data)
    named = not _all_numbers(first)
    if (separator := _separator(data)) != ",":
        data = data.replace(b",", b".")  # the decimal comma that goes with other separators
    columns = [column for column, lead in enumerate(leads_of_signals(first)) if lead] if named else None
    try:
        text = io.StringIO(data.decode("utf-8-sig"))
        array = np.loadtxt(text, delimiter=separator, skiprows=int(named), ndmin=2, comments=None, usecols=columns)
    except (ValueError, UnicodeDecodeError) as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "a cell is no number, or lines are of different length") from error
    return layout.decode(array, FORMAT.name, tuple(first[column] for column in columns) if columns else None)


def _separator(data: bytes) -> str:
    line = data.split(b"\n", 1)[0]
    return max(_SEPARATORS, key=lambda separator: line.count(separator.encode()))


def _cells(data: bytes) -> list[str]:
    """The cells of the first line."""
    line = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip("\r")
    return [cell.strip() for cell in next(csv.reader([line], delimiter=_separator(data)), [])]


def _all_numbers(cells: list[str]) -> bool:
    try:
        return all(float(cell) < float("inf") for cell in cells)
    except ValueError:
        return False


def _recognises(head: bytes) -> bool:
    """A first line that names leads, or the first two lines of nothing but numbers, eight or twelve in each."""
    lines = head.split(b"\n", 2)
    if b"\0" in head or len(lines) < 2:
        return False
    try:
        first, second = _cells(lines[0]), _cells(lines[1])
    except csv.Error:
        return False
    leads = sum(lead is not None for lead in leads_of_signals(first))
    names = leads >= _FEWEST_LEADS or leads == len(first) >= 2
    numbers = len(first) == len(second) and len(first) in _COUNTS and _all_numbers(first) and _all_numbers(second)
    return names or numbers


FORMAT = Format("csv", _recognises, _read)
