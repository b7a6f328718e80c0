"""The formats of recordings, one file each; docs/formats.md says how each is understood and how to add one."""

from collections.abc import Collection

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import (
    aecg,
    cardiosoft,
    csv_table,
    dicom,
    edf,
    hdf5,
    ishne,
    matlab,
    muse,
    numpy_arrays,
    philips,
    schiller,
    scp,
    wfdb,
)
from ecgbatch.records.formats.format import HEAD_BYTES, Format
from ecgbatch.records.recording import Reason, RecordError

FORMATS: tuple[Format, ...] = (
    muse.FORMAT,
    aecg.FORMAT,
    cardiosoft.FORMAT,
    philips.FORMAT,
    schiller.FORMAT,
    dicom.FORMAT,
    edf.FORMAT,
    ishne.FORMAT,
    hdf5.FORMAT,
    matlab.FORMAT,
    numpy_arrays.FORMAT,
    scp.FORMAT,
    csv_table.FORMAT,
)
"""All but WFDB, whose records are known by a header (.hea). The first that recognises a file has it."""


def format_of(head: bytes) -> Format | None:
    """The format of a file that begins so (`HEAD_BYTES` of it, or all of a shorter one); None for any other file."""
    return next((format for format in FORMATS if format.recognises(head)), None)


def decode(
    files: Files, path: str, member: str | None, seconds: float, lead_sets: Collection[str] | None = None
) -> Decoded:
    """The first `seconds` seconds, at least, of the record at this path, by the format that its content has.

    `member` is its name in a file of many; `lead_sets` as `find_leads` takes them. Raises RecordError.
    """
    if member is None and (files.exists(f"{path}.hea") or not files.exists(path)):
        return wfdb.decode(files, path, seconds, lead_sets)
    if format := format_of(files.head(path, HEAD_BYTES)):
        return format.read(files, path, member)
    raise RecordError(Reason.UNKNOWN_FORMAT, "the file is of no format that is known here")
