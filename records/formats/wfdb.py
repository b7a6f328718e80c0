"""Decodes a WFDB record: a header (.hea) and its signal files, MATLAB v4 files among them, or several segments.

What a header claims is checked against the files before anything is allocated.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.files import LARGEST_RECORD, Files
from ecgbatch.records.finishing import Decoded, rational_rate
from ecgbatch.records.formats import wfdb_header as headers
from ecgbatch.records.formats import wfdb_signals as signals
from ecgbatch.records.formats.wfdb_header import Header, Segment, Signal
from ecgbatch.records.formats.wfdb_signals import SignalFile
from ecgbatch.records.leads import find_leads
from ecgbatch.records.recording import SECONDS, Flag, Reason, RecordError

KEPT_BYTES = 16 << 20
"""Of each signal file at most."""

MOST_SAMPLES_SUMMED = 2_000_000
"""Of a file with more, checksums are not checked."""

MOST_SEGMENTS_READ = 200
_PER_MILLIVOLT = {"mv": 1.0, "v": 1e-3, "uv": 1e3, "\N{MICRO SIGN}v": 1e3, "\N{GREEK SMALL LETTER MU}v": 1e3}


LeadSets = Collection[str] | None
"""As `find_leads` takes them."""


class _Samples(NamedTuple):
    """The first samples of a record or segment: (samples, leads) millivolts, NaN where one is marked as missing."""

    millivolts: NDArray[np.float64]
    leads: tuple[str, ...]
    length: int
    checksums_agree: bool


def decode(files: Files, record: str, seconds: float, lead_sets: LeadSets = None) -> Decoded:
    """The first `seconds` seconds of the record at this path (without suffix), or all if it is shorter."""
    header = _load_header(files, record)
    rate = rational_rate(header.rate)
    wanted = math.ceil(seconds * rate)
    if header.segments:
        samples = _read_segments(files, record, header, wanted, lead_sets)
    else:
        samples = _read_signals(files, record, header, wanted, math.ceil(SECONDS * rate), lead_sets)
    flags = frozenset[Flag]() if samples.checksums_agree else frozenset({Flag.CHECKSUM_MISMATCH})
    age, sex = from_comments(header.comments)
    return Decoded(samples.millivolts, header.rate, samples.leads, "wfdb", samples.length, flags, age, sex)


def _load_header(files: Files, record: str) -> Header:
    return headers.parse(files.load(f"{record}.hea", headers.LARGEST_HEADER).data)


def _beside(record: str, name: str) -> str:
    folder, slash, _ = record.rpartition("/")
    return f"{folder}{slash}{name}"


def _read_segments(files: Files, record: str, header: Header, wanted: int, lead_sets: LeadSets) -> _Samples:
    parts: list[_Samples] = []
    have = 0
    for segment in header.segments:
        if segment.length == 0 or have == wanted:
            continue
        if len(parts) == MOST_SEGMENTS_READ:
            raise RecordError(Reason.TOO_LARGE, f"its first seconds are in more than {MOST_SEGMENTS_READ} segments")
        part = _read_segment(files, record, header, segment, min(wanted - have, segment.length), lead_sets)
        parts.append(part)
        have += len(part.millivolts)
    leads = next((part.leads for part in parts if part.leads), ())
    if any(part.leads not in ((), leads) for part in parts):
        raise RecordError(Reason.MISSING_LEAD, "the record's segments have different leads")
    missing = np.full((1, len(leads)), np.nan)
    millivolts = [part.millivolts if part.leads else missing.repeat(len(part.millivolts), axis=0) for part in parts]
    total = sum(segment.length for segment in header.segments)
    joined = np.concatenate([*millivolts, missing[:0]])
    return _Samples(joined, leads, total, all(part.checksums_agree for part in parts))


def _read_segment(
    files: Files, record: str, header: Header, segment: Segment, wanted: int, lead_sets: LeadSets
) -> _Samples:
    """A segment's first samples; those of a gap have no leads."""
    if segment.name == "~":
        return _Samples(np.empty((wanted, 0)), (), segment.length, True)
    path = _beside(record, segment.name)
    own = _load_header(files, path)
    if own.segments or own.rate not in (None, header.rate) or own.length not in (None, segment.length):
        raise RecordError(Reason.UNREADABLE_HEADER, f"the header of segment {segment.name} does not fit its record")
    return _read_signals(files, path, own, wanted, wanted, lead_sets)


def _read_signals(files: Files, record: str, header: Header, wanted: int, least: int, lead_sets: LeadSets) -> _Samples:
    """The first `wanted` samples of the leads, or all if there are fewer, of a record of one segment.

    Of large files it may be less than `wanted`, but no less than `least`.
    """
    leads = find_leads([signal.lead for signal in header.signals], lead_sets).columns
    names = {index: lead for lead, index in leads.items()}
    by_file: dict[str, list[int]] = {}
    for index, signal in enumerate(header.signals):
        by_file.setdefault(signal.file, []).append(index)
    columns: dict[str, NDArray[np.float64]] = {}
    lengths, agree = [], True
    for name, indices in by_file.items():
        file = _load_file(files, _beside(record, name), [header.signals[index] for index in indices])
        lengths.append(_length(file, header))
        own = {at: names[index] for at, index in enumerate(indices) if index in names}
        if own:
            found, sound = _decode(file, own, lengths[-1], min(wanted, lengths[-1]), least)
            columns.update(found)
            agree = agree and sound
    count = min(map(len, columns.values()))
    millivolts = np.stack([columns[lead][:count] for lead in leads], axis=1)
    return _Samples(millivolts, tuple(leads), min(lengths), agree)


def _load_file(files: Files, path: str, own: list[Signal]) -> SignalFile:
    missing, unreadable = Reason.MISSING_SIGNAL_FILE, Reason.UNREADABLE_SIGNAL
    content = files.load(path, LARGEST_RECORD, keep=KEPT_BYTES, missing=missing, unreadable=unreadable)
    file = SignalFile(*content, own)
    signals.check(file)
    return file


def _length(file: SignalFile, header: Header) -> int:
    """Samples per signal: what the header says, if the file holds as many, or what the file holds."""
    holds = file.frames()
    if header.length is not None and holds < header.length:
        raise RecordError(Reason.TRUNCATED, f"{file.name} holds {holds} of {header.length} samples per signal")
    return header.length or holds


def _decode(
    file: SignalFile, own: dict[int, str], length: int, count: int, least: int
) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """(count,) mV of the leads that the file has at these places, and whether their checksums agree.

    Of a large file there may be less, but no less than `least`.
    Checksums can be told where the whole of each signal is at hand, one sample per frame.
    """
    skew = max(signal.skew for signal in file.signals)
    count = min(count, max(least, file.most_frames - skew))
    needed = min(length, count + skew)
    whole = length * file.frame <= MOST_SAMPLES_SUMMED and not file.is_cut
    frames = signals.unpack(file, length if whole else needed)
    if len(frames) < needed:
        raise RecordError(Reason.TOO_LARGE, f"its first seconds take more than {KEPT_BYTES} bytes")
    columns, agree = {}, True
    for at, lead in own.items():
        signal = file.signals[at]
        samples, missing = signals.select(file, frames, at, max(count, len(frames)))
        columns[lead] = _to_millivolts(samples[:count], missing[:count], signal, lead)
        if signal.checksum is not None and len(frames) == length and signal.per_frame == 1 and signal.skew == 0:
            agree = agree and (signal.checksum - int(samples.sum())) & 0xFFFF == 0
    return columns, agree


def _to_millivolts(
    samples: NDArray[np.int64], missing: NDArray[np.bool_], signal: Signal, lead: str
) -> NDArray[np.float64]:
    """(samples - baseline) / gain, as wfdb does it, then to millivolts."""
    factor = _PER_MILLIVOLT.get(signal.units.lower())
    if factor is None:
        raise RecordError(Reason.UNSUPPORTED_UNITS, f"lead {lead} is in units other than V, mV and uV")
    millivolts = samples.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        millivolts -= float(signal.baseline)
        millivolts /= signal.gain
        if factor != 1:
            millivolts /= factor
    millivolts[missing] = np.nan
    return millivolts
