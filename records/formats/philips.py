"""Philips Sierra XML (`restingecgdata`), 1.03 to 1.04, plain or compressed.

Compressed (XLI), each lead is eight bytes (size, a code, the first difference) and an LZW stream of ten-bit codes,
which holds the high bytes of all second differences and then the low ones. III, aVR, aVL and aVF are stored as what
I and II leave unexplained.
"""

import struct
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import xml
from ecgbatch.records.formats.format import Format, whole_small_file
from ecgbatch.records.formats.patient import day, sex_of_word, years, years_between
from ecgbatch.records.formats.units import side_by_side
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import Reason, RecordError

_CODE_BITS = 10
_LAST_CODE = (1 << _CODE_BITS) - 2
_MOST_SAMPLES = 120_000
"""In a lead: two minutes at 1000 Hz. An LZW stream can grow a thousandfold, so something has to end it."""

_STANDARD = ("STD-12", "10-WIRE")
_MICROVOLTS_PER_MILLIVOLT = 1000


def _decode(data: bytes) -> Decoded:
    root = xml.parse(data)
    signal = root.find("dataacquisition/signalcharacteristics")
    waveforms = next(root.iter("parsedwaveforms"), None)
    if waveforms is None:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the file has no parsed waveforms")
    rate = xml.number(waveforms.get("samplespersecond") or xml.text(signal, "samplingrate"), "sampling rate")
    milliseconds = xml.number(waveforms.get("durationperchannel"), "duration of its leads")
    leads = _leads(waveforms, signal)
    digital = _digital(waveforms, leads, round(milliseconds * rate / 1000))
    resolution = waveforms.get("resolution") or xml.text(signal, "resolution") or xml.text(signal, "signalresolution")
    zero = xml.number(waveforms.get("signaloffset") or xml.text(signal, "signaloffset") or "0", "signal offset")
    microvolts = (_without_calibration(digital, rate) - zero) * xml.number(resolution, "resolution")
    patient = root.find("patient/generalpatientdata")
    return Decoded(
        microvolts / _MICROVOLTS_PER_MILLIVOLT,
        rate,
        tuple(leads),
        FORMAT.name,
        age=_age(root, patient),
        sex=sex_of_word(xml.text(patient, "sex")),
        device=_device(root),
    )


def _leads(waveforms: Element, signal: Element | None) -> list[str]:
    if names := (waveforms.get("leadlabels") or "").split():
        count = waveforms.get("numberofleads")
        return names[: int(xml.number(count, "number of leads"))] if count else names
    if (xml.text(signal, "acquisitiontype") or xml.text(signal, "leadset")) in _STANDARD:
        return list(LEADS)
    raise RecordError(Reason.MISSING_LEAD, "the file does not name its leads")


def _digital(waveforms: Element, leads: list[str], length: int) -> NDArray[np.float64]:
    """(length, leads) as the device digitised them."""
    if not 0 < length <= _MOST_SAMPLES:
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"leads of {length} samples")
    content, encoding = xml.text(waveforms), (waveforms.get("dataencoding") or "").lower()
    method = (waveforms.get("compression") or waveforms.get("compressmethod") or "none").lower()
    if method in ("none", "uncompressed") or (waveforms.get("compressflag") or "").lower() == "false":
        if encoding == "plain":
            values = xml.numbers(content)
        elif encoding == "base64":
            values = _words(xml.decoded_base64(content), waveforms)
        else:
            raise RecordError(Reason.UNREADABLE_SIGNAL, "the waveforms are neither plain nor base64")
        _check_holds(len(values) // max(1, len(leads)), length)
        return values[: length * len(leads)].reshape(len(leads), length).T
    if method != "xli" or encoding != "base64":
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the waveforms are compressed in an unknown way")
    compressed = _decompressed(xml.decoded_base64(content), len(leads))
    _check_holds(min(map(len, compressed)) if len(compressed) == len(leads) else 0, length)
    return _explained(side_by_side([lead[:length] for lead in compressed]), leads)


def _words(content: bytes, waveforms: Element) -> NDArray[np.float64]:
    signed = (waveforms.get("signalsigned") or "true").lower() != "false"
    return np.frombuffer(content, "<i2" if signed else "<u2", len(content) // 2).astype(np.float64)


def _check_holds(have: int, claimed: int) -> None:
    if have < claimed:
        raise RecordError(Reason.TRUNCATED, f"the leads hold {have} of {claimed} samples")


def _decompressed(data: bytes, leads: int) -> list[NDArray[np.float64]]:
    """The samples of each lead of an XLI stream, limb leads still unexplained."""
    found: list[NDArray[np.float64]] = []
    at = 0
    while len(found) < leads and at + 8 <= len(data):
        size, _, first = struct.unpack_from("<iHh", data, at)
        at += 8
        if not 0 < size <= len(data) - at:
            raise RecordError(Reason.TRUNCATED, "a lead is longer than what is left of the waveforms")
        found.append(_undifferenced(_lzw(data[at : at + size]), first))
        at += size
    return found


def _lzw(data: bytes) -> bytes:
    """Ten-bit codes, high bit first; strings are learnt until the codes are used up."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    codes = bits[: len(bits) // _CODE_BITS * _CODE_BITS].reshape(-1, _CODE_BITS) @ (1 << np.arange(_CODE_BITS)[::-1])
    strings = [bytes([value]) for value in range(256)]
    parts: list[bytes] = []
    previous, length = b"", 0
    for code in codes.tolist():
        if code > _LAST_CODE:
            break
        if code > len(strings) or (code == len(strings) and not previous):
            raise RecordError(Reason.UNREADABLE_SIGNAL, "a lead's compressed samples are damaged")
        string = strings[code] if code < len(strings) else previous + previous[:1]
        if previous and len(strings) <= _LAST_CODE:
            strings.append(previous + string[:1])
        parts.append(string)
        previous, length = string, length + len(string)
        if length > 2 * _MOST_SAMPLES:
            raise RecordError(Reason.TOO_LARGE, f"a lead has more than {_MOST_SAMPLES} samples")
    return b"".join(parts)


def _undifferenced(content: bytes, first: int) -> NDArray[np.float64]:
    """x[n] = 2 x[n-1] - x[n-2] - d[n-1], where d are the stored words less 64, and d[1] is `first`."""
    half = (len(content) + 1) // 2
    high = np.frombuffer(content, np.int8, half).astype(np.int64)
    low = np.frombuffer(content + b"\0" * (2 * half - len(content)), np.uint8)[half:].astype(np.int64)
    words = high * 256 + low
    if half < 3:
        return words.astype(np.float64)
    bends = np.concatenate(([-first], 64 - words[2:-1]))
    slopes = (words[1] - words[0]) + np.cumsum(bends)
    samples = np.concatenate((words[:2], words[1] + np.cumsum(slopes)))
    if np.abs(samples).max() >= 2**15:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "a lead's compressed samples are damaged")
    return samples.astype(np.float64)


def _explained(digital: NDArray[np.float64], leads: list[str]) -> NDArray[np.float64]:
    """The limb leads with what I and II explain put back."""
    if leads[:6] != list(LEADS[:6]):
        return digital
    i, ii, iii, avr, avl, avf = digital.T[:6]
    iii[:] = ii - i - iii
    avr[:] = -avr - np.floor((i + ii) / 2)
    avl[:] = np.floor((i - iii) / 2) - avl
    avf[:] = np.floor((ii + iii) / 2) - avf
    return digital


def _without_calibration(digital: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Cuts off the second with the calibration pulse, which all leads have at the end."""
    differ = np.flatnonzero((digital != digital[:, :1]).any(axis=1))
    end = int(differ[-1]) + 1 if len(differ) else 0
    has_pulse = end and digital[end:].any()
    return digital[: int(end // rate * rate)] if has_pulse and rate >= 1 else digital


def _age(root: Element, patient: Element | None) -> float | None:
    """As stated, else from the day of birth; `defaultage` is a setting of the device."""
    stated = years(xml.text(patient, "age/years") or None)
    if stated is not None:
        return stated
    born = day(xml.text(patient, "age/dateofbirth") or xml.text(patient, "dateofbirth"))
    acquisition = root.find("dataacquisition")
    return years_between(born, day(acquisition.get("date"))) if acquisition is not None else None


def _device(root: Element) -> str | None:
    machine = root.find("dataacquisition/machine")
    return f"Philips {name}" if (name := xml.text(machine)) else None


FORMAT = Format("philips", lambda head: xml.root_name(head).lower() == "restingecgdata", whole_small_file(_decode))
