"""What a record and a recording are, why a record may have none, and what may have been done to it on the way."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 100
SAMPLES = 1000
SECONDS = SAMPLES // SAMPLING_RATE
MIN_SECONDS = 5.0
LOWEST_RATE, HIGHEST_RATE = 50, 10_000
GAP_SHARE = 0.01
"""The share of a lead's samples that may be missing and are then interpolated."""


class _Explained(StrEnum):
    """A word and, as `meaning`, what it says in one line."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "_Explained":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Reason(_Explained):
    """Why a record has failed."""

    MISSING_HEADER = "missing_header", "there is no file at the record's path, and no header (.hea)"
    UNREADABLE_HEADER = "unreadable_header", "the header cannot be opened or does not follow its format"
    MISSING_SIGNAL_FILE = "missing_signal_file", "a signal file that the header names is not there"
    UNREADABLE_SIGNAL = "unreadable_signal", "a signal file cannot be opened or decoded"
    TRUNCATED = "truncated", "a signal file holds fewer samples than the header claims"
    TOO_LARGE = "too_large", "a header or signal file is larger than any recording should be"
    NOT_A_FILE = "not_a_file", "the header or a signal file is a folder, a pipe, a device or part of a database in use"
    UNSAFE_PATH = "unsafe_path", "the path is absolute, a URL, or leads out of the archive"
    MISSING_LEAD = "missing_lead", "leads are not in the record and cannot be derived from those that are"
    UNSUPPORTED_UNITS = "unsupported_units", "a lead is in units other than V, mV or uV"
    NO_SAMPLING_RATE = "no_sampling_rate", "the header gives no sampling rate"
    UNSUPPORTED_RATE = "unsupported_rate", f"the sampling rate is not within {LOWEST_RATE}-{HIGHEST_RATE} Hz"
    WRONG_DURATION = "wrong_duration", "the record is shorter than the model should score"
    NOT_FINITE = "not_finite", f"more than {GAP_SHARE:.0%} of a lead's samples are missing or invalid"
    NO_SIGNAL = "no_signal", "every lead is constant, so nothing was recorded"
    UNKNOWN_FORMAT = "unknown_format", "the file is of no format that is known here"
    MISSING_LIBRARY = "missing_library", "reading this format needs a library that is not installed"
    MISSING_LAYOUT = "missing_layout", "archive.toml does not tell the rate, units or leads that the file leaves open"
    MISSING_RECORD = "missing_record", "the file has no record of this name, or needs a name for each of many"
    REFUSED = "refused", "it has a flag that ECGBATCH_REFUSE names"
    OUT_OF_MEMORY = "out_of_memory", "the record needs more memory than the worker may take"
    SCORING_ERROR = "scoring_error", "cleaning or scoring the record raised an error"
    CRASHED = "crashed", "the record ended its process each time it was tried"
    TIMED_OUT = "timed_out", "the record took longer than the time limit"


class Flag(_Explained):
    """What was mended or filled in, or looks implausible, in a record that was scored all the same."""

    AGE_MISSING = "age_missing", "the training's mean age was filled in"
    SEX_MISSING = "sex_missing", "the training's mean sex was filled in"
    AGE_OVER_89 = "age_over_89", "the age was 300, PTB-XL's word for over 89: 90 was taken"
    AGE_IMPLAUSIBLE = "age_implausible", "the age was not within 0-120: the training's mean was filled in"
    RESAMPLED = "resampled", f"the sampling rate was not {SAMPLING_RATE} Hz"
    CROPPED = "cropped", f"only part was scored: the first {SECONDS} seconds, or the windows that could be"
    SHORT = "short", "shorter than 9.9 seconds, after zeros at its ends were cut off: scored at its own length"
    LEADS_DERIVED = "leads_derived", "limb leads that were not there were computed from two that were"
    UNCERTAIN = "uncertain", "of the superclasses that it names, neither presence nor absence is ruled out"
    LEADS_MISSING = "leads_missing", "scored by the leads that it names alone, all others silent"
    GAP_FILLED = "gap_filled", f"missing samples, at most {GAP_SHARE:.0%} of a lead, were interpolated"
    FLAT_LEAD = "flat_lead", "a lead is constant"
    CLIPPED = "clipped", "a lead stays at its highest or lowest value, as a saturated amplifier does"
    CHECKSUM_MISMATCH = "checksum_mismatch", "a lead's samples do not add up to the header's checksum"
    AMPLITUDE_IMPLAUSIBLE = "amplitude_implausible", "waves far too large or too small: the gain or the units are wrong"
    LIMB_LEADS_CONTRADICT = "limb_leads_contradict", "I + III is not II: leads have wrong gains, or are mixed up"


def flag_about(flag: Flag, *names: str) -> str:
    """A flag that says of what, as it stands in a row: `uncertain:mi+hyp`."""
    return f"{flag}:{'+'.join(names)}"


def flag_of(text: str) -> str:
    """The flag of a row without what some say more: `leads_missing` of `leads_missing:limb`."""
    return text.partition(":")[0]


class RecordError(Exception):
    """A record cannot be scored: why, one printable line of detail, and the stage where it failed."""

    def __init__(self, reason: Reason, detail: str, stage: str = "read", attempts: int = 1) -> None:
        detail = "".join(c if c.isprintable() else "?" for c in " ".join(detail.split()))[:300]
        super().__init__(reason, detail, stage, attempts)
        self.reason, self.detail, self.stage, self.attempts = reason, detail, stage, attempts

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an archive, from its finding to the message.

    path: relative to the archive's folder, with `/`; `FILE::ID` for one of many in a file.
    age, sex: in years; 0 male, 1 female; None if unknown.
    id: its row in `recordings`, once it has one.
    """

    path: str
    age: float | None = None
    sex: int | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A record as the model wants it.

    signal: (T, 12) float64, millivolts at 100 Hz, leads in the order of `LEADS`; T is 1000 for ten seconds or more, and
        less for a record that is shorter: nothing is filled up.
    sha256: hexadecimal digest of the record's files one after the other; for WFDB `cat RECORD.hea SIGNAL_FILE...`,
        signal files in header order; for a record of several segments `cat RECORD.hea SEGMENT.hea SIGNAL_FILE...`,
        segments as far as they were read.
    flags: sorted; each a `Flag`, `leads_missing` followed by a colon and the lead set.
    age, sex, device: as the file itself tells them; None if it does not.
    format: `wfdb`, or what other format the file had.
    lead_set: of `LEAD_SETS`, all whose leads the signal has, all others being zero; None for twelve leads.
    """

    signal: NDArray[np.float64]
    sha256: str
    flags: tuple[str, ...]
    age: float | None = None
    sex: int | None = None
    format: str = "wfdb"
    device: str | None = None
    lead_set: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """What is scored at once: a record, or a piece of a longer one.

    start: where a piece begins, in seconds from the record's start; None of what is no piece: a record of ten seconds
        at most, or the first ten of one that is not read in windows.
    """

    start: float | None
    recording: Recording
