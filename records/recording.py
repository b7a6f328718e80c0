"""What a recording is, as the model takes it, and why a record may have none."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 100
SAMPLES = 1000
SECONDS = SAMPLES // SAMPLING_RATE
LOWEST_RATE, HIGHEST_RATE = 50, 10_000


class Reason(StrEnum):
    """Why a record has failed. `meaning` says it in one line."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Reason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    MISSING_HEADER = "missing_header", "there is no header file (.hea) at the record's path"
    UNREADABLE_HEADER = "unreadable_header", "the header cannot be opened or does not follow the WFDB format"
    MISSING_SIGNAL_FILE = "missing_signal_file", "a signal file that the header names is not there"
    UNREADABLE_SIGNAL = "unreadable_signal", "a signal file cannot be opened or decoded"
    TRUNCATED = "truncated", "a signal file holds fewer samples than the header claims"
    TOO_LARGE = "too_large", "a header or signal file is larger than any recording should be"
    NOT_A_FILE = "not_a_file", "the header or a signal file is a folder, a pipe or a device"
    UNSAFE_PATH = "unsafe_path", "the path is absolute, a URL, or leads out of the archive"
    MISSING_LEAD = "missing_lead", "one or more of the twelve leads are not in the record"
    UNSUPPORTED_UNITS = "unsupported_units", "a lead is in units other than V, mV or uV"
    NO_SAMPLING_RATE = "no_sampling_rate", "the header gives no sampling rate"
    UNSUPPORTED_RATE = "unsupported_rate", f"the sampling rate is not within {LOWEST_RATE}-{HIGHEST_RATE} Hz"
    WRONG_DURATION = "wrong_duration", f"the record is shorter than {SECONDS} seconds"
    NOT_FINITE = "not_finite", f"samples within the first {SECONDS} seconds are missing or invalid"
    OUT_OF_MEMORY = "out_of_memory", "the record needs more memory than the worker may take"
    SCORING_ERROR = "scoring_error", "cleaning or scoring the record raised an error"
    CRASHED = "crashed", "the record ended its process each time it was tried"
    TIMED_OUT = "timed_out", "the record took longer than the time limit"


class RecordError(Exception):
    """A record cannot be scored: why, one printable line of detail, and the stage where it failed."""

    def __init__(self, reason: Reason, detail: str, stage: str = "read", attempts: int = 1) -> None:
        detail = "".join(c if c.isprintable() else "?" for c in " ".join(detail.split()))[:300]
        super().__init__(reason, detail, stage, attempts)
        self.reason, self.detail, self.stage, self.attempts = reason, detail, stage, attempts

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Recording:
    """A record as the model wants it.

    signal: (1000, 12) float64, millivolts at 100 Hz, leads in the order of `LEADS`.
    sha256: hexadecimal digest of `cat RECORD.hea SIGNAL_FILE...`, signal files in header order; for a record
        of several segments of `cat RECORD.hea SEGMENT.hea SIGNAL_FILE...`, segments as far as they were read.
    flags: sorted; `resampled` (rate other than 100 Hz), `cropped` (longer than ten seconds), `flat_lead`
        (a lead is constant), `checksum_mismatch` (a lead's samples do not add up to the header's checksum;
        checked where the whole record was decoded).
    """

    signal: NDArray[np.float64]
    sha256: str
    flags: tuple[str, ...]
