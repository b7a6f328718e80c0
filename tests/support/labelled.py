"""Records with labels, and probabilities that know something about them."""

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.evaluation.labels import LabelledRecord

THRESHOLDS = {"norm": 0.55, "mi": 0.4, "sttc": 0.5, "cd": 0.35, "hyp": 0.6}


def some_records(count: int, seed: int = 0) -> tuple[list[LabelledRecord], NDArray[np.float64]]:
    """Records, and probabilities that know something about their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, 5)) < 0.35
    probabilities = np.clip(0.35 * labels + 0.65 * rng.random((count, 5)), 0, 1)
    ages = rng.integers(18, 95, count)
    records = [
        LabelledRecord(f"r{n}", 1 + n % 10, float(ages[n]), float(n % 2), tuple(map(int, row)), ())
        for n, row in enumerate(labels)
    ]
    return records, probabilities


def columns(records: list[LabelledRecord]) -> NDArray[np.int64]:
    return np.array([record.labels for record in records])
