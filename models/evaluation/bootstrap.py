"""Figures with their 95 % bootstrap intervals.

Records are drawn with replacement, as many as there are, and the interval is from the 2.5th to the 97.5th percentile of
the figure over the draws (Efron & Tibshirani 1993, chapter 13). The draws follow from a fixed seed, so the same input
gives the same digits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ecgbatch.models.evaluation.metrics import Numbers

RESAMPLES = 1000
SEED = 0
DIGITS = 4
AT_ONCE = 200_000
"""Records drawn at once: few enough for the processor's cache."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval; None for what the records do not tell."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return ""
        dash = "-" if self.low >= 0 else " to "
        return f"{self.value:.{DIGITS}f} ({self.low:.{DIGITS}f}{dash}{self.high:.{DIGITS}f})"


def draws(records: int) -> Iterator[Numbers]:
    """How often each record counts, (B, R) at a time: first each once, then as drawn."""
    rng = np.random.default_rng(SEED)
    yield np.ones((1, records))
    left = RESAMPLES
    while left:
        size = min(left, max(1, AT_ONCE // records))
        drawn = rng.integers(records, size=(size, records)) + records * np.arange(size)[:, np.newaxis]
        yield np.bincount(drawn.ravel(), minlength=size * records).reshape(size, records).astype(np.float64)
        left -= size


def estimate(values: Numbers, *, grows_by_chance: bool = False) -> Estimate:
    """The figure comes first; draws that cannot tell it, for lack of positives or negatives, are left out.

    A figure that chance alone makes larger is larger in the draws than in the records, for a draw has chance twice.
    With `grows_by_chance` the draws are moved by their mean excess, the bootstrap's estimate of that bias (Efron &
    Tibshirani 1993, chapter 10), so that the interval is around the figure; it does not go below 0.
    """
    value, draws = values[0], values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value) or not len(draws):
        return Estimate(None, None, None)
    if grows_by_chance:
        draws = np.maximum(draws - (draws.mean() - value), 0)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(*(round(float(each), DIGITS) for each in (value, low, high)))
