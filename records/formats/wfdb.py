"""Reads one WFDB record: twelve leads, ten seconds, 100 Hz, millivolts.

The plain record, of which most archives are full, is read by plain.cpp, where that was built. Whatever else is of
format 16 (also MATLAB v4 files with a byte offset, one or several signal files, one or several segments) is decoded
here; other formats go to the package wfdb, which is imported only then. What a header claims is checked against the
files before anything is allocated.
"""

import errno
import hashlib
import importlib
import math
import os
import re
import stat
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import (
    HIGHEST_RATE,
    LOWEST_RATE,
    SAMPLES,
    SAMPLING_RATE,
    SECONDS,
    Reason,
    RecordError,
    Recording,
)
from ecgbatch.records.resampling import resample

if TYPE_CHECKING:
    from hashlib import _Hash

try:
    _plain: Any = importlib.import_module("ecgbatch.records.formats._plain")
except ImportError:  # no C++ compiler when the package was installed
    _plain = None

LARGEST_HEADER = 1 << 20
LARGEST_SIGNAL_FILE = 4 << 30
LONGEST_LINE = 1000
MOST_SAMPLES = 8_000_000
_KEPT_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_FIRST_LOOK = 16


def read(root: Path, record: str) -> Recording:
    """Reads the record at `record` (path without suffix, relative to `root`). Symbolic links are followed.

    Raises RecordError, and nothing else but what a caller may use to interrupt.
    """
    try:
        path = root / _safe(record)
        return _read_plain(path) or _read_any(path)
    except MemoryError as error:
        raise RecordError(Reason.OUT_OF_MEMORY, str(error) or "not enough memory to read the record") from error
    except _FOREIGN_ERRORS as error:
        out_of_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
        reason = Reason.OUT_OF_MEMORY if out_of_memory else Reason.UNREADABLE_SIGNAL
        raise RecordError(reason, f"{type(error).__name__}: {error}") from error


# Named one by one: celery's soft time limit derives from Exception and must pass.
_FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class _Signal(NamedTuple):
    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    units: str
    checksum: int | None
    lead: str


class _Header(NamedTuple):
    rate: float | None
    length: int | None
    signals: list[_Signal]
    segments: list[tuple[str, int]]


class _Samples(NamedTuple):
    """The first samples of a record or segment: (samples, 12) millivolts, and what was noticed on the way."""

    millivolts: NDArray[np.float64]
    length: int
    checksums_agree: bool


def compiled() -> bool:
    """Whether the reader of plain records was built when the package was installed."""
    return _plain is not None


def _read_plain(path: Path) -> Recording | None:
    """A record of the plain kind, without fault, in a third of the time of `_read_any`; None for all others."""
    signal = np.empty((SAMPLES, len(LEADS)))
    if _plain is None or (found := _plain.read(f"{path}.hea", signal)) is None:
        return None
    header, data, cropped, checksums_agree, flat_lead = found
    digest = hashlib.sha256(header)
    digest.update(data)
    noticed = {"cropped": cropped, "checksum_mismatch": not checksums_agree, "flat_lead": flat_lead}
    return Recording(signal, digest.hexdigest(), _flags(noticed))


def _flags(noticed: dict[str, bool]) -> tuple[str, ...]:
    return tuple(sorted(flag for flag, seen in noticed.items() if seen))


def _read_any(path: Path) -> Recording:
    digest = hashlib.sha256()
    header = _read_header(path, digest)
    rate = _rational_rate(header)
    wanted = math.ceil(SECONDS * rate)
    if header.segments:
        samples = _read_segments(path, header, wanted, digest)
    else:
        samples = _read_signals(path, header, wanted, digest)
    if samples.length < wanted:
        raise RecordError(Reason.WRONG_DURATION, f"{float(samples.length / rate):.2f} seconds instead of {SECONDS}")
    signal = samples.millivolts
    noticed = {
        "resampled": rate != SAMPLING_RATE,
        "cropped": samples.length > wanted,
        "checksum_mismatch": not samples.checksums_agree,
        "flat_lead": _has_flat_lead(signal),
    }
    if noticed["resampled"]:
        signal = resample(signal, rate)
    return Recording(signal, digest.hexdigest(), _flags(noticed))


def _has_flat_lead(signal: NDArray[np.float64]) -> bool:
    flat = (signal[:_FIRST_LOOK] == signal[0]).all(axis=0)
    return bool(flat.any() and (signal[:, flat] == signal[0, flat]).all(axis=0).any())


def _safe(record: str) -> str:
    parts = re.split(r"[/\\]", record)
    if parts[0] == "" or parts[-1] in ("", ".") or ".." in parts or "::" in record or "\0" in record:
        raise RecordError(Reason.UNSAFE_PATH, f"{record!r} is no path below the archive's folder")
    if re.match(r"[\w+.-]+:", record):
        raise RecordError(Reason.UNSAFE_PATH, f"{record!r} is a URL")
    return record


# ------------------------------------------------------------------------------------------ header

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?"
_RECORD_LINE = re.compile(
    rf"[^\s/]+(?:/(?P<segments>\d{{1,9}}))?\s+(?P<signals>\d{{1,9}})"
    rf"(?:\s+(?P<rate>{_NUMBER})(?:/{_NUMBER})?(?:\({_NUMBER}\))?(?:\s+(?P<length>\d{{1,15}})(?:\s.*)?)?)?",
    re.ASCII,
)
_SIGNAL_LINE = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d{1,9})"
    r"(?:x(?P<per_frame>\d{1,9}))?(?::(?P<skew>\d{1,15}))?(?:\+(?P<offset>\d{1,15}))?"
    rf"(?:\s+(?P<gain>{_NUMBER})(?:\((?P<baseline>[-+]?\d{{1,15}})\))?(?:/(?P<units>\S+))?"
    r"(?:\s+\d{1,9}(?:\s+(?P<adc_zero>[-+]?\d{1,15})(?:\s+[-+]?\d{1,15}"
    r"(?:\s+(?P<checksum>[-+]?\d{1,15})(?:\s+\d{1,15}(?:\s+(?P<lead>\S.*))?)?)?)?)?)?)?",
    re.ASCII,
)
_SEGMENT_LINE = re.compile(r"(?P<name>~|[-\w]+)\s+(?P<length>\d{1,15})", re.ASCII)
_DEFAULT_GAIN = 200.0


def _read_header(path: Path, digest: "_Hash") -> _Header:
    content, _ = _load(
        path.with_name(path.name + ".hea"),
        digest,
        LARGEST_HEADER,
        Reason.MISSING_HEADER,
        Reason.UNREADABLE_HEADER,
    )
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line for raw in text.splitlines() if (line := raw.strip()) and line[0] != "#"]
    if not lines or max(map(len, lines)) > LONGEST_LINE or not (match := _RECORD_LINE.fullmatch(lines[0])):
        raise RecordError(Reason.UNREADABLE_HEADER, f"{path.name}.hea is no WFDB header")
    segments, signals, rate, length = match.groups()
    expected = int(segments or signals)
    if len(lines) - 1 != expected:
        raise RecordError(Reason.UNREADABLE_HEADER, f"{len(lines) - 1} lines follow where {expected} should")
    return _Header(
        float(rate) if rate else None,
        int(length) if length and int(length) else None,
        [] if segments else [_parse_signal(line) for line in lines[1:]],
        [_parse_segment(line) for line in lines[1:]] if segments else [],
    )


def _parse_signal(line: str) -> _Signal:
    match = _SIGNAL_LINE.fullmatch(line)
    if not match:
        raise RecordError(Reason.UNREADABLE_HEADER, f"no signal line: {line[:80]!r}")
    file, format, per_frame, skew, offset, gain, baseline, units, adc_zero, checksum, lead = match.groups()
    if "/" in file or "\\" in file or file[0] == "." or "\0" in file:
        raise RecordError(Reason.UNSAFE_PATH, f"the signal file {file!r} is not beside its header")
    if not math.isfinite(float(gain or 0)):
        raise RecordError(Reason.UNREADABLE_HEADER, f"no gain: {gain!r}")
    return _Signal(
        file,
        int(format),
        int(per_frame or 1) or 1,
        int(skew or 0),
        int(offset or 0),
        float(gain or 0) or _DEFAULT_GAIN,
        int(baseline or adc_zero or 0),
        units or "mV",
        int(checksum) if checksum else None,
        (lead or "").upper(),
    )


def _parse_segment(line: str) -> tuple[str, int]:
    match = _SEGMENT_LINE.fullmatch(line)
    if not match:
        raise RecordError(Reason.UNREADABLE_HEADER, f"no segment line: {line[:80]!r}")
    return match["name"], int(match["length"])


def _rational_rate(header: _Header) -> Fraction:
    """The sampling rate as a fraction of small terms, so that no rate needs a filter of absurd length."""
    if not header.rate:
        raise RecordError(Reason.NO_SAMPLING_RATE, "the header gives no sampling rate")
    if not LOWEST_RATE <= header.rate <= HIGHEST_RATE:
        raise RecordError(Reason.UNSUPPORTED_RATE, f"{header.rate:g} Hz")
    return Fraction(header.rate).limit_denominator(10)


# ------------------------------------------------------------------------------------------ samples

_BITS_PER_SAMPLE: dict[int, Fraction | int] = {
    8: 8,
    16: 16,
    24: 24,
    32: 32,
    61: 16,
    80: 8,
    160: 16,
    212: 12,
    310: Fraction(32, 3),
    311: Fraction(32, 3),
}
_COMPRESSED = (508, 516, 524)
_INVALID_SAMPLE = {
    16: -(2**15),
    24: -(2**23),
    32: -(2**31),
    61: -(2**15),
    80: -(2**7),
    160: -(2**15),
    212: -(2**11),
    310: -(2**9),
    311: -(2**9),
    508: -(2**7),
    516: -(2**15),
    524: -(2**23),
}
_NEVER = 2**62
_PER_MILLIVOLT = {"mv": 1.0, "v": 1e-3, "uv": 1e3, "\N{MICRO SIGN}v": 1e3, "\N{GREEK SMALL LETTER MU}v": 1e3}
_LEAD_NAMES = {lead.upper(): lead for lead in LEADS} | {"DI": "I", "DII": "II", "DIII": "III"}


def _read_segments(path: Path, header: _Header, wanted: int, digest: "_Hash") -> _Samples:
    parts: list[NDArray[np.float64]] = []
    agree, have = True, 0
    for name, length in header.segments:
        if length == 0 or have == wanted:
            continue
        if name == "~":
            raise RecordError(Reason.NOT_FINITE, f"a gap in the recording {have} samples from its start")
        segment_path = path.with_name(name)
        segment = _read_header(segment_path, digest)
        if segment.segments or segment.rate not in (None, header.rate) or segment.length not in (None, length):
            raise RecordError(Reason.UNREADABLE_HEADER, f"the header of segment {name} does not fit its record")
        samples = _read_signals(segment_path, segment, min(wanted - have, length), digest)
        parts.append(samples.millivolts)
        agree, have = agree and samples.checksums_agree, have + len(samples.millivolts)
    total = sum(length for _, length in header.segments)
    return _Samples(np.concatenate(parts) if parts else np.empty((0, len(LEADS))), total, agree)


def _read_signals(path: Path, header: _Header, wanted: int, digest: "_Hash") -> _Samples:
    """The first `wanted` samples of the twelve leads, or all if there are fewer, of a record of one segment."""
    leads = _find_leads(header.signals)
    files = _load_files(path, header.signals, digest)
    length = header.length or min(file.frames() for file in files)
    for file in files:
        file.check_holds(length)
    count = min(wanted, length)
    digital: NDArray[np.int16] | NDArray[np.int64]
    if all(file.is_plain() for file in files):
        digital, agree = _decode(files, leads, length, count)
    else:
        if not all(file.is_contiguous() for file in files):
            # Of such files wfdb takes the wrong signals.
            raise RecordError(Reason.UNREADABLE_SIGNAL, "the signals of a file are not listed one after the other")
        digital, agree = _decode_with_wfdb(path, header, leads, length, count)
    return _Samples(_to_millivolts(digital, [header.signals[lead] for lead in leads]), length, agree)


def _find_leads(signals: list[_Signal]) -> list[int]:
    """Which signals are the twelve leads, in the order of LEADS; of two signals of a lead the first."""
    found: dict[str, int] = {}
    for index, signal in enumerate(signals):
        if name := _LEAD_NAMES.get(signal.lead):
            found.setdefault(name, index)
    if len(found) < len(LEADS):
        missing = ", ".join(lead for lead in LEADS if lead not in found)
        raise RecordError(Reason.MISSING_LEAD, f"the record has no lead {missing}")
    return [found[lead] for lead in LEADS]


class _SignalFile(NamedTuple):
    """A signal file's first bytes (all of them but in files of many hours) and what the header says of it."""

    data: bytes
    size: int
    indices: list[int]
    signals: list[_Signal]

    @property
    def format(self) -> int:
        return self.signals[0].format

    @property
    def offset(self) -> int:
        return self.signals[0].offset

    def is_plain(self) -> bool:
        return all(s.format == 16 and s.per_frame == 1 and s.skew == 0 for s in self.signals)

    def is_contiguous(self) -> bool:
        return self.indices[-1] - self.indices[0] == len(self.indices) - 1

    def frames(self) -> int:
        """How many samples of each signal the file holds."""
        if self.format in _COMPRESSED:
            raise RecordError(Reason.UNREADABLE_HEADER, "the header of a compressed record must give its length")
        per_frame = sum(s.per_frame for s in self.signals)
        return int(8 * max(0, self.size - self.offset) / (per_frame * _BITS_PER_SAMPLE[self.format]))

    def check_holds(self, length: int) -> None:
        if self.format not in _COMPRESSED and self.frames() < length:
            raise RecordError(
                Reason.TRUNCATED,
                f"{self.signals[0].file} holds {self.frames()} of {length} samples per signal",
            )

    def samples(self, length: int) -> NDArray[np.int16]:
        """(at most `length`, signals of the file): as many as were kept."""
        per_frame = len(self.signals)
        kept = min(length, max(0, len(self.data) - self.offset) // (2 * per_frame))
        return np.frombuffer(self.data, "<i2", kept * per_frame, self.offset).reshape(kept, per_frame)


def _load_files(path: Path, signals: list[_Signal], digest: "_Hash") -> list[_SignalFile]:
    indices: dict[str, list[int]] = {}
    for index, signal in enumerate(signals):
        indices.setdefault(signal.file, []).append(index)
    return [_load_file(path, name, [(i, signals[i]) for i in own], digest) for name, own in indices.items()]


def _load_file(path: Path, name: str, own: list[tuple[int, _Signal]], digest: "_Hash") -> _SignalFile:
    first = own[0][1]
    if first.format not in _BITS_PER_SAMPLE and first.format not in _COMPRESSED:
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"{name} is in format {first.format}, which WFDB does not know")
    if any(s.format != first.format or s.offset not in (0, first.offset) for _, s in own):
        raise RecordError(Reason.UNREADABLE_HEADER, f"the header gives {name} more than one format")
    data, size = _load(
        path.with_name(name),
        digest,
        LARGEST_SIGNAL_FILE,
        Reason.MISSING_SIGNAL_FILE,
        Reason.UNREADABLE_SIGNAL,
    )
    return _SignalFile(data, size, [i for i, _ in own], [s for _, s in own])


def _load(path: Path, digest: "_Hash", limit: int, missing: Reason, unreadable: Reason) -> tuple[bytes, int]:
    """A regular file's first bytes, at most `_KEPT_BYTES`, and its size; all of it goes into the digest."""
    name = path.name
    try:
        # Opening a pipe may block and opening a device may act on it, so look before; and after, to be sure.
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordError(Reason.NOT_A_FILE, f"{name} is not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RecordError(missing, f"there is no {name}") from error
    except OSError as error:
        raise RecordError(unreadable, f"{name}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(Reason.NOT_A_FILE, f"{name} is not a regular file")
        if status.st_size > limit:
            raise RecordError(Reason.TOO_LARGE, f"{name} has {status.st_size} bytes, more than {limit}")
        try:
            data = file.read(min(status.st_size, _KEPT_BYTES))
            digest.update(data)
            size = len(data)
            while size < status.st_size and (chunk := file.read(_CHUNK_BYTES)):
                digest.update(chunk)
                size += len(chunk)
        except OSError as error:
            raise RecordError(unreadable, f"{name}: {error.strerror}") from error
    return data, size


def _decode(files: list[_SignalFile], leads: list[int], length: int, count: int) -> tuple[NDArray[np.int16], bool]:
    """(count, 12) samples of format 16, and whether the leads' checksums agree."""
    kept = [file.samples(length) for file in files]
    if min(map(len, kept)) < count:
        raise RecordError(Reason.TOO_LARGE, f"the first {SECONDS} seconds take more than {_KEPT_BYTES} bytes")
    signals = [signal for file in files for signal in file.signals]
    order = {index: column for column, index in enumerate(i for file in files for i in file.indices)}
    columns = [order[lead] for lead in leads]
    agree = True
    if min(map(len, kept)) == length:
        sums = np.concatenate([np.einsum("tc->c", samples) for samples in kept])  # modulo 2^16, as checksums are
        agree = _checksums_agree([signals[column] for column in columns], sums[columns])
    digital = np.concatenate([samples[:count] for samples in kept], axis=1) if len(kept) > 1 else kept[0][:count]
    in_order = columns == list(range(digital.shape[1]))
    return digital if in_order else digital.take(columns, axis=1), agree


def _checksums_agree(signals: list[_Signal], sums: NDArray[np.integer]) -> bool:
    claimed = ((signal.checksum, int(total)) for signal, total in zip(signals, sums, strict=True))
    return all(checksum is None or (checksum - total) & 0xFFFF == 0 for checksum, total in claimed)


def _decode_with_wfdb(
    path: Path, header: _Header, leads: list[int], length: int, count: int
) -> tuple[NDArray[np.int64], bool]:
    """(count, 12) samples of any format, and whether the leads' checksums agree."""
    signals = header.signals
    frame = sum(s.per_frame for s in signals)
    if (count + max(s.skew for s in signals)) * frame > MOST_SAMPLES:
        raise RecordError(Reason.TOO_LARGE, f"{frame} samples per frame are more than a recording should have")
    import wfdb

    seen = wfdb.rdheader(str(path.absolute()))
    theirs = zip(seen.file_name, seen.fmt, seen.samps_per_frame, seen.skew, seen.byte_offset, strict=True)
    ours = [(s.file, str(s.format), s.per_frame, s.skew, s.offset) for s in signals]
    if [(f, fmt, n or 1, skew or 0, offset or 0) for f, fmt, n, skew, offset in theirs] != ours:
        raise RecordError(Reason.UNREADABLE_HEADER, "the header can be understood in more than one way")
    record = wfdb.rdrecord(str(path.absolute()), sampto=count, channels=leads, physical=False, return_res=64)
    digital: NDArray[np.int64] = record.d_signal
    chosen = [signals[lead] for lead in leads]
    if count < length or any(s.per_frame > 1 or s.skew for s in chosen):
        return digital, True
    return digital, _checksums_agree(chosen, digital.sum(axis=0))


def _to_millivolts(digital: NDArray[np.int16] | NDArray[np.int64], signals: list[_Signal]) -> NDArray[np.float64]:
    """(digital - baseline) / gain, as wfdb does it, then to millivolts."""
    per_millivolt = []
    for signal in signals:
        factor = _PER_MILLIVOLT.get(signal.units.lower())
        if factor is None:
            raise RecordError(Reason.UNSUPPORTED_UNITS, f"lead {signal.lead} is in {signal.units}")
        per_millivolt.append(factor)
    invalid = [_INVALID_SAMPLE.get(signal.format, _NEVER) for signal in signals]
    if digital.size and digital.min() <= max(invalid) and (marked := digital == np.array(invalid)).any():
        lead = LEADS[marked.any(axis=0).argmax()]
        raise RecordError(Reason.NOT_FINITE, f"lead {lead} has samples marked as invalid")
    physical = digital.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        physical -= _for_leads([float(signal.baseline) for signal in signals])
        physical /= _for_leads([signal.gain for signal in signals])
        if any(factor != 1 for factor in per_millivolt):
            physical /= _for_leads(per_millivolt)
    if not np.isfinite(physical).all():
        raise RecordError(Reason.NOT_FINITE, "the header's gains make samples infinite")
    return physical


def _for_leads(values: list[float]) -> NDArray[np.float64] | float:
    """A value for each lead, or one for all where they are the same: three times as fast."""
    return values[0] if values.count(values[0]) == len(values) else np.array(values)
