"""What all HTML pages have: a head with the style, readable on a telephone and by night, and tables."""

from collections.abc import Callable, Collection, Sequence
from html import escape
from typing import Any

STYLE = """\
:root { --ink: #243b53; --mark: #1f5f99; --line: #9aa5b1; --faint: #dbe4ec; --paper: #fff; --soft: #52667a;
  --warn: #9b2c2c }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9ef; --mark: #6db3f2; --line: #77869a; --faint: #33414f;
  --paper: #14191f; --soft: #a5b3c2; --warn: #ff9d9d } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
  margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem } p { margin: .3rem 0 }
.notice { font-weight: 600; color: var(--warn) } .small { color: var(--soft); font-size: .85rem }
.tiles, .panels { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0 }
.tiles div { flex: 1 1 9rem; border: 1px solid var(--faint); border-radius: .5rem; padding: .6rem .8rem }
.tiles b { display: block; font-size: 1.6rem; line-height: 1.3; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--faint); overflow-wrap: normal }
td { white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8rem }
th.words, td.words { text-align: left; white-space: normal; min-width: 12rem }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere }
td span { color: var(--soft); font-size: .75rem; display: block } svg { max-width: 100%; height: auto }
"""


def head(title: str, style: str = "") -> str:
    """All of a page before its first heading; `style` goes after the one of all pages."""
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE}{style}</style>
</head>
<body>
"""


def text_of(value: Any) -> str:
    """A cell: numbers with commas, text escaped, nothing for None."""
    return "" if value is None else escape(f"{value:,}" if isinstance(value, int) else str(value))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    html_of: Callable[[Any], str] = text_of,
    words: Collection[str] = (),
) -> str:
    """A table; `html_of` makes a value the HTML of its cell. The columns `words` are to be read: they may wrap."""
    kinds = [' class="words"' if column in words else "" for column in columns]
    heads = "".join(f"<th{kind}>{escape(column)}</th>" for column, kind in zip(columns, kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{html_of(value)}</td>" for value, kind in zip(row, kinds)) + "</tr>"
        for row in rows
    )
    return f"<table>\n<tr>{heads}</tr>\n{body}\n</table>"


def facts(rows: Sequence[tuple[str, Any]]) -> str:
    """Names and values, which may be long, one below the other."""
    body = "\n".join(f"<tr><td>{escape(name)}</td><td>{text_of(value)}</td></tr>" for name, value in rows)
    return f'<table class="facts">\n{body}\n</table>'
