"""What a WFDB header (.hea) says: of its record, its signals or segments, and in its comments."""

import math
import re
from typing import NamedTuple

from ecgbatch.records.recording import Reason, RecordError

LARGEST_HEADER = 1 << 20
LONGEST_LINE = 1000
MOST_SIGNALS = 1000
MOST_SEGMENTS = 10_000
DEFAULT_GAIN = 200.0


class Signal(NamedTuple):
    """A signal line. gain in units of `units` per step, initial and baseline in steps."""

    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    units: str
    initial: int
    checksum: int | None
    lead: str


class Segment(NamedTuple):
    """A segment line; `~` is the name of a gap."""

    name: str
    length: int


class Header(NamedTuple):
    """rate in Hz, length in samples, where they are given; of signals and segments one is empty."""

    rate: float | None
    length: int | None
    signals: list[Signal]
    segments: list[Segment]
    comments: list[str]


# Every repetition below ends where its next part begins, and is possessive: no text takes more than linear time.
_NUMBER = r"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d{1,3}+)?"
_RECORD_LINE = re.compile(
    rf"[^\s/]++(?:/(?P<segments>\d{{1,9}}+))?\s++(?P<signals>\d{{1,9}}+)"
    rf"(?:\s++(?P<rate>{_NUMBER})(?:/{_NUMBER})?(?:\({_NUMBER}\))?(?:\s++(?P<length>\d{{1,15}}+)(?:\s.*+)?)?)?",
    re.ASCII,
)
_SIGNAL_LINE = re.compile(
    r"(?P<file>\S++)\s++(?P<format>\d{1,9}+)"
    r"(?:x(?P<per_frame>\d{1,9}+))?(?::(?P<skew>\d{1,15}+))?(?:\+(?P<offset>\d{1,15}+))?"
    rf"(?:\s++(?P<gain>{_NUMBER})(?:\((?P<baseline>[-+]?\d{{1,15}}+)\))?(?:/(?P<units>\S++))?"
    r"(?:\s++\d{1,9}+(?:\s++(?P<adc_zero>[-+]?\d{1,15}+)(?:\s++(?P<initial>[-+]?\d{1,15}+)"
    r"(?:\s++(?P<checksum>[-+]?\d{1,15}+)(?:\s++\d{1,15}+(?:\s++(?P<lead>\S.*+))?)?)?)?)?)?)?",
    re.ASCII,
)
_SEGMENT_LINE = re.compile(r"(?P<name>~|[-\w]++)\s++(?P<length>\d{1,15}+)", re.ASCII)


def parse(content: bytes) -> Header:
    """Raises RecordError: `unreadable_header`, or `unsafe_path` for a signal file that is not beside its header."""
    lines, comments = split(content)
    if not lines or max(map(len, lines)) > LONGEST_LINE or not (match := _RECORD_LINE.fullmatch(lines[0])):
        raise RecordError(Reason.UNREADABLE_HEADER, "this is no WFDB header")
    segments, signals, rate, length = match.groups()
    expected = int(segments or signals)
    if len(lines) - 1 != expected:
        raise RecordError(Reason.UNREADABLE_HEADER, f"{len(lines) - 1} lines follow where {expected} should")
    if expected > (MOST_SEGMENTS if segments else MOST_SIGNALS):
        raise RecordError(
            Reason.TOO_LARGE, f"{expected} are more {'segments' if segments else 'signals'} than expected"
        )
    return Header(
        float(rate) if rate else None,
        int(length) if length and int(length) else None,
        [] if segments else [_parse_signal(number, line) for number, line in enumerate(lines[1:], 1)],
        [_parse_segment(number, line) for number, line in enumerate(lines[1:], 1)] if segments else [],
        comments,
    )


def split(content: bytes) -> tuple[list[str], list[str]]:
    """A header's lines, or those of its first part, and its comments without `#`, stripped; blank ones left out."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line for raw in text.splitlines() if (line := raw.strip())]
    return [line for line in lines if line[0] != "#"], [line[1:].strip() for line in lines if line[0] == "#"]


def segment_names(lines: list[str]) -> list[str]:
    """The segments that a header's lines name, as far as they go; none for a record of one segment."""
    match = _RECORD_LINE.fullmatch(lines[0]) if lines and len(lines[0]) <= LONGEST_LINE else None
    if not match or not match["segments"]:
        return []
    return [segment["name"] for line in lines[1:] if (segment := _SEGMENT_LINE.fullmatch(line))]


def _parse_signal(number: int, line: str) -> Signal:
    match = _SIGNAL_LINE.fullmatch(line)
    if not match:
        raise RecordError(Reason.UNREADABLE_HEADER, f"signal line {number} of the header is none")
    file, format, per_frame, skew, offset, gain, baseline, units, adc_zero, initial, checksum, lead = match.groups()
    if "/" in file or "\\" in file or file[0] == "." or "\0" in file:
        raise RecordError(Reason.UNSAFE_PATH, f"signal {number} names a file that is not beside its header")
    if not math.isfinite(float(gain or 0)):
        raise RecordError(Reason.UNREADABLE_HEADER, f"the gain of signal {number} is infinite")
    return Signal(
        file,
        int(format),
        int(per_frame or 1) or 1,
        int(skew or 0),
        int(offset or 0),
        float(gain or 0) or DEFAULT_GAIN,
        int(baseline or adc_zero or 0),
        units or "mV",
        int(initial or 0),
        int(checksum) if checksum else None,
        lead or "",
    )


def _parse_segment(number: int, line: str) -> Segment:
    match = _SEGMENT_LINE.fullmatch(line)
    if not match:
        raise RecordError(Reason.UNREADABLE_HEADER, f"segment line {number} of the header is none")
    return Segment(match["name"], int(match["length"]))
