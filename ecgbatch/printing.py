"""How commands print: rows as an aligned table for people or as JSON for programs, whatever names are in them."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
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


def say(text: str) -> None:
    """Prints a line of a command's output."""
    print(printable(text), flush=True)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool = False) -> None:
    """Prints rows as they come, however many there are."""
    if as_json:
        _print_json(columns, rows)
        return
    rows = iter(rows)
    block: list[Sequence[Any]] = [columns]
    block += islice(rows, BLOCK)
    while block:
        cells = [[_shown(value) for value in row] for row in block]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        right = [all(isinstance(value, (int, float, type(None))) for value in c) for c in zip(*block[1:], strict=True)]
        for row in cells:
            aligned = zip(row, widths, right or [False] * len(row), strict=True)
            print("  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in aligned).rstrip())
        block = list(islice(rows, BLOCK))


def print_mapping(values: Mapping[str, Any], as_json: bool = False) -> None:
    """Prints one thing's properties, a line each."""
    if as_json:
        print(json.dumps(values, default=_text))
        return
    width = max(map(len, values))
    for key, value in values.items():
        print(f"{printable(key).ljust(width)}  {_shown(value)}")


def remark(text: str) -> None:
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
