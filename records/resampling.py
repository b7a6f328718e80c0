"""From any sampling rate to 100 Hz, as PTB-XL made its 100 Hz version."""

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records import compiled
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLING_RATE

_CUTOFF = 44.6
_SUPPORT = 0.18
_KAISER_BETA = 4.9
_DELAY = 0.00125
_MOST_TAPS = 1 << 18


class Filter(NamedTuple):
    """A low-pass for `up` / `down` times the sampling rate: its taps at `up` times the rate, an odd number."""

    up: int
    down: int
    taps: NDArray[np.float64]


def resample(signal: NDArray[np.float64], rate: Fraction) -> NDArray[np.float64]:
    """(n, leads) at `rate` Hz to (n x 100 / rate, rounded up, leads) at 100 Hz, as PTB-XL made its 100 Hz version.

    A Kaiser-windowed sinc, -6 dB at 44.6 Hz, 0.18 s to each side, and 1.25 ms (an eighth of a sample) late, by
    polyphase; the ends are padded along the line between first and last sample. The four figures were fitted to
    200 recordings that PTB-XL 1.0.1 has at 500 and at 100 Hz: away from the ends the result differs from the 100 Hz
    release by 0.35 uV root mean square, of which 0.29 are the release's rounding to 1 uV. `resample_poly` on its
    defaults is 18 uV off, an FFT 19, every fifth sample 23, nearly all of it by the delay. The release's last 0.1 s
    holds something else (100 uV off on average, whatever the method), which is not imitated.

    Products are summed in the order of time, so that compiled or not it gives the same bits.
    """
    filter = lowpass(rate)
    outputs = -(-len(signal) * filter.up // filter.down)
    if compiled.reader is None or signal.shape[1] != len(LEADS):
        return _resample(signal, filter, outputs)
    resampled = np.empty((outputs, len(LEADS)))
    compiled.reader.resample(np.ascontiguousarray(signal), *filter, resampled)
    return resampled


def _resample(signal: NDArray[np.float64], filter: Filter, outputs: int) -> NDArray[np.float64]:
    up, down, taps = filter
    half = len(taps) // 2
    terms = -(-len(taps) // up)
    centre = half + np.arange(outputs) * down
    last = centre // up
    left = terms - 1
    padded = _padded(signal, left, int(last[-1]) + 1 - len(signal))
    taps = np.concatenate([taps, np.zeros(terms * up - len(taps))])
    resampled = np.zeros((outputs, signal.shape[1]))
    for term in range(terms):
        weights = taps[centre - last * up + (left - term) * up]
        resampled += padded[last + term] * weights[:, None]
    return resampled


def _padded(signal: NDArray[np.float64], left: int, right: int) -> NDArray[np.float64]:
    """The signal continued at both ends along the line between its first and its last sample."""
    slope = (signal[-1] - signal[0]) / (len(signal) - 1)
    before = signal[0] + np.arange(-left, 0)[:, None] * slope
    after = signal[-1] + np.arange(1, max(right, 0) + 1)[:, None] * slope
    return np.concatenate([before, signal, after])


@lru_cache(maxsize=4)
def lowpass(rate: Fraction) -> Filter:
    """The filter that takes a signal of `rate` Hz to 100 Hz; the sum of its taps is `up`.

    A rate whose filter would take more than 2 MB, such as 9991.1 Hz, is taken for one close by: what is off by that
    is less than 1.5 ms at the end of ten seconds.
    """
    most_phases = int(_MOST_TAPS / (2 * _SUPPORT * rate))
    ratio = (rate / SAMPLING_RATE).limit_denominator(most_phases)
    up, down = ratio.denominator, ratio.numerator
    dense = float(rate * up)
    half = int(_SUPPORT * dense)
    seconds = np.arange(-half, half + 1) / dense + _DELAY
    cutoff = _CUTOFF * min(1.0, float(rate) / SAMPLING_RATE)
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (seconds / _SUPPORT) ** 2, 0, None)))
    taps: NDArray[np.float64] = np.sinc(2 * cutoff * seconds) * window
    taps /= taps.sum()
    taps *= up
    taps.flags.writeable = False
    return Filter(up, down, taps)
