"""The signals of an archive's records of ten seconds, for what takes no others."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.reading import read
from ecgbatch.records.recording import SAMPLES, RecordError
from ecgbatch.settings import EcgbatchError


def read_signal(archive: Path, record: str, *, follow_links: bool = False) -> NDArray[np.float64]:
    """(1000, 12) in mV at 100 Hz. Raises EcgbatchError for a record that cannot be read or is shorter."""
    try:
        signal = read(archive, record, follow_links=follow_links).signal
    except RecordError as error:
        raise EcgbatchError(f"cannot read {archive / record} ({error}): mend it, or take it out of the table") from None
    if len(signal) != SAMPLES:
        raise EcgbatchError(f"{archive / record} is shorter than ten seconds: take it out of the table")
    return signal
