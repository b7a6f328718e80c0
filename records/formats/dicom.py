"""DICOM waveforms: 12-lead, general and ambulatory ECG, and ECGs kept as hemodynamic waveforms."""

import io
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import KEPT_BYTES, Format, whole_small_file
from ecgbatch.records.formats.library import library, reading_with
from ecgbatch.records.formats.patient import day, sex_of_word, years, years_between
from ecgbatch.records.formats.scp import LEADS_BY_NUMBER
from ecgbatch.records.formats.units import per_millivolt
from ecgbatch.records.leads import lead_of, leads_of_signals
from ecgbatch.records.recording import Reason, RecordError

_WANTED = (
    "WaveformSequence", "PatientAge", "PatientBirthDate", "PatientSex", "AcquisitionDateTime", "ContentDate",
    "StudyDate", "Manufacturer", "ManufacturerModelName",
)  # fmt: skip
"""All else, as names, is not even parsed."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_AFTER_PREAMBLE, _LENGTH_ELEMENT = 132, 12
"""Bytes: of preamble and mark, and of the element that tells how long the file's own elements are after it."""
_SAMPLES = {(16, "SS"): "i2", (16, "US"): "u2", (8, "SB"): "i1", (8, "UB"): "u1", (32, "SL"): "i4", (32, "UL"): "u4"}

_LEAD_CODE = re.compile(r"(?:2:|5\.6\.3-9-)(\d{1,3})", re.ASCII)
"""With a lead's number in SCP-ECG and, in DICOM's later editions, in MDC."""


class _Channel(NamedTuple):
    lead: str
    millivolts: NDArray[np.float64]


def _decode(data: bytes) -> Decoded:
    if _DEFLATED in data[:2048]:
        data = _inflated(data)
    pydicom = library("pydicom", "pydicom")
    with reading_with("pydicom", pydicom.errors.BytesLengthException, pydicom.errors.InvalidDicomError):
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # else it warns of what it reads
        file = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_WANTED), force=True)
        groups = list(file.get("WaveformSequence") or ())
        if not groups:
            raise RecordError(Reason.UNREADABLE_SIGNAL, "the DICOM file holds no waveform")
        order = "<" if file.original_encoding[1] is not False else ">"
        rate, channels = _rhythm(groups, order)
        return Decoded(
            np.stack([channel.millivolts for channel in channels], axis=1),
            rate,
            tuple(channel.lead for channel in channels),
            FORMAT.name,
            age=_age(file),
            sex=sex_of_word(str(file.get("PatientSex") or "")),
            device=" ".join(filter(None, (str(file.get(n) or "").strip() for n in _WANTED[-2:]))) or None,
        )


def _inflated(data: bytes) -> bytes:
    """The data set of a deflated file, without what comes before it. Raises RecordError for one that is too large."""
    with reading_with("zlib"):
        (length,) = struct.unpack_from("<I", data, _AFTER_PREAMBLE + 8)
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        content = unpacking.decompress(data[_AFTER_PREAMBLE + _LENGTH_ELEMENT + length :], KEPT_BYTES)
    if not unpacking.eof:
        too_large = bool(unpacking.unconsumed_tail)
        reason, detail = (
            (Reason.TOO_LARGE, f"more than {KEPT_BYTES} bytes") if too_large else (Reason.TRUNCATED, "cut off")
        )
        raise RecordError(reason, f"the deflated DICOM file is {detail}")
    return content


def _rhythm(groups: Sequence[Any], order: str) -> tuple[float, list[_Channel]]:
    """The rate and the channels of the rhythm: recorded, not derived; then with most leads; then the longest.

    Groups that were recorded at the same time, as a device with few channels a group has them, are taken together.
    """
    together: dict[tuple[bool, float, int, float], list[Any]] = {}
    for group in groups:
        derived = str(group.get("WaveformOriginality") or "") == "DERIVED"
        offset = float(group.get("MultiplexGroupTimeOffset") or 0)
        key = (not derived, float(group.SamplingFrequency), int(group.NumberOfWaveformSamples), offset)
        together.setdefault(key, []).append(group)

    def preference(key: tuple[bool, float, int, float]) -> tuple[bool, int, float]:
        names = [_lead(channel) for group in together[key] for channel in group.ChannelDefinitionSequence]
        leads = set(leads_of_signals(names)) - {None}
        return key[0], len(leads), key[2] / key[1] if key[1] else 0

    best = max(together, key=preference)
    channels = [channel for group in together[best] for channel in _channels(group, order)]
    if not channels:
        raise RecordError(Reason.MISSING_LEAD, "none of the waveform's channels is a lead in units of voltage")
    return best[1], channels


def _channels(group: Any, order: str) -> list[_Channel]:
    """The channels that are leads, in millivolts; a hemodynamic waveform has pressures beside them."""
    kind = _SAMPLES.get((int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation)))
    if kind is None:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the waveform's samples are companded or of an unknown kind")
    dtype = np.dtype(order + kind)
    count, length = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    content = bytes(group.WaveformData)
    if not 0 < count * length * dtype.itemsize <= len(content):
        raise RecordError(Reason.TRUNCATED, "the waveform holds fewer samples than it claims")
    digital = np.frombuffer(content, dtype, count * length).reshape(length, count)
    padding = _padding(group, dtype)
    found = []
    names = [_lead(channel) for channel in group.ChannelDefinitionSequence]
    which = zip(group.ChannelDefinitionSequence, names, leads_of_signals(names), digital.T, strict=False)
    for channel, lead, is_lead, values in which:
        if is_lead:
            millivolts = values * (_sensitivity(channel, lead)) + _baseline(channel, lead)
            if padding is not None:
                millivolts[values == padding] = np.nan
            found.append(_Channel(lead, millivolts))
    return found


def _padding(group: Any, dtype: "np.dtype[Any]") -> Any:
    """The value that stands for a missing sample; None if there is none.

    Some devices name 0, which is a value like any other: a lead passes it several times a beat.
    """
    named = bytes(group.get("WaveformPaddingValue") or b"").ljust(dtype.itemsize, b"\0")
    return np.frombuffer(named, dtype, 1)[0] if any(named) else None


def _lead(channel: Any) -> str:
    source = (channel.get("ChannelSourceSequence") or [{}])[0]
    code, meaning = str(source.get("CodeValue") or ""), str(source.get("CodeMeaning") or "")
    if match := _LEAD_CODE.fullmatch(code):
        return LEADS_BY_NUMBER.get(int(match[1]), meaning or code)
    short = meaning.partition("(")[0].strip()
    names = (code, short, str(channel.get("ChannelLabel") or ""))
    return next((name for name in names if lead_of(name)), short or code)


def _sensitivity(channel: Any, lead: str) -> float:
    """Millivolts a bit."""
    if channel.get("ChannelSensitivity") is None:
        raise RecordError(Reason.UNSUPPORTED_UNITS, f"lead {lead} has no sensitivity")
    correction = channel.get("ChannelSensitivityCorrectionFactor")
    factor = float(correction) if correction is not None else 1.0
    return float(channel.ChannelSensitivity) * factor / _per_millivolt(channel, lead)


def _baseline(channel: Any, lead: str) -> float:
    return float(channel.get("ChannelBaseline") or 0) / _per_millivolt(channel, lead)


def _per_millivolt(channel: Any, lead: str) -> float:
    units = (channel.get("ChannelSensitivityUnitsSequence") or [{}])[0]
    return per_millivolt(str(units.get("CodeValue") or ""), lead)


def _age(file: Any) -> float | None:
    """As stated (`042Y`), else from the day of birth."""
    stated = str(file.get("PatientAge") or "").strip()
    if (age := years(stated) if stated.isdecimal() else years(stated[:-1], stated[-1:])) is not None:
        return age
    recorded = (day(str(file.get(name) or "")) for name in ("AcquisitionDateTime", "ContentDate", "StudyDate"))
    return years_between(day(str(file.get("PatientBirthDate") or "")), next(filter(None, recorded), None))


def _recognises(head: bytes) -> bool:
    """By the mark after the preamble; or, where a file has neither, by a first element of the first groups."""
    first = head[:2] in (b"\x02\0", b"\x08\0") and head[4:6] in (b"UL", b"OB", b"UI", b"CS")
    return head[128:132] == b"DICM" or first


FORMAT = Format("dicom", _recognises, whole_small_file(_decode))
