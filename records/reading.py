"""The one entry to reading: a record's path becomes a recording, or an error that says why not."""

import errno
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgbatch.records import formats
from ecgbatch.records.files import Files, check_path
from ecgbatch.records.finishing import finish, finish_windows
from ecgbatch.records.formats import wfdb_compiled
from ecgbatch.records.paths import on_disk
from ecgbatch.records.recording import MIN_SECONDS, SECONDS, Flag, Reason, RecordError, Recording, Window

SECONDS_OF_ZEROS = 10
"""How far the signal is looked for in a record that begins with zeros."""

MOST_SECONDS = 3600
"""How much of a record is read in windows."""

# Named one by one: celery's soft time limit derives from Exception and must pass.
_FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def read(
    root: Path,
    record: str,
    *,
    min_seconds: float = MIN_SECONDS,
    follow_links: bool = False,
    lead_sets: Collection[str] | None = None,
) -> Recording:
    """Reads the record at `record`, of whatever format its content has.

    `record` is relative to `root`, of WFDB without suffix, written as records/paths.py says. One of less than
    `min_seconds` is refused. Symbolic links that lead out of `root` are followed only with `follow_links`. One with
    fewer than twelve leads is refused, but for those of `lead_sets`, names of LEAD_SETS. Raises RecordError, and
    nothing else but what a caller may use to interrupt.
    """
    with _own_errors():
        path, member = _locate(record)
        if member is None and (found := wfdb_compiled.read(root, path, min_seconds, follow_links)):
            return found
        files = Files(root, follow_links)
        decoded = formats.decode(files, path, member, SECONDS, lead_sets)
        if decoded.begins_with_nothing and decoded.is_cut:
            files = Files(root, follow_links)
            decoded = formats.decode(files, path, member, SECONDS + SECONDS_OF_ZEROS, lead_sets)
        return finish(decoded, files.sha256, min_seconds, lead_sets)


def read_windows(
    root: Path,
    record: str,
    *,
    min_seconds: float = MIN_SECONDS,
    follow_links: bool = False,
    lead_sets: Collection[str] | None = None,
) -> list[Window]:
    """As `read`, but all of the record in windows of ten seconds, up to its first hour; the last may be shorter.

    Of very large files it may be less than an hour: as much as 16 MB of each WFDB signal file hold. A window that
    cannot be scored is missing; if none can be, the first one's RecordError is raised. Where anything is left out, all
    windows are flagged `cropped`.
    """
    with _own_errors():
        path, member = _locate(record)
        found = wfdb_compiled.read(root, path, min_seconds, follow_links) if member is None else None
        if found and Flag.CROPPED not in found.flags:
            return [Window(None, found)]
        files = Files(root, follow_links)
        decoded = formats.decode(files, path, member, MOST_SECONDS, lead_sets)
        return finish_windows(decoded, files.sha256, min_seconds, lead_sets)


def _locate(record: str) -> tuple[str, str | None]:
    path, member = on_disk(record)
    check_path(path)
    return path, member


@contextmanager
def _own_errors() -> Iterator[None]:
    """Whatever a file makes a library raise, as a RecordError."""
    try:
        yield
    except MemoryError as error:
        raise RecordError(Reason.OUT_OF_MEMORY, "not enough memory to read the record") from error
    except _FOREIGN_ERRORS as error:
        out_of_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
        reason = Reason.OUT_OF_MEMORY if out_of_memory else Reason.UNREADABLE_SIGNAL
        # The error's own text may quote the file, which nobody but its owner may be meant to see.
        raise RecordError(reason, f"reading it ended in a {type(error).__name__}") from error
