"""EDF, EDF+, BDF and BDF+."""

import calendar
import re
from datetime import date

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import Format, whole_file
from ecgbatch.records.formats.library import library, reading_with
from ecgbatch.records.formats.patient import day_of, sex_of_word, years_between
from ecgbatch.records.formats.units import per_millivolt, side_by_side
from ecgbatch.records.leads import leads_of_signals
from ecgbatch.records.recording import Reason, RecordError

_EDF, _BDF = b"0       ", b"\xffBIOSEMI"
_FIXED_HEADER = 256
_BEFORE_SAMPLES_PER_RECORD = 216
"""Bytes of header per signal that come before it: all signals' labels, then all their transducers, and so on."""

_ANNOTATIONS = (b"EDF Annotations", b"BDF Annotations")
_SAME_TIME = 1e-3
"""Seconds by which a data record may begin off the end of the last one."""

_PATIENT = re.compile(r"\S{1,80} ([MFX]) (?:(\d\d)-([A-Z]{3})-(\d{4})|X)(?: .*)?", re.ASCII)
_STARTED = re.compile(r"Startdate (\d\d)-([A-Z]{3})-(\d{4})(?: \S+ \S+ (\S+))?.*", re.ASCII)
_MONTHS = {month.upper(): number for number, month in enumerate(calendar.month_abbr)}


def _decode(data: bytes, size: int) -> Decoded:
    edfio = library("edfio", "edfio")
    with reading_with("edfio"):
        data, length = _whole_records(data, size)
        read = edfio.read_bdf if data.startswith(_BDF) else edfio.read_edf
        all_signals = read(data, header_encoding="latin-1").signals
        which = leads_of_signals([signal.label for signal in all_signals])
        signals = [signal for signal, lead in zip(all_signals, which, strict=True) if lead]
        if not signals:
            raise RecordError(Reason.MISSING_LEAD, "none of the file's signals is named as a lead")
        if len({signal.sampling_frequency for signal in signals}) > 1:
            raise RecordError(Reason.UNSUPPORTED_RATE, "the leads are not of one sampling rate")
        factors = [1 / per_millivolt(signal.physical_dimension, signal.label) for signal in signals]
        samples = [signal.data * factor for signal, factor in zip(signals, factors, strict=True)]
        rate = float(signals[0].sampling_frequency)
        leads = tuple(signal.label for signal in signals)
    person = _PATIENT.fullmatch(_text(data[8:88]))
    started = _STARTED.fullmatch(_text(data[88:168]))
    device = started[4] if started else None
    return Decoded(
        side_by_side(samples),
        rate,
        leads,
        FORMAT.name,
        length=round(length * rate),
        age=years_between(_day(person, 2), _day(started, 1) or _legacy_day(_text(data[168:176]))),
        sex=sex_of_word(person[1]) if person else None,
        device=device if device != "X" else None,
    )


def _whole_records(data: bytes, size: int) -> tuple[bytes, float]:
    """The header and the whole data records that follow it, their number put right; and the file's seconds."""
    signals = int(data[252:256])
    header = _FIXED_HEADER * (signals + 1)
    at = _FIXED_HEADER + _BEFORE_SAMPLES_PER_RECORD * signals
    samples = [int(data[at + 8 * signal : at + 8 * signal + 8]) for signal in range(signals)]
    if not signals or min(samples) < 1 or int(data[184:192]) != header:
        raise RecordError(Reason.UNREADABLE_HEADER, "the header contradicts itself")
    per_record = sum(samples) * (3 if data.startswith(_BDF) else 2)
    claimed, there, kept = int(data[236:244]), (size - header) // per_record, (len(data) - header) // per_record
    if claimed > there:
        raise RecordError(Reason.TRUNCATED, f"the file holds {max(there, 0)} of {claimed} data records")
    if kept < 1 or claimed == 0:
        raise RecordError(Reason.TRUNCATED, "the file holds no data record")
    kept = min(kept, claimed) if claimed > 0 else kept  # -1 where the number was never filled in
    length = claimed if claimed > 0 else there
    seconds = float(data[244:252])
    kind = data[192:197]
    if kind in (b"EDF+D", b"BDF+D"):
        kept = _until_interrupted(
            data[header : header + kept * per_record], data[_FIXED_HEADER:at], samples, kept, seconds
        )
        kind = kind[:4] + b"C"
    whole = data[:192] + kind + data[197:236] + str(kept).ljust(8).encode() + data[244 : header + kept * per_record]
    return whole, length * seconds


def _until_interrupted(records: bytes, labels: bytes, samples: list[int], count: int, seconds: float) -> int:
    """How many data records follow on each other from the first. Each says when it began, in its annotations."""
    names = [labels[16 * signal : 16 * signal + 16].rstrip() for signal in range(len(samples))]
    annotations = next((at for at, name in enumerate(names) if name in _ANNOTATIONS), None)
    if annotations is None:
        raise RecordError(Reason.UNREADABLE_HEADER, "the recording has interruptions, and does not say where")
    size = len(records) // count
    start = sum(samples[:annotations]) * (size // sum(samples))
    began = [float(records[size * n + start :][:20].partition(b"\x14")[0]) for n in range(count)]
    followed = (abs(began[n] - began[0] - n * seconds) < _SAME_TIME for n in range(count))
    return next((n for n, follows in enumerate(followed) if not follows), count)


def _text(field: bytes) -> str:
    return field.decode("latin-1").strip()


def _day(match: "re.Match[str] | None", group: int) -> date | None:
    return day_of(match[group + 2], _MONTHS.get(match[group + 1] or ""), match[group]) if match else None


def _legacy_day(text: str) -> date | None:
    """`dd.mm.yy`, of 1985 to 2084."""
    day_of_month, _, rest = text.partition(".")
    month, _, year = rest.partition(".")
    if not (len(year) == 2 and year.isdecimal()):
        return None
    return day_of(int(year) + (1900 if int(year) >= 85 else 2000), month, day_of_month)


def _recognises(head: bytes) -> bool:
    return head[:8] in (_EDF, _BDF) and len(head) >= _FIXED_HEADER and head[252:256].strip().isdigit()


FORMAT = Format("edf", _recognises, whole_file(_decode))
