"""From a recording to what the network takes, as in its training: filters, normalisation, age and sex."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import SAMPLING_RATE
from ecgbatch.settings import EcgbatchError

BANDPASS_ORDER = 3
BANDPASS_HZ = (0.5, 40.0)
NOTCH_HZ = 50.0
NOTCH_Q = 30.0
STD_EPS = 1e-8
CLEANED_TOGETHER = 16  # records, as many as keep a product of matrices busy
BLOCK = 50  # samples that a filter takes in one product
OVER_89 = 300.0
"""What PTB-XL 1.0.3 writes for the age of those over 89."""
OLDEST = 120.0
LARGEST_MV = 1e6
"""Of a normalisation; far beyond any recording, and within what float32 can hold."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Filter:
    """A recursive filter: its coefficients by rising delay, of which the denominator's first is 1."""

    numerator: tuple[float, ...]
    denominator: tuple[float, ...]

    @property
    def padding(self) -> int:
        """Samples by which a signal goes on at either end before it is filtered, as scipy's `filtfilt` has it."""
        return 3 * len(self.numerator)

    @cached_property
    def at_rest(self) -> Array:
        """The state, in the transposed direct form II, that a constant input of 1 leaves as it is: (order,).

        Its k-th value is what past inputs and outputs will add to the output k steps on. All inputs are 1 and all
        outputs the filter's gain for a constant, so it is the sum of numerator - gain denominator over the
        coefficients after k.
        """
        numerator, denominator = np.array(self.numerator), np.array(self.denominator)
        gain = numerator.sum() / denominator.sum()
        later = np.cumsum((numerator - gain * denominator)[::-1])[::-1]
        return later[1:].copy()

    @cached_property
    def by_block(self) -> Array:
        """BLOCK samples and the state before them -> the samples filtered and the state after them, as a matrix.

        It is square, of BLOCK + order rows: the filter is linear, so the columns are what unit vectors become.
        """
        order = len(self.numerator) - 1
        samples, state = np.hsplit(np.eye(BLOCK + order), [BLOCK])
        samples, state = samples.T, state.T
        filtered = []
        for sample in samples:
            filtered.append(self.numerator[0] * sample + state[0])
            state = np.vstack([state[1:], np.zeros(BLOCK + order)])
            state = state + np.outer(self.numerator[1:], sample) - np.outer(self.denominator[1:], filtered[-1])
        return np.vstack([*filtered, state])


# butter(BANDPASS_ORDER, BANDPASS_HZ, "bandpass", fs=SAMPLING_RATE) and iirnotch(NOTCH_HZ, NOTCH_Q, fs=SAMPLING_RATE)
# of scipy.signal, whose import costs a process most of a second and 67 MB. A notch at half the sampling rate is an odd
# thing to design, but it is what training used.
BANDPASS = Filter(
    (0.5103784499368984, 0.0, -1.5311353498106952, 0.0, 1.5311353498106952, 0.0, -0.5103784499368984),
    (
        1.0,
        -1.1805341192831271,
        -1.1025652254782896,
        0.9232840789432326,
        0.9315984103575622,
        -0.3115879665987758,
        -0.2600665881864121,
    ),
)
NOTCH = Filter(
    (0.9502020221489199, 1.9004040442978398, 0.9502020221489199),
    (1.0, 1.9004040442978398, 0.9004040442978398),
)
FILTERS = (BANDPASS, NOTCH)
"""In the order in which they are applied."""
SHORTEST = BANDPASS.padding + 1
"""Samples that a signal must have to be filtered."""

PREPROCESSING: dict[str, Any] = {
    "sampling_rate": SAMPLING_RATE,
    "bandpass": {"kind": "butterworth", "order": BANDPASS_ORDER, "hz": list(BANDPASS_HZ), "zero_phase": True},
    "notch": {"hz": NOTCH_HZ, "q": NOTCH_Q, "zero_phase": True},
    "std_eps": STD_EPS,
}
"""What `clean` does, as a model's description holds it."""


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation, in mV, of all filtered training samples. Default: the published values."""

    mean: float = -3.82649743530445e-05
    std: float = 0.20817822780040054

    def __post_init__(self) -> None:
        if not (abs(self.mean) <= LARGEST_MV and 1 / LARGEST_MV <= self.std <= LARGEST_MV):
            raise EcgbatchError("a normalisation needs a mean and a standard deviation above zero, both in mV")

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class MetadataFill:
    """What stands in for a missing age (years) and sex. Default: the means over folds 1 to 8 of PTB-XL."""

    age: float = 59.637
    sex: float = 0.478

    def __post_init__(self) -> None:
        if not (0 <= self.age <= OLDEST and 0 <= self.sex <= 1):
            raise EcgbatchError(f"what fills in for a missing age and sex is 0 to {OLDEST:g} years and 0 to 1")

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class Metadata(NamedTuple):
    """Age in years and sex (0 male, 1 female) as the network takes them, and what was filled in."""

    values: tuple[float, float]
    flags: tuple[str, ...]


def clean(signals: Array, normalization: Normalization) -> NDArray[np.float32]:
    """Filters and normalises: (B, T, leads) in mV at 100 Hz -> the same shape, as the network takes it.

    `models.kernels.compiled.clean` does the same. Raises ValueError for T below SHORTEST.
    """
    return normalized(filtered(signals), normalization)


def normalized(filtered: Array, normalization: Normalization) -> NDArray[np.float32]:
    """What `filtered` gave, less the mean, by the deviation."""
    scaled = filtered.astype(np.float32)
    scaled -= np.float32(normalization.mean)
    scaled /= np.float32(normalization.std + STD_EPS)
    return scaled


def filtered(signals: Array) -> Array:
    """The band-pass, then the notch, each forwards and backwards: (B, T, leads) -> the same, float64.

    It is what `filtfilt` of scipy.signal does, without its import. Raises ValueError for T below SHORTEST.
    """
    batch, samples, leads = signals.shape
    if samples < SHORTEST:
        raise ValueError(f"a signal must have at least {SHORTEST} samples to be filtered, not {samples}")
    result = np.empty(signals.shape)
    for start in range(0, batch, CLEANED_TOGETHER):
        some = slice(start, start + CLEANED_TOGETHER)
        by_time = signals[some].transpose(1, 0, 2).reshape(samples, -1)
        for each in FILTERS:
            by_time = _both_ways(each, by_time)
        result[some] = by_time.reshape(samples, -1, leads).transpose(1, 0, 2)
    return result


def _both_ways(which: Filter, signals: Array) -> Array:
    """(T, n) forwards and backwards, the ends padded with the signal turned around its first and its last sample."""
    pad = which.padding
    before, after = signals[pad:0:-1], signals[-2 : -pad - 2 : -1]
    padded = np.concatenate([2 * signals[:1] - before, signals, 2 * signals[-1:] - after])
    for _ in range(2):
        padded = _forwards(which, padded)[::-1]
    return padded[pad:-pad]


def _forwards(which: Filter, signals: Array) -> Array:
    """(T, n) along the time, as if each signal had always had its first value."""
    result = np.empty_like(signals)
    block = np.zeros((len(which.by_block), signals.shape[1]))
    block[BLOCK:] = np.outer(which.at_rest, signals[0])
    for start in range(0, len(signals), BLOCK):
        part = signals[start : start + BLOCK]
        block[: len(part)] = part
        after = which.by_block @ block
        result[start : start + BLOCK] = after[: len(part)]
        block[BLOCK:] = after[BLOCK:]
    return result


def metadata(age: float | None, sex: float | None, fill: MetadataFill) -> Metadata:
    """A record's age and sex as the network takes them; what is missing or cannot be is filled in and flagged."""
    years, age_flags = _age(age, fill)
    if sex in (0, 1):
        return Metadata((years, float(sex)), age_flags)
    return Metadata((years, fill.sex), (*age_flags, "sex_missing"))


def _age(age: float | None, fill: MetadataFill) -> tuple[float, tuple[str, ...]]:
    if age is None or math.isnan(age):
        return fill.age, ("age_missing",)
    if age == OVER_89:
        return 90.0, ("age_over_89",)
    if not 0 <= age <= OLDEST:
        return fill.age, ("age_implausible",)
    return float(age), ()
