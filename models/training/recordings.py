"""Reads recordings of the kind that a model is trained on; archives as they are, `records` reads."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES, SAMPLING_RATE
from ecgbatch.settings import EcgbatchError


def read_recording(path: Path) -> NDArray[np.float64]:
    """(1000, 12) in mV. Raises EcgbatchError for a recording that cannot be read or is not of that shape at 100 Hz."""
    import wfdb

    try:
        record = wfdb.rdrecord(str(path))
    except Exception as error:  # wfdb raises about anything for files that are not as they should be
        reason = " ".join(str(error).split())
        raise EcgbatchError(f"cannot read {path} ({reason}): mend it, or take it out of the table") from None
    column = {name.lower(): at for at, name in enumerate(record.sig_name)}
    if record.fs != SAMPLING_RATE or record.sig_len != SAMPLES or any(lead.lower() not in column for lead in LEADS):
        raise EcgbatchError(f"{path} is not {len(LEADS)} leads, {SAMPLES} samples at {SAMPLING_RATE} Hz")
    signal: NDArray[np.float64] = record.p_signal[:, [column[lead.lower()] for lead in LEADS]]
    if not np.isfinite(signal).all():
        raise EcgbatchError(f"{path} has samples that are missing")
    return signal
