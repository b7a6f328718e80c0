"""One synthetic ECG, and whose it is, for files of every format."""

from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records import synthetic
from ecgbatch.records.leads import LEADS

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
UNUSUAL_ORDER = (*INDEPENDENT, "III", "aVR", "aVL", "aVF")
BORN, RECORDED = date(1953, 1, 1), date(2002, 11, 22)
AGE, SEX = 49, 1


class Ecg(NamedTuple):
    """(T, 12) millivolts, samples a second, and the microvolts of a step where it is not a device's own."""

    millivolts: NDArray[np.float64]
    rate: int
    step: float | None = None

    def digital(self, step: float, leads: tuple[str, ...] = LEADS) -> NDArray[np.int16]:
        """(T, n) in steps of so many microvolts."""
        columns = [LEADS.index(lead) for lead in leads]
        return np.rint(self.millivolts[:, columns] * 1000 / step).astype("<i2")


def make(rate: int = 500, seed: int = 0) -> Ecg:
    """A synthetic ECG of ten seconds."""
    rng = np.random.default_rng(seed)
    return Ecg(synthetic._record(rate, "ventricular extrasystoles", 70, rng), rate)
