"""Makes a small archive of synthetic twelve-lead recordings, for a first run without data.

Each heartbeat is a sum of Gaussians (the idea is McSharry et al., IEEE Trans Biomed Eng 50, 2003) in leads I, II and
V1-V6; the other limb leads follow by Einthoven and Goldberger. Believable in shape, rhythm, noise and rate, and of
no clinical meaning.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.settings import EcgbatchError

RATES = (100, 250, 500, 1000)
RHYTHMS = ("sinus rhythm", "atrial fibrillation", "ventricular extrasystoles", "second-degree AV block")

_SECONDS = 10
_GAIN = 1000
_WIDTHS = 9
"""How far from its peak, in widths, a wave is heard: beyond, it has no more than 1e-17 of its height."""
_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

Array = NDArray[np.float64]


class _Wave(NamedTuple):
    """A Gaussian: seconds after the R peak (`after` grows with the square root of the beat's length), width, height."""

    after: float
    width: float
    millivolts: tuple[float, ...]


# Heights in I, II, V1, V2, V3, V4, V5, V6.
_P = _Wave(-0.16, 0.022, (0.07, 0.12, 0.05, 0.06, 0.07, 0.07, 0.07, 0.07))
_QRS = (
    _Wave(-0.026, 0.008, (-0.05, -0.08, 0.0, 0.0, -0.02, -0.06, -0.1, -0.1)),
    _Wave(0.0, 0.011, (0.55, 0.95, 0.2, 0.45, 0.75, 1.3, 1.4, 1.1)),
    _Wave(0.028, 0.010, (-0.1, -0.12, -0.9, -1.2, -0.8, -0.45, -0.2, -0.08)),
)
_T = _Wave(0.3, 0.05, (0.18, 0.28, -0.06, 0.3, 0.38, 0.38, 0.32, 0.24))
_VENTRICULAR_QRS = (
    _Wave(0.0, 0.035, (0.5, 1.2, -0.9, -1.3, -0.8, 0.7, 1.2, 1.1)),
    _Wave(0.08, 0.03, (-0.4, -0.5, 0.5, 0.6, 0.3, -0.4, -0.5, -0.4)),
)
_VENTRICULAR_T = _Wave(0.36, 0.06, (-0.2, -0.45, 0.35, 0.5, 0.3, -0.25, -0.45, -0.4))


class _Beats(NamedTuple):
    """Times of the R peaks, in seconds: those that a P wave announces, conducted ones, ventricular ones."""

    announced: Array
    conducted: Array
    ventricular: Array


def write_archive(root: Path, records: int = 64, seed: int = 0) -> None:
    """Writes `records` WFDB records of ten seconds (format 16) and a `RECORDS` file into the folder `root`.

    Rates and rhythms take turns; age, sex, rhythm and heart rate are in the headers' comments. The same seed gives
    the same files. Raises EcgbatchError if the folder cannot be written.
    """
    names = [f"synthetic_{number:04d}" for number in range(1, records + 1)]
    try:
        root.mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(names):
            _write_record(root, name, index, np.random.default_rng((seed, index)))
        (root / "RECORDS").write_text("".join(f"{name}\n" for name in names))
    except OSError as error:
        raise EcgbatchError(f"cannot write the synthetic archive to {root}: {error.strerror}") from error


def _write_record(root: Path, name: str, index: int, rng: np.random.Generator) -> None:
    rate = RATES[index % len(RATES)]
    rhythm = RHYTHMS[index // len(RATES) % len(RHYTHMS)]
    heart_rate = int(rng.integers(50, 111))
    signal = _record(rate, rhythm, heart_rate, rng)
    digital = np.clip(np.rint(signal * _GAIN), -(2**15) + 1, 2**15 - 1).astype("<i2")
    sums = digital.sum(axis=0, dtype=np.int64) % 2**16
    comments = [
        f"# Age: {rng.integers(18, 90)}",
        f"# Sex: {rng.choice(['Male', 'Female'])}",
        f"# Rhythm: {rhythm}",
        f"# Heart rate: {heart_rate}",
        "# Synthetic: no patient, no clinical meaning",
    ]
    lines = [f"{name} {len(_LEADS)} {rate} {len(digital)}"]
    for lead, first, total in zip(_LEADS, digital[0], sums, strict=True):
        lines.append(f"{name}.dat 16 {_GAIN}.0(0)/mV 16 0 {first} {total} 0 {lead}")
    (root / f"{name}.dat").write_bytes(digital.tobytes())
    (root / f"{name}.hea").write_text("\n".join(lines + comments) + "\n")


def _record(rate: int, rhythm: str, heart_rate: int, rng: np.random.Generator) -> Array:
    """(samples, 12) millivolts."""
    time = np.arange(_SECONDS * rate) / rate
    length = 60 / heart_rate
    beats = _beats(rhythm, length, rng)
    slowing = float(np.sqrt(length))
    signal = _trace(time, beats.announced, _P, rng)
    for wave in _QRS:
        signal += _trace(time, beats.conducted, wave, rng)
    signal += _trace(time, beats.conducted + _T.after * (slowing - 1), _T, rng)
    for wave in (*_VENTRICULAR_QRS, _VENTRICULAR_T):
        signal += _trace(time, beats.ventricular, wave, rng)
    if rhythm == "atrial fibrillation":
        signal += _fibrillation(time, rng)
    return _twelve_leads(signal * rng.uniform(0.7, 1.3) + _noise(time, rng))


def _beats(rhythm: str, length: float, rng: np.random.Generator) -> _Beats:
    """Beats of `length` seconds on average, from before the recording's start to past its end."""
    count = int((_SECONDS + 4) / length) + 8
    none = np.empty(0)
    if rhythm == "atrial fibrillation":
        lengths = length * np.clip(rng.normal(1, 0.22, count), 0.5, 1.7)
        return _Beats(none, np.cumsum(lengths) - 2, none)
    breath = 0.03 * np.sin(2 * np.pi * 0.25 * length * np.arange(count) + rng.uniform(0, 2 * np.pi))
    regular = np.cumsum(length * (1 + breath + rng.normal(0, 0.01, count))) - 2 - rng.uniform(0, length)
    every = np.arange(count) % int(rng.integers(4, 6)) == 2
    if rhythm == "ventricular extrasystoles":
        return _Beats(regular[~every], regular[~every], regular[every] - 0.35 * length)
    if rhythm == "second-degree AV block":
        return _Beats(regular, regular[~every], none)
    return _Beats(regular, regular, none)


def _trace(time: Array, peaks: Array, wave: _Wave, rng: np.random.Generator) -> Array:
    """One wave of all beats in the eight independent leads, (samples, 8), with a person's own heights."""
    centres, rate = peaks + wave.after, len(time) / _SECONDS
    near = np.arange(-int(_WIDTHS * wave.width * rate) - 1, int(_WIDTHS * wave.width * rate) + 2)
    at = np.rint(centres * rate).astype(int)[:, None] + near
    distance = (at / rate - centres[:, None]) / wave.width
    inside = (at >= 0) & (at < len(time))
    shape = np.bincount(at[inside], np.exp(-0.5 * distance[inside] ** 2), len(time))
    heights: Array = np.array(wave.millivolts) * rng.normal(1, 0.15, len(wave.millivolts))
    return np.outer(shape, heights)


def _fibrillation(time: Array, rng: np.random.Generator) -> Array:
    """Fibrillatory waves of about 6 a second, clearest in V1."""
    phase = 2 * np.pi * (rng.uniform(5, 7) * time + 0.3 * np.sin(2 * np.pi * 0.7 * time))
    return np.outer(np.sin(phase) + 0.4 * np.sin(2 * phase), [0.01, 0.03, 0.06, 0.03, 0.01, 0, 0, 0])


def _noise(time: Array, rng: np.random.Generator) -> Array:
    """Baseline wander, mains hum and muscle noise in the eight independent leads."""
    leads = 8
    wander = np.sin(2 * np.pi * (rng.uniform(0.15, 0.4) * time[:, None] + rng.uniform(0, 1, leads)))
    hum = np.sin(2 * np.pi * (50 * time[:, None] + rng.uniform(0, 1, leads)))
    muscle = rng.normal(0, 1, (len(time), leads))
    return wander * rng.uniform(0.01, 0.1, leads) + hum * rng.uniform(0, 0.01) + muscle * rng.uniform(0.004, 0.015)


def _twelve_leads(independent: Array) -> Array:
    """(samples, 8) I, II, V1-V6 to all twelve, by Einthoven (III = II - I) and Goldberger."""
    first, second = independent[:, :1], independent[:, 1:2]
    limbs = (first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2)
    return np.concatenate([*limbs, independent[:, 2:]], axis=1)
