"""What a format has to say for itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.recording import Reason, RecordError

HEAD_BYTES = 4096
"""How much of a file's beginning tells its format."""

KEPT_BYTES = 32 << 20
"""How much of a file's beginning is decoded: hours of a Holter recording are not needed for its first ten seconds."""

_LARGEST_FILE = 4 << 30


def one_record(files: Files, path: str) -> Iterator[str | None]:
    """The only record of a file, which needs no name."""
    yield None


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files that hold recordings.

    name: as it is stored with each recording.
    recognises: whether a file with this beginning (`HEAD_BYTES`, or all of a shorter one) is of this format.
    read: the record of this name in the file at this path, or its only one (None). Raises RecordError, whatever the
        file holds.
    members: the names of the file's records; None for the only one, or where they cannot be told: reading says why.
    """

    name: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Files, str, str | None], Decoded]
    members: Callable[[Files, str], Iterator[str | None]] = one_record


def whole_file(decode: Callable[[bytes, int], Decoded]) -> Callable[[Files, str, str | None], Decoded]:
    """A format's `read` where a file is one record, which `decode` makes of its first `KEPT_BYTES` and its size."""

    def read(files: Files, path: str, member: str | None) -> Decoded:
        check_only(member)
        return decode(*load(files, path))

    return read


def check_only(member: str | None) -> None:
    """Raises RecordError if one of many records is wanted of a file of one."""
    if member is not None:
        raise RecordError(Reason.MISSING_RECORD, "the file is one record, not many")


def load(files: Files, path: str) -> tuple[bytes, int]:
    """A file's first `KEPT_BYTES` and its size; all of it goes into the digest."""
    loaded = files.load(path, _LARGEST_FILE, keep=KEPT_BYTES, unreadable=Reason.UNREADABLE_SIGNAL)
    return loaded.data, loaded.size


def load_whole(files: Files, path: str, limit: int = KEPT_BYTES) -> bytes:
    """A file of at most `limit` bytes. Raises RecordError (`too_large`) for a longer one."""
    return files.load(path, limit, unreadable=Reason.UNREADABLE_SIGNAL).data


def whole_small_file(decode: Callable[[bytes], Decoded]) -> Callable[[Files, str, str | None], Decoded]:
    """A format's `read` where a file is one record, and needs to be there whole."""

    def read(files: Files, path: str, member: str | None) -> Decoded:
        check_only(member)
        return decode(load_whole(files, path))

    return read
