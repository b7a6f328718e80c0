"""The door to the compiled reader of the WFDB records of which most archives are full."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ecgbatch.records import quality
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES, Flag, Recording

try:
    _plain: Any = importlib.import_module("ecgbatch.records.formats._plain")
except ImportError:  # no C++ compiler when the package was installed
    _plain = None


def available() -> bool:
    """Whether the reader was built when the package was installed."""
    return _plain is not None


def read(root: Path, record: str) -> Recording | None:
    """A sound record of the plain kind, in a third of the time that it takes otherwise; None for all others."""
    signal = np.empty((SAMPLES, len(LEADS)))
    if _plain is None or (found := _plain.read(f"{root}/{record}.hea", signal)) is None:
        return None
    header, data, cropped, checksums_agree, flat_lead = found
    if not signal[0].any() or not signal[-1].any() or (signal == signal[0]).all():
        return None
    digest = hashlib.sha256(header)
    digest.update(data)
    noticed = {
        Flag.CROPPED: cropped,
        Flag.CHECKSUM_MISMATCH: not checksums_agree,
        Flag.FLAT_LEAD: flat_lead,
        Flag.CLIPPED: quality.is_clipped(signal),
    }
    return Recording(signal, digest.hexdigest(), tuple(sorted(flag for flag, seen in noticed.items() if seen)))
