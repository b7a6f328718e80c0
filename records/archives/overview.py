"""What is in an archive, told before anything is scored."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ecgbatch.records import formats
from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.files import Files, check_path
from ecgbatch.records.formats import wfdb_header
from ecgbatch.records.paths import on_disk
from ecgbatch.records.recording import SECONDS, RecordError

LOOKED_INTO = 2_000
THEN_EVERY = 50
"""So many records are looked into from the first on, and then every fiftieth."""

_MOST_KINDS = 1000


class Kind(NamedTuple):
    """Records that are alike: format, samples per second and whole seconds, where they are told; or why unreadable."""

    format: str
    rate: float | None = None
    seconds: int | None = None
    reason: str = ""


@dataclass
class Overview:
    """Counts of an archive's records, and the kinds of those that were looked into."""

    records: int = 0
    with_age: int = 0
    with_sex: int = 0
    looked_into: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)


def look_into(archive: Archive, on_progress: Callable[[int], None]) -> Overview:
    """Lists all records and looks into some, in flat memory. Raises EcgbatchError as `Archive.records`."""
    overview = Overview()
    for record in archive.records():
        overview.records += 1
        overview.with_age += record.age is not None
        overview.with_sex += record.sex is not None
        if overview.records <= LOOKED_INTO or overview.records % THEN_EVERY == 0:
            overview.looked_into += 1
            kind = _kind(Files(archive.root, archive.follow_links), record.path)
            overview.kinds[kind if kind in overview.kinds or len(overview.kinds) < _MOST_KINDS else Kind("others")] += 1
        if overview.records % 1000 == 0:
            on_progress(overview.records)
    return overview


def _kind(files: Files, written: str) -> Kind:
    """What a record says of itself: by its header alone where it has one, else by decoding it."""
    try:
        path, member = on_disk(written)
        check_path(path)
        if member is None and files.exists(f"{path}.hea"):
            header = wfdb_header.parse(files.load(f"{path}.hea", wfdb_header.LARGEST_HEADER).data)
            length = header.length or sum(segment.length for segment in header.segments) or None
            return _of_length("wfdb", header.rate, length)
        decoded = formats.decode(files, path, member, SECONDS)
        return _of_length(decoded.format, decoded.rate, decoded.length or len(decoded.millivolts))
    except RecordError as error:
        return Kind("unreadable", reason=error.reason)
    except Exception as error:  # whatever a file holds, the others are still to be told
        return Kind("unreadable", reason=type(error).__name__)


def _of_length(format: str, rate: float | None, length: int | None) -> Kind:
    return Kind(format, rate, round(length / rate) if rate and length else None)
