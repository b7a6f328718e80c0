"""From what a file holds to what the model takes: the steps that all formats share."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records import quality
from ecgbatch.records.leads import as_twelve, find_leads
from ecgbatch.records.recording import (
    GAP_SHARE,
    HIGHEST_RATE,
    LOWEST_RATE,
    SAMPLES,
    SAMPLING_RATE,
    SECONDS,
    Flag,
    Reason,
    RecordError,
    Recording,
    Window,
    flag_about,
)
from ecgbatch.records.resampling import resample

FULL_SECONDS = Fraction(99, 10)
"""From here on a record counts as ten seconds: a Schiller device, for one, gives 9.996."""

LONGEST_DEVICE = 100

ZERO_SECONDS = 0.1
"""From here on zeros in all leads at a record's end are no signal but filling."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a format's file holds, before it becomes what the model takes.

    millivolts: (n, leads) float64, from the record's start; NaN where a sample is missing.
    rate: samples per second; None if the file does not tell.
    leads: the signals' names as the file has them, one for each column.
    length: samples of the whole record where not all were decoded.
    flags: what the format itself noticed, as a checksum that does not agree.
    age, sex, device: as the file tells them (years; 0 male, 1 female).
    """

    millivolts: NDArray[np.float64]
    rate: float | None
    leads: tuple[str, ...]
    format: str
    length: int | None = None
    flags: frozenset[Flag] = field(default_factory=frozenset)
    age: float | None = None
    sex: int | None = None
    device: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the record is longer than what was decoded."""
        return self.length is not None and self.length > len(self.millivolts)

    @property
    def begins_with_nothing(self) -> bool:
        """Whether all signals are zero or missing at first."""
        return not _holds_something(self.millivolts[:1]).any()


def rational_rate(rate: float | None) -> Fraction:
    """The sampling rate in Hz as a fraction of small terms.

    Raises RecordError: `no_sampling_rate`, `unsupported_rate`.
    """
    if not rate:
        raise RecordError(Reason.NO_SAMPLING_RATE, "the header gives no sampling rate")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise RecordError(Reason.UNSUPPORTED_RATE, f"{rate:g} Hz is not within {LOWEST_RATE}-{HIGHEST_RATE} Hz")
    return Fraction(rate).limit_denominator(10)


def frames_in(seconds: float | Fraction, rate: Fraction) -> int:
    """How many samples at `rate` Hz make this many seconds; never more than those that count as ten seconds."""
    return math.ceil(min(Fraction(seconds), FULL_SECONDS) * rate)


def finish(decoded: Decoded, sha256: str, min_seconds: float, lead_sets: Collection[str] | None = None) -> Recording:
    """Chooses and derives leads, cuts to ten seconds at most, fills small gaps, resamples, and flags what it did.

    Where all leads are zero or missing for a while at an end, nothing was recorded there: such ends are cut off first.
    What is left is kept at its own length. `lead_sets` as `find_leads` takes them.

    Raises RecordError: `missing_lead`, `no_signal`, `wrong_duration`, `not_finite`, `no_sampling_rate`,
    `unsupported_rate`.
    """
    rate = rational_rate(decoded.rate)
    leads = find_leads(decoded.leads, lead_sets)
    signal = _columns(decoded.millivolts, list(leads.columns.values()))
    length = len(signal) if decoded.length is None else decoded.length
    start, stop = _recorded(signal, math.ceil(SECONDS * rate), math.ceil(ZERO_SECONDS * rate))
    signal = signal[start:stop]
    if len(signal) < frames_in(min_seconds, rate):
        detail = f"{len(signal) / float(rate):.2f} seconds of signal; at least {min_seconds:g} are needed"
        raise RecordError(Reason.WRONG_DURATION, detail)
    extremes = quality.extremes(signal)
    has_gaps = not np.isfinite(extremes).all()
    if has_gaps:
        signal = _without_gaps(signal, list(leads.columns))
        extremes = quality.extremes(signal)
    constant = extremes.highest == extremes.lowest
    if constant.all():
        raise RecordError(Reason.NO_SIGNAL, "every lead is constant")
    noticed = {
        Flag.LEADS_DERIVED: leads.are_derived,
        Flag.GAP_FILLED: has_gaps,
        Flag.FLAT_LEAD: bool(constant.any()),
        Flag.CLIPPED: quality.is_clipped(signal, extremes, rate),
        Flag.SHORT: len(signal) < frames_in(FULL_SECONDS, rate),
        Flag.CROPPED: length - start > math.ceil(SECONDS * rate),
        Flag.RESAMPLED: rate != SAMPLING_RATE,
    }
    if leads.are_derived or leads.lead_set:
        signal = as_twelve(signal, list(leads.columns), leads.lead_set)
    if noticed[Flag.RESAMPLED]:
        signal = resample(signal, rate)[:SAMPLES]
    flags: set[str] = {*decoded.flags, *(flag for flag, seen in noticed.items() if seen)}
    if leads.lead_set:
        flags.add(flag_about(Flag.LEADS_MISSING, leads.lead_set))
    signal = np.ascontiguousarray(signal)
    about = decoded.age, decoded.sex, decoded.format, _shown(decoded.device), leads.lead_set
    return Recording(signal, sha256, tuple(sorted(flags)), *about)


def _shown(text: str | None) -> str | None:
    """What can be shown and stored anywhere of a text, which may be anything: bytes of zero, half a letter."""
    return "".join(c for c in text if c.isprintable())[:LONGEST_DEVICE].strip() or None if text else None


def finish_windows(
    decoded: Decoded, sha256: str, min_seconds: float, lead_sets: Collection[str] | None = None
) -> list[Window]:
    """All of a record in pieces of ten seconds, each made as `finish` makes the first; the last may be shorter.

    Pieces that cannot be scored are left out, which is flagged `cropped`. Raises what `finish` does, if none can be.
    """
    rate = rational_rate(decoded.rate)
    most = math.ceil(SECONDS * rate)
    signal = _columns(decoded.millivolts, list(find_leads(decoded.leads, lead_sets).columns.values()))
    start, stop = _recorded(signal, len(signal), math.ceil(ZERO_SECONDS * rate))
    is_one = stop - start <= most and not decoded.is_cut
    windows: list[Window] = []
    refused: RecordError | None = None
    for at in range(start, stop, most):
        piece = replace(decoded, millivolts=decoded.millivolts[at : min(at + most, stop)], length=None)
        try:
            windows.append(Window(None if is_one else at / float(rate), finish(piece, sha256, min_seconds, lead_sets)))
        except RecordError as error:
            refused = refused or error
    if refused and not windows:
        raise refused
    return [_cropped(window) for window in windows] if refused or decoded.is_cut else windows


def _cropped(window: Window) -> Window:
    flags = tuple(sorted({*window.recording.flags, Flag.CROPPED}))
    return replace(window, recording=replace(window.recording, flags=flags))


def _recorded(signal: NDArray[np.float64], most: int, filling: int) -> tuple[int, int]:
    """Where the first `most` samples begin and end, without `filling` or more at an end that hold nothing.

    Raises RecordError (`no_signal`) if none holds anything.
    """
    if not len(signal) or (_holds_something(signal[:1])[0] and _holds_something(signal[:most][-1:])[0]):
        return 0, min(most, len(signal))
    something = np.flatnonzero(_holds_something(signal))
    if not len(something):
        raise RecordError(Reason.NO_SIGNAL, "every sample is zero or missing")
    start = int(something[0]) if something[0] >= filling else 0
    stop = min(start + most, len(signal))
    end = int(something[something < stop][-1]) + 1
    return start, end if stop - end >= filling else stop


def _columns(signal: NDArray[np.float64], columns: list[int]) -> NDArray[np.float64]:
    """These columns; the signal itself where they are all of it, in order."""
    return signal if columns == list(range(signal.shape[1])) else signal[:, columns]


def _holds_something(signal: NDArray[np.float64]) -> NDArray[np.bool_]:
    something: NDArray[np.bool_] = ((signal != 0) & ~np.isnan(signal)).any(axis=1)
    return something


def _without_gaps(signal: NDArray[np.float64], leads: list[str]) -> NDArray[np.float64]:
    """The signal with its missing samples on the line between their neighbours."""
    missing = ~np.isfinite(signal)
    shares = missing.mean(axis=0)
    worst = int(shares.argmax())
    if shares[worst] > GAP_SHARE or np.isinf(signal).any():
        raise RecordError(Reason.NOT_FINITE, f"lead {leads[worst]}: {shares[worst]:.1%} of the samples are missing")
    signal = signal.copy()
    times = np.arange(len(signal))
    for column in np.flatnonzero(missing.any(axis=0)):
        gap = missing[:, column]
        signal[gap, column] = np.interp(times[gap], times[~gap], signal[~gap, column])
    return signal
