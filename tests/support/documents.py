"""Reads the project's documents: their tables and links."""

import re
from pathlib import Path

from places import REPOSITORY

DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def table(document: Path, heading: str) -> dict[str, list[str]]:
    """The first table under a heading: its rows' other cells by their first, which is without its backquotes."""
    _, _, section = document.read_text().partition(f"\n## {heading}\n")
    lines = section.partition("\n## ")[0].splitlines()
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in lines if line.startswith("|")]
    return {first.strip().strip("`"): [cell.strip() for cell in rest] for first, *rest in rows[2:]}


def links(document: Path) -> list[str]:
    """The links to other files of the project, without the places within them."""
    found = re.findall(r"(?:\]\(|src=\")([^)\"#]+)(?:#[^)]*)?[)\"]", document.read_text())
    return [link for link in found if "://" not in link]
