"""Makes archives, and finds what is in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.recording import Record


def write_header(root: Path, path: str, comments: str = "", line: str = "r 12 100 1000") -> None:
    """A header alone."""
    file = root / f"{path}.hea"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{line}\n{comments}")


def find_records(root: Path, manifest: Path | None = None, **options: Any) -> Iterator[Record]:
    """An archive's records."""
    return Archive(root, manifest, **options).records()


def paths(root: Path, manifest: Path | None = None, **options: Any) -> list[str]:
    """The paths of an archive's records."""
    return [record.path for record in find_records(root, manifest, **options)]


def people(root: Path, manifest: Path | None = None, **options: Any) -> list[tuple[str, float | None, int | None]]:
    """Path, age and sex of an archive's records."""
    return [astuple(record) for record in find_records(root, manifest, **options)]


def astuple(record: Record) -> tuple[str, float | None, int | None]:
    return record.path, record.age, record.sex
