"""The door to the compiled reader of the WFDB records of which most archives are full."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records import compiled
from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.finishing import FULL_SECONDS, frames_in, rational_rate
from ecgbatch.records.formats import wfdb_header
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES, SAMPLING_RATE, Flag, RecordError, Recording
from ecgbatch.records.resampling import lowpass


def read(root: Path, record: str, min_seconds: float, follow_links: bool) -> Recording | None:
    """As `records.reading.read`, for a sound WFDB record of the common kind; None for all others."""
    if compiled.reader is None:
        return None
    signal = np.empty((SAMPLES, len(LEADS)))
    inside = "" if follow_links else _real_folder(str(root))
    if (found := compiled.reader.read(f"{root}/{record}.hea", inside, _filter_for, signal)) is None:
        return None
    contents, samples, frames, rate, cropped, checksum_mismatch, flat_lead, clipped = found
    limits = _limits(rate, min_seconds)
    if frames < limits.least:
        return None
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    noticed = {
        Flag.CHECKSUM_MISMATCH: checksum_mismatch,
        Flag.CLIPPED: clipped,
        Flag.CROPPED: cropped,
        Flag.FLAT_LEAD: flat_lead,
        Flag.RESAMPLED: limits.is_resampled,
        Flag.SHORT: frames < limits.full,
    }
    flags = tuple(sorted(flag for flag in noticed if noticed[flag]))
    age, sex = from_comments(wfdb_header.split(contents[0])[1])
    return Recording(signal[:samples], digest.hexdigest(), flags, age, sex)


class _Limits(NamedTuple):
    """At a sampling rate: how many samples a record must have, how many are ten seconds, and whether it is 100 Hz."""

    least: int
    full: int
    is_resampled: bool


@lru_cache(maxsize=16)
def _limits(rate: float, min_seconds: float) -> _Limits:
    exact = rational_rate(rate)
    return _Limits(frames_in(min_seconds, exact), frames_in(FULL_SECONDS, exact), exact != SAMPLING_RATE)


@lru_cache(maxsize=4)
def _filter_for(rate: float) -> tuple[int, int, int, int, NDArray[np.float64]] | None:
    """A sampling rate's numerator and denominator, and its filter; None for a rate that is refused."""
    try:
        exact = rational_rate(rate)
    except RecordError:
        return None
    return (exact.numerator, exact.denominator, *lowpass(exact))


@lru_cache(maxsize=16)
def _real_folder(root: str) -> str:
    return os.path.join(os.path.realpath(root), "")
