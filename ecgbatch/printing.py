"""How commands print: rows as an aligned table for people or as JSON for programs, whatever names are in them."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import islice
from typing import Any, TextIO

BLOCK = 1000
"""Rows aligned with each other; more would have to be held in memory before the first is seen."""


def printable(text: str, stream: TextIO | None = None) -> str:
    r"""The text on one line as `stream` (standard output) can show it: what a terminal would act on is escaped.

    A name in an archive may hold line ends, colour codes or letters that the terminal's encoding lacks; they come out
    as `\n`, `\x1b`, `\xe9`.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def duration(seconds: float) -> str:
    """`1 h 05 min`, `2 min 03 s`, `8 s`; none is negative, though a clock was put back in the meantime."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def first_line(error: BaseException) -> str:
    """The first line of what a library, or the driver below it, says."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def say(text: str) -> None:
    """Prints a line of a command's output."""
    print(printable(text), flush=True)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool = False) -> None:
    """Prints rows as they come, however many there are: a table, or JSON."""
    if as_json:
        _print_json(columns, rows)
        return
    print_block = _print_table if sys.stdout.isatty() else _print_aligned
    rows = iter(rows)
    heads: list[str] | None = list(map(printable, columns))
    while (block := list(islice(rows, BLOCK))) or heads:
        numbers = [all(isinstance(value, (int, float, type(None))) for value in c) for c in zip(*block, strict=True)]
        right = numbers or [False] * len(columns)
        print_block(heads, [[_shown(value) for value in row] for row in block], right)
        heads = None


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows as they come, as CSV in UTF-8: numbers in full, times in UTC, nothing for what is unknown."""
    import csv

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal's is: it is a file for programs
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([value if isinstance(value, float) else _text(value) for value in row] for row in rows)


def print_mapping(values: Mapping[str, Any], as_json: bool = False) -> None:
    """Prints one thing's properties, a line each."""
    if as_json:
        print(json.dumps(values, default=_text))
        return
    width = max(map(len, values))
    for key, value in values.items():
        print(f"{printable(key).ljust(width)}  {_shown(value)}")


def _print_aligned(heads: Sequence[str] | None, rows: list[list[str]], right: Sequence[bool]) -> None:
    lines = [list(heads), *rows] if heads else rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        aligned = zip(line, widths, right, strict=True)
        print("  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in aligned).rstrip())


def _print_table(heads: Sequence[str] | None, rows: list[list[str]], right: Sequence[bool]) -> None:
    """For people: as wide as the terminal at most, cells folded where they are longer."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_header=heads is not None, show_edge=False, pad_edge=False)
    for head, r in zip(heads or right, right, strict=True):
        table.add_column(str(head), justify="right" if r else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def print_note(text: str) -> None:
    """Says something beside the output proper, on standard error."""
    print(printable(text, sys.stderr), file=sys.stderr, flush=True)


def _print_json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """One array, one row a line, written as the rows come."""
    separator = "[\n"
    for row in rows:
        print(separator + json.dumps(dict(zip(columns, row, strict=True)), default=_text), end="")
        separator = ",\n"
    print("[]" if separator == "[\n" else "\n]")


def _shown(value: Any) -> str:
    return printable(_text(value))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" ", timespec="seconds")[:19]
    return str(value)
