"""From a recording to what the network takes, as in its training: filters, normalisation, age and sex."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import SAMPLES, SAMPLING_RATE
from ecgbatch.settings import EcgbatchError

BANDPASS_ORDER = 3
BANDPASS_HZ = (0.5, 40.0)
NOTCH_HZ = 50.0
NOTCH_Q = 30.0
STD_EPS = 1e-8
CLEANED_AT_ONCE = 16  # records, as many as keep a product of matrices busy
OVER_89 = 300.0
"""What PTB-XL 1.0.3 writes for the age of those over 89."""
OLDEST = 120.0

Coefficients = NDArray[np.float64]

# butter(BANDPASS_ORDER, BANDPASS_HZ, "bandpass", fs=SAMPLING_RATE) and iirnotch(NOTCH_HZ, NOTCH_Q, fs=SAMPLING_RATE)
# of scipy.signal, whose import costs a process most of a second and 67 MB. A notch at half the sampling rate is an odd
# thing to design, but it is what training used.
_BANDPASS = (
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
_NOTCH = (
    (0.9502020221489199, 1.9004040442978398, 0.9502020221489199),
    (1.0, 1.9004040442978398, 0.9004040442978398),
)

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
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise EcgbatchError(f"a normalisation needs a mean and a standard deviation above zero, not {self}")

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class MetadataFill:
    """What stands in for a missing age (years) and sex. Default: the means over folds 1 to 8 of PTB-XL."""

    age: float = 59.637
    sex: float = 0.478

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class Metadata(NamedTuple):
    """Age in years and sex (0 male, 1 female) as the network takes them, and what was filled in."""

    values: tuple[float, float]
    flags: tuple[str, ...]


def clean(signals: NDArray[np.float64], normalization: Normalization) -> NDArray[np.float32]:
    """Filters and normalises: (B, 1000, leads) in mV at 100 Hz -> the same shape, as the network takes it.

    Butterworth band-pass, then notch, both forwards and backwards, as one product over several records; the filters
    need float64. Raises ValueError for signals of another length. `models.compiled.clean` does the same.
    """
    cleaned = np.empty(signals.shape, np.float32)
    for start in range(0, len(signals), CLEANED_AT_ONCE):
        some = slice(start, start + CLEANED_AT_ONCE)
        by_time = signals[some].transpose(1, 0, 2)  # (1000, n, leads)
        filtered = filter_matrix() @ by_time.reshape(len(by_time), -1)
        cleaned[some] = filtered.reshape(by_time.shape).transpose(1, 0, 2)
    cleaned -= np.float32(normalization.mean)
    cleaned /= np.float32(normalization.std + STD_EPS)
    return cleaned


def filters() -> list[tuple[Coefficients, Coefficients]]:
    """Numerator and denominator of the band-pass and of the notch, in the order in which they are applied."""
    return [(np.array(numerator), np.array(denominator)) for numerator, denominator in (_BANDPASS, _NOTCH)]


@cache
def filter_matrix() -> NDArray[np.float64]:
    """What the filters do to the 1000 samples of a lead, as a matrix (1000, 1000).

    They are linear, and so is the padding of both ends, with the signal turned around its first and its last sample.
    So the columns are the filtered unit vectors. It is what `filtfilt` of scipy.signal does, without its import.
    """
    columns = np.eye(SAMPLES)
    for numerator, denominator in filters():
        pad = 3 * len(numerator)
        before, after = columns[pad:0:-1], columns[-2 : -pad - 2 : -1]
        padded = np.concatenate([2 * columns[:1] - before, columns, 2 * columns[-1:] - after])
        for _ in range(2):  # forwards, then backwards
            padded = _filtered(numerator, denominator, padded)[::-1]
        columns = padded[pad:-pad]
    return np.ascontiguousarray(columns)


def _filtered(numerator: Coefficients, denominator: Coefficients, signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, n) along the time, as if each signal had always had its first value; in the transposed direct form II."""
    state = np.outer(state_at_rest(numerator, denominator), signals[0])
    filtered = np.empty_like(signals)
    for now, signal in enumerate(signals):
        filtered[now] = numerator[0] * signal + state[0]
        state[:-1], state[-1] = state[1:], 0.0
        state += np.outer(numerator[1:], signal) - np.outer(denominator[1:], filtered[now])
    return filtered


def state_at_rest(numerator: Coefficients, denominator: Coefficients) -> Coefficients:
    """The state, in the transposed direct form II, that a constant input of 1 leaves as it is.

    Its k-th value is what past inputs and outputs will add to the output k steps on. All inputs are 1 and all outputs
    the filter's gain for a constant, so it is the sum of numerator - gain denominator over the coefficients after k.
    """
    gain = numerator.sum() / denominator.sum()
    later = np.cumsum((numerator - gain * denominator)[::-1])[::-1]
    return later[1:]


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


def load_normalization(path: Path) -> Normalization:
    """Reads `normalization_params.npz`: global_mean and global_std, in older files arr_0 and arr_1.

    Raises EcgbatchError for a file that holds neither, or something else than two numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Normalization(*_mean_and_std(path, arrays))
    except FileNotFoundError:
        raise EcgbatchError(f"there is no file {path}") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, AttributeError):
        raise EcgbatchError(f"{path} is no .npz file of two numbers, as normalization_params.npz is") from None


def _mean_and_std(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    for mean, std in (("global_mean", "global_std"), ("arr_0", "arr_1")):
        if mean in arrays and std in arrays:
            return arrays[mean].item(), arrays[std].item()
    raise EcgbatchError(f"{path} holds neither global_mean and global_std nor arr_0 and arr_1")
