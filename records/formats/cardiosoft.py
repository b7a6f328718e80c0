"""GE CardioSoft XML (`CardiologyXML`): the strip of the resting ECG, samples as text."""

from datetime import date
from xml.etree.ElementTree import Element

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import xml
from ecgbatch.records.formats.format import Format, whole_small_file
from ecgbatch.records.formats.patient import day_of, sex_of_word, years, years_between
from ecgbatch.records.formats.units import per_millivolt, side_by_side
from ecgbatch.records.recording import Reason, RecordError


def _decode(data: bytes) -> Decoded:
    root = xml.parse(data)
    strip = root.find("StripData")
    leads = strip.findall("WaveformData") if strip is not None else []
    if strip is None or not leads:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the file has no strip of the resting ECG")
    resolution = strip.find("Resolution")
    unit = resolution.get("units", "") if resolution is not None else ""
    factor = xml.number(xml.text(resolution), "resolution") / per_millivolt(unit.lower().removesuffix("perlsb"), "")
    samples = [xml.numbers(xml.text(lead)) * factor for lead in leads]
    claimed = xml.text(strip, "ChannelSampleCountTotal")
    if claimed and xml.number(claimed, "ChannelSampleCountTotal") > min(map(len, samples)):
        raise RecordError(Reason.TRUNCATED, "a lead holds fewer samples than the file claims")
    device = (xml.text(root, f"ClinicalInfo/DeviceInfo/{name}") for name in ("Desc", "SoftwareVer"))
    return Decoded(
        side_by_side(samples),
        _rate(strip),
        tuple(lead.get("lead", "") for lead in leads),
        FORMAT.name,
        age=_age(root),
        sex=sex_of_word(xml.text(root, "PatientInfo/Gender")),
        device=" ".join(filter(None, device)) or None,
    )


def _rate(strip: Element) -> float:
    rate = strip.find("SampleRate")
    if rate is not None and rate.get("units", "Hz").lower() != "hz":
        raise RecordError(Reason.NO_SAMPLING_RATE, "the sampling rate is not in Hz")
    return xml.number(xml.text(rate), "sampling rate")


def _age(root: Element) -> float | None:
    age = root.find("PatientInfo/Age")
    stated = years(xml.text(age) or None, age.get("units")) if age is not None else None
    if stated is not None:
        return stated
    return years_between(_day(root, "PatientInfo/BirthDateTime"), _day(root, "ObservationDateTime"))


def _day(root: Element, path: str) -> date | None:
    return day_of(*(xml.text(root, f"{path}/{part}") for part in ("Year", "Month", "Day")))


FORMAT = Format("cardiosoft", lambda head: xml.root_name(head) == "CardiologyXML", whole_small_file(_decode))
