"""SCP-ECG (EN 1064, ISO 11073-91064), versions 1 to 3: the rhythm of section 6, whatever of the standard's ways it
is stored in, but for bimodal compression.
"""

import binascii
import struct
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import Format, whole_small_file
from ecgbatch.records.formats.patient import day_of, years, years_between
from ecgbatch.records.formats.scp_huffman import Tables, decoded, read_tables
from ecgbatch.records.formats.units import side_by_side
from ecgbatch.records.recording import Flag, Reason, RecordError

_PREAMBLE, _SECTION_HEADER, _POINTER = 6, 16, 10
_NAME = slice(16, 22)
"""Where section 0 of all but the first version has `SCPECG`."""
_MOST_SAMPLES = 1_000_000
"""Of all leads together: more than a minute at 1000 Hz."""

LEADS_BY_NUMBER = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"} | {2 + n: f"V{n}" for n in range(1, 7)}
_AGE_UNITS = {1: "years", 2: "months", 3: "weeks", 4: "days", 5: "hours"}
_SEXES = {1: 0, 2: 1}
_NANOVOLTS_PER_MILLIVOLT = 1e6


class _Lead(NamedTuple):
    """Of section 3: the first and last sample, counted from 1, and the lead's number."""

    first: int
    last: int
    code: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1


class _Beat(NamedTuple):
    """Of section 4: a beat's type (0 is the reference beat's), its first, fiducial and last sample, from 1."""

    kind: int
    first: int
    fiducial: int
    last: int


class _Waveform(NamedTuple):
    """Of section 5 or 6: nanovolts a bit, microseconds between samples, and each lead's samples."""

    nanovolts: int
    microseconds: int
    leads: list[NDArray[np.int64]]


def _decode(data: bytes) -> Decoded:
    try:
        return _record(data)
    except (struct.error, IndexError) as error:
        raise RecordError(Reason.TRUNCATED, "the file ends within its tables") from error


def _record(data: bytes) -> Decoded:
    sections = _sections(data)
    for wanted in (3, 6):
        if wanted not in sections:
            raise RecordError(Reason.UNREADABLE_SIGNAL, f"the file has no section {wanted}")
    tables = read_tables(sections[2]) if 2 in sections else None
    leads, subtracted = _leads(sections[3])
    rhythm = _waveform(sections[6], [lead.length for lead in leads], tables)
    if _is_bimodal(sections, rhythm):
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the rhythm is in bimodal compression, which is not read")
    if subtracted:
        rhythm = _with_reference_beats(sections, rhythm, leads, tables)
    first, last = max(lead.first for lead in leads), min(lead.last for lead in leads)
    together = [samples[first - lead.first : last - lead.first + 1] for lead, samples in zip(leads, rhythm.leads)]
    tags = _tags(sections.get(1, b""))
    return Decoded(
        side_by_side(_of_equal_length(together)) * (rhythm.nanovolts / _NANOVOLTS_PER_MILLIVOLT),
        1e6 / rhythm.microseconds,
        tuple(LEADS_BY_NUMBER.get(lead.code, f"number {lead.code}") for lead in leads),
        FORMAT.name,
        flags=frozenset() if _checksum_agrees(data) else frozenset({Flag.CHECKSUM_MISMATCH}),
        age=_age(tags),
        sex=_SEXES.get(tags[8][0]) if tags.get(8) else None,
        device=_device(tags.get(14, b"")),
    )


# ------------------------------------------------------------------------------------------ sections


def _sections(data: bytes) -> dict[int, bytes]:
    """What follows the header of each section that is there; a pointer counts from 1, or, wrongly, from 0."""
    found: dict[int, bytes] = {}
    (length,) = struct.unpack_from("<I", data, _PREAMBLE + 4)
    pointers = data[_PREAMBLE + _SECTION_HEADER : _PREAMBLE + length]
    for number, size, index in struct.iter_unpack("<HII", pointers[: len(pointers) // _POINTER * _POINTER]):
        if size <= _SECTION_HEADER or number in found:
            continue
        for start in (index - 1, index):
            if start > 0 and data[start + 2 : start + 4] == struct.pack("<H", number):
                found[number] = data[start + _SECTION_HEADER : start + size]
                break
    return found


def _checksum_agrees(data: bytes) -> bool:
    claimed, size = struct.unpack_from("<HI", data)
    return bool(size > len(data) or binascii.crc_hqx(data[2:size], 0xFFFF) == claimed)


def _tags(section: bytes) -> dict[int, bytes]:
    """Section 1: patient and device, by tag."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 3 <= len(section) and section[at] != 0xFF:
        tag, length = struct.unpack_from("<BH", section, at)
        found.setdefault(tag, section[at + 3 : at + 3 + length])
        at += 3 + length
    return found


def _age(tags: dict[int, bytes]) -> float | None:
    """As stated, else from the day of birth."""
    if len(stated := tags.get(4, b"")) >= 3:
        number, unit = struct.unpack_from("<HB", stated)
        if unit in _AGE_UNITS:
            return years(number, _AGE_UNITS[unit])
    return years_between(_day(tags.get(5, b"")), _day(tags.get(25, b"")))


def _day(tag: bytes) -> date | None:
    return day_of(*struct.unpack_from("<HBB", tag)) if len(tag) >= 4 else None


def _device(tag: bytes) -> str | None:
    """The model, and the maker as it is spelled out in later versions."""
    model = tag[8:14].split(b"\0")[0]
    return model.decode("latin-1").strip() or None


def _leads(section: bytes) -> tuple[list[_Lead], bool]:
    """The leads, and whether reference beats were subtracted from them. Raises RecordError if they cannot be."""
    leads = [_Lead(*struct.unpack_from("<IIB", section, 2 + 9 * i)) for i in range(section[0])]
    if not leads or min(lead.length for lead in leads) < 1 or sum(lead.length for lead in leads) > _MOST_SAMPLES:
        raise RecordError(Reason.UNREADABLE_HEADER, "section 3 gives leads of impossible length")
    if max(lead.first for lead in leads) > min(lead.last for lead in leads):
        raise RecordError(Reason.MISSING_LEAD, "the leads were recorded one after the other")
    return leads, bool(section[1] & 1)


# ------------------------------------------------------------------------------------------ waveforms


def _waveform(section: bytes, lengths: list[int], tables: Tables | None) -> _Waveform:
    """The samples of section 5 or 6, leads of `lengths` samples, or one fewer (some devices count from 0)."""
    nanovolts, microseconds, differences = struct.unpack_from("<HHB", section)
    if not nanovolts:
        raise RecordError(Reason.UNSUPPORTED_UNITS, "the file gives no nanovolts a bit")
    if not microseconds:
        raise RecordError(Reason.NO_SAMPLING_RATE, "the file gives no time between samples")
    sizes = struct.unpack_from(f"<{len(lengths)}H", section, 6)
    at = 6 + 2 * len(lengths)
    # A size has 16 bits: of longer leads it tells no more than the rest.
    untold = (len(section) - at - sum(sizes)) // (len(lengths) << 16) << 16
    leads = []
    for size, length in zip(sizes, lengths, strict=True):
        content = section[at : at + size + max(0, untold)]
        at += len(content)
        if tables:
            stored = decoded(content, length, tables)
        else:
            stored = np.frombuffer(content, "<i2", min(length, len(content) // 2)).astype(np.int64)
        if len(stored) < length - 1:
            raise RecordError(Reason.TRUNCATED, f"a lead holds {len(stored)} of {length} samples")
        leads.append(_undifferenced(stored, differences))
    return _Waveform(nanovolts, microseconds, leads)


def _undifferenced(values: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """From first or second differences; sums wrap at 16 bits, as those did that devices made them with."""
    if order not in (0, 1, 2):
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"the samples are differences of order {order}")
    if order == 2 and len(values) > 1:
        values = np.concatenate((values[:1], values[1:2] - values[0], values[2:]))
        values[1:] = np.cumsum(values[1:])
    if order:
        values = np.cumsum(values)
    return values.astype(np.int16).astype(np.int64)


def _of_equal_length(leads: list[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    shortest = min(map(len, leads))
    return [lead[:shortest].astype(np.float64) for lead in leads]


def _is_bimodal(sections: dict[int, bytes], rhythm: _Waveform) -> bool:
    """Whether the rhythm between the beats is stored with fewer samples than within them."""
    return bool(sections[6][5]) and struct.unpack_from("<H", sections.get(5, b"\0\0\0\0"), 2)[0] != rhythm.microseconds


def _with_reference_beats(
    sections: dict[int, bytes], rhythm: _Waveform, leads: list[_Lead], tables: Tables | None
) -> _Waveform:
    """The rhythm with the reference beat (section 5) put back where it was subtracted (section 4)."""
    if 4 not in sections or 5 not in sections:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the reference beat that was subtracted is not in the file")
    milliseconds, fiducial, count = struct.unpack_from("<3H", sections[4])
    beats = [_Beat(*struct.unpack_from("<H3I", sections[4], 6 + 14 * i)) for i in range(count)]
    (microseconds,) = struct.unpack_from("<H", sections[5], 2)
    length = round(1000 * milliseconds / microseconds) if microseconds else 0
    if microseconds != rhythm.microseconds or not 0 < length <= _MOST_SAMPLES // len(leads):
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the reference beat does not fit the rhythm")
    reference = _waveform(sections[5], [length] * len(leads), tables)
    put_back = []
    for lead, samples, beat in zip(leads, rhythm.leads, reference.leads, strict=True):
        nanovolts = samples * rhythm.nanovolts
        for place in beats:
            # A sample's place within the reference beat is its distance from the fiducial points of both.
            shift = place.fiducial - fiducial
            first = max(place.first, lead.first, shift + 1)
            last = min(place.last, lead.first + len(samples) - 1, shift + len(beat))
            if place.kind == 0 and first <= last:
                part = beat[first - shift - 1 : last - shift]
                nanovolts[first - lead.first : last - lead.first + 1] += part * reference.nanovolts
        put_back.append(nanovolts)
    return _Waveform(1, rhythm.microseconds, put_back)


def _recognises(head: bytes) -> bool:
    """Section 0 comes first, tells its own length and place, and fits into the size that the file gives itself."""
    if len(head) < _PREAMBLE + _SECTION_HEADER + _POINTER:
        return False
    size, _, number, length = struct.unpack_from("<IHHI", head, 2)
    own, own_size, own_index = struct.unpack_from("<HII", head, _PREAMBLE + _SECTION_HEADER)
    tells_itself = number == own == 0 and own_index in (_PREAMBLE, _PREAMBLE + 1)
    fits = tells_itself and length > _SECTION_HEADER and own_size in (length, 0) and size > length
    return fits or head[_NAME] == b"SCPECG"


FORMAT = Format("scp", _recognises, whole_small_file(_decode))
