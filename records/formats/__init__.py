"""The formats of recordings, one file each. A format offers `decode(files, record, seconds) -> Decoded`."""

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import wfdb


def decode(files: Files, record: str, seconds: float) -> Decoded:
    """The first `seconds` seconds, at least, of the record at this path, by the format that its content has.

    Raises RecordError.
    """
    return wfdb.decode(files, record, seconds)
