"""What a recording's signal says about how it was recorded: its amplitude, its limb leads, its saturation."""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.leads import leads_of
from ecgbatch.records.recording import Flag

LOWEST_AMPLITUDE, HIGHEST_AMPLITUDE = 0.33, 3.2
"""Millivolts."""
LARGEST_LIMB_RESIDUAL = 0.1

_SILENT_MILLIVOLTS = 1e-6
_CLIPPED_MILLIVOLTS = 2.0
_ROWS_AS_ONE = 32
_HELD_SECONDS, _HELD_SAMPLES = 0.02, 5


class Quality(NamedTuple):
    """Of a recording after the band-pass (`models.preprocessing`), at 100 Hz.

    amplitude: millivolts; the median, over the leads that are not constant, of the range from the 0.5th to the 99.5th
        percentile.
    limb_residual: root mean square of I + III - II over that of I, II and III together; 0 if that is below a
        nanovolt, as of leads that are constant, and where not all three were recorded.
    """

    amplitude: float
    limb_residual: float

    def of_leads(self, lead_set: str | None) -> "Quality":
        """Of a recording that has only the leads of this set."""
        return self if {"I", "II", "III"}.issubset(leads_of(lead_set)) else self._replace(limb_residual=0.0)

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
    ranges = np.sort(high - low, axis=-1)
    silent_leads = (ranges < _SILENT_MILLIVOLTS).sum(axis=-1)
    middle = np.stack([silent_leads + ranges.shape[-1] - 1, silent_leads + ranges.shape[-1]], axis=-1) // 2
    amplitude = np.take_along_axis(ranges, middle.clip(max=ranges.shape[-1] - 1), axis=-1).mean(axis=-1)
    first, second, third = np.moveaxis(filtered[..., :3], -1, 0)
    contradiction = np.square(first + third - second).mean(-1)
    limbs = np.square(filtered[..., :3]).mean((-1, -2))
    silent = limbs < _SILENT_MILLIVOLTS**2
    residual = np.sqrt(np.divide(contradiction, limbs, out=np.zeros_like(limbs), where=~silent))
    return [Quality(*each) for each in zip(amplitude.tolist(), residual.tolist(), strict=True)]


class Extremes(NamedTuple):
    """Of (n, leads), each lead's highest and lowest sample; NaN where one is missing."""

    highest: NDArray[np.float64]
    lowest: NDArray[np.float64]


def extremes(signal: NDArray[np.float64]) -> Extremes:
    """The extremes of (n, leads), n > 0. Of many rows as one, numpy finds them in a fifth of the time."""
    leads = signal.shape[1]
    whole = len(signal) // _ROWS_AS_ONE * _ROWS_AS_ONE
    rows, rest = signal[:whole].reshape(-1, _ROWS_AS_ONE * leads), signal[whole:]
    if not whole:
        return Extremes(rest.max(axis=0), rest.min(axis=0))
    highest, lowest = (most.reshape(_ROWS_AS_ONE, leads) for most in (rows.max(axis=0), rows.min(axis=0)))
    return Extremes(np.concatenate((highest, rest)).max(axis=0), np.concatenate((lowest, rest)).min(axis=0))


def is_clipped(signal: NDArray[np.float64], of: Extremes, rate: Fraction) -> bool:
    """Whether a lead of (n, leads) mV stays at its highest or lowest value for 20 ms and five samples at least.

    `of` are its extremes. Only beyond 2 mV: a lead at rest may well stay at one value.
    """
    held = max(_HELD_SAMPLES, math.ceil(_HELD_SECONDS * float(rate.numerator) / float(rate.denominator)))
    wide = of.highest - of.lowest >= _CLIPPED_MILLIVOLTS
    for extreme in of:
        for lead in np.flatnonzero(wide & (np.abs(extreme) >= _CLIPPED_MILLIVOLTS)):
            others = np.flatnonzero(np.concatenate([[True], signal[:, lead] != extreme[lead], [True]]))
            if np.diff(others).max() > held:
                return True
    return False
