"""GE MUSE XML (`RestingECG`): the rhythm, never the median beat that comes before it."""

import zlib
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import xml
from ecgbatch.records.formats.format import Format, whole_small_file
from ecgbatch.records.formats.patient import day_of, sex_of_word, years, years_between
from ecgbatch.records.formats.units import per_millivolt, side_by_side
from ecgbatch.records.recording import Flag, Reason, RecordError


def _decode(data: bytes) -> Decoded:
    root = xml.parse(data)
    waveform = _rhythm(root)
    base = xml.number(xml.text(waveform, "SampleBase"), "SampleBase")
    exponent = xml.number(xml.text(waveform, "SampleExponent") or "0", "SampleExponent")
    leads = waveform.findall("LeadData")
    if not leads:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the rhythm waveform has no leads")
    contents = [xml.decoded_base64(xml.text(lead, "WaveFormData")) for lead in leads]
    agree = all(_agrees(lead, content) for lead, content in zip(leads, contents, strict=True))
    demographics = root.find("PatientDemographics")
    return Decoded(
        side_by_side([_samples(lead, content) for lead, content in zip(leads, contents, strict=True)]),
        base * 10.0 ** max(-9.0, min(exponent, 9.0)),
        tuple(xml.text(lead, "LeadID") for lead in leads),
        FORMAT.name,
        flags=frozenset() if agree else frozenset({Flag.CHECKSUM_MISMATCH}),
        age=_age(demographics, root.find("TestDemographics")),
        sex=sex_of_word(xml.text(demographics, "Gender")),
        device=_device(root.find("TestDemographics")),
    )


def _rhythm(root: Element) -> Element:
    for waveform in root.findall("Waveform"):
        if xml.text(waveform, "WaveformType").lower() == "rhythm":
            return waveform
    raise RecordError(Reason.UNREADABLE_SIGNAL, "the file has no rhythm waveform")


def _agrees(lead: Element, content: bytes) -> bool:
    """Whether a lead's checksum, the CRC-32 of its bytes, agrees, if there is one."""
    claimed = xml.text(lead, "LeadDataCRC32")
    return not claimed.isdecimal() or zlib.crc32(content) == int(claimed[:10])


def _samples(lead: Element, content: bytes) -> NDArray[np.float64]:
    """In millivolts; the digital values are 16-bit little-endian, without offset."""
    if xml.text(lead, "LeadSampleSize") not in ("", "2") or len(content) % 2:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "a lead's samples are not of two bytes")
    digital = np.frombuffer(content, "<i2")
    claimed = xml.number(xml.text(lead, "LeadSampleCountTotal") or str(len(digital)), "LeadSampleCountTotal")
    if claimed > len(digital):
        raise RecordError(Reason.TRUNCATED, f"a lead holds {len(digital)} samples, fewer than it claims")
    per_bit = xml.number(xml.text(lead, "LeadAmplitudeUnitsPerBit"), "LeadAmplitudeUnitsPerBit")
    unit = per_millivolt(xml.text(lead, "LeadAmplitudeUnits"), xml.text(lead, "LeadID"))
    return digital[: max(0, int(claimed))] * (per_bit / unit)


def _age(patient: Element | None, test: Element | None) -> float | None:
    """As stated, else from the day of birth, both days as `MM-DD-YYYY`."""
    stated = years(xml.text(patient, "PatientAge") or None, xml.text(patient, "AgeUnits") or None)
    if stated is not None:
        return stated
    born, recorded = xml.text(patient, "DateofBirth"), xml.text(test, "AcquisitionDate")
    return years_between(day_of(born[6:], born[:2], born[3:5]), day_of(recorded[6:], recorded[:2], recorded[3:5]))


def _device(test: Element | None) -> str | None:
    parts = [xml.text(test, name) for name in ("AcquisitionDevice", "AcquisitionSoftwareVersion")]
    return " ".join(filter(None, parts)) or None


FORMAT = Format("muse", lambda head: xml.root_name(head) == "RestingECG", whole_small_file(_decode))
