"""Units of voltage as files spell them, and leads put side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import Reason, RecordError

_PER_MILLIVOLT = {
    "v": 1e-3, "volt": 1e-3, "volts": 1e-3,
    "mv": 1.0, "millivolt": 1.0, "millivolts": 1.0,
    "uv": 1e3, "\N{MICRO SIGN}v": 1e3, "\N{GREEK SMALL LETTER MU}v": 1e3, "microvolt": 1e3, "microvolts": 1e3,
    "nv": 1e6, "nanovolt": 1e6, "nanovolts": 1e6,
}  # fmt: skip


def per_millivolt(unit: str, lead: str) -> float:
    """How many of `unit` are a millivolt. Raises RecordError if it is no unit of voltage."""
    factor = _PER_MILLIVOLT.get(unit.strip().lower())
    if factor is None:
        detail = f"lead {lead[:20]} is in {unit.strip()[:20]}" if unit.strip() else f"lead {lead[:20]} has no unit"
        raise RecordError(Reason.UNSUPPORTED_UNITS, detail)
    return factor


def side_by_side(samples: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(T, n) of n leads of equal length. Raises RecordError if they are not."""
    if len({len(lead) for lead in samples}) != 1:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the leads are not of the same length")
    return np.stack(samples, axis=1)
