"""What a recording's signal says about how it was recorded: its amplitude, its limb leads, its saturation."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import Flag

LOWEST_AMPLITUDE, HIGHEST_AMPLITUDE = 0.25, 4.0
"""Millivolts."""
LARGEST_LIMB_RESIDUAL = 0.2

_HELD_SAMPLES = 5
_CLIPPED_MILLIVOLTS = 2.0


class Quality(NamedTuple):
    """Of a recording after the band-pass (`models.preprocessing`), at 100 Hz.

    amplitude: millivolts; the median over the leads of the range from the 0.5th to the 99.5th percentile.
    limb_residual: root mean square of I + III - II over that of I, II and III together; 0 if they are all zero.
    """

    amplitude: float
    limb_residual: float

    def flags(self) -> set[Flag]:
        """What is implausible about them."""
        flags = set()
        if not LOWEST_AMPLITUDE <= self.amplitude <= HIGHEST_AMPLITUDE:
            flags.add(Flag.AMPLITUDE_IMPLAUSIBLE)
        if self.limb_residual > LARGEST_LIMB_RESIDUAL:
            flags.add(Flag.LIMB_LEADS_CONTRADICT)
        return flags


def measure(filtered: NDArray[np.float64]) -> Quality:
    """Of a band-passed signal, (T, 12) mV at 100 Hz."""
    low, high = np.percentile(filtered, [0.5, 99.5], axis=0)
    first, second, third = filtered[:, 0], filtered[:, 1], filtered[:, 2]
    residual = np.mean(np.square(first + third - second))
    together = np.mean(np.square(filtered[:, :3]))
    return Quality(float(np.median(high - low)), float(np.sqrt(residual / together)) if together else 0.0)


def is_clipped(signal: NDArray[np.float64]) -> bool:
    """Whether a lead of (n, leads) mV stays at its highest or lowest value, far from its mean, for several samples."""
    mean = signal.mean(axis=0)
    for extreme, distance in ((signal.max(axis=0), 1), (signal.min(axis=0), -1)):
        far = np.flatnonzero(distance * (extreme - mean) > _CLIPPED_MILLIVOLTS)
        if far.size and _longest_run(signal[:, far] == extreme[far]) >= _HELD_SAMPLES:
            return True
    return False


def _longest_run(held: NDArray[np.bool_]) -> int:
    """Of (n, leads), how many samples in a row are true at most in any lead."""
    times, leads = np.nonzero(np.diff(np.pad(held, ((1, 1), (0, 0))).T.astype(np.int8)).T)
    order = np.lexsort((times, leads))
    edges = times[order]
    return int((edges[1::2] - edges[::2]).max(initial=0))
