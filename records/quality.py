"""What a recording's signal says about how it was recorded: its amplitude, its limb leads, its saturation."""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import Flag

LOWEST_AMPLITUDE, HIGHEST_AMPLITUDE = 0.33, 3.2
"""Millivolts."""
LARGEST_LIMB_RESIDUAL = 0.1

_SILENT_MILLIVOLTS = 1e-6
_CLIPPED_MILLIVOLTS = 2.0
_HELD_SECONDS, _HELD_SAMPLES = 0.02, 5


class Quality(NamedTuple):
    """Of a recording after the band-pass (`models.preprocessing`), at 100 Hz.

    amplitude: millivolts; the median over the leads of the range from the 0.5th to the 99.5th percentile.
    limb_residual: root mean square of I + III - II over that of I, II and III together; 0 if that is below a
        nanovolt, as of leads that are constant.
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


def measure(filtered: NDArray[np.float64]) -> list[Quality]:
    """Of band-passed signals, (n, T, 12) mV at 100 Hz. `models.kernels.compiled.clean` gives the same."""
    low, high = np.percentile(filtered.transpose(0, 2, 1), [0.5, 99.5], axis=-1)  # (n, 12) each
    first, second, third = np.moveaxis(filtered[..., :3], -1, 0)
    contradiction = np.square(first + third - second).mean(-1)
    limbs = np.square(filtered[..., :3]).mean((-1, -2))
    silent = limbs < _SILENT_MILLIVOLTS**2
    residual = np.sqrt(np.divide(contradiction, limbs, out=np.zeros_like(limbs), where=~silent))
    return [Quality(*each) for each in zip(np.median(high - low, axis=-1).tolist(), residual.tolist(), strict=True)]


def is_clipped(signal: NDArray[np.float64], rate: Fraction) -> bool:
    """Whether a lead of (n, leads) mV stays at its highest or lowest value for 20 ms and five samples at least.

    Only beyond 2 mV: a lead at rest may well stay at one value.
    """
    held = max(_HELD_SAMPLES, math.ceil(_HELD_SECONDS * float(rate.numerator) / float(rate.denominator)))
    highest, lowest = signal.max(axis=0), signal.min(axis=0)
    wide = highest - lowest >= _CLIPPED_MILLIVOLTS
    for extreme in (highest, lowest):
        for lead in np.flatnonzero(wide & (np.abs(extreme) >= _CLIPPED_MILLIVOLTS)):
            others = np.flatnonzero(np.concatenate([[True], signal[:, lead] != extreme[lead], [True]]))
            if np.diff(others).max() > held:
                return True
    return False
