"""Schiller's SEMA XML (`…SchillerEDI`): the rhythm, never the averaged beat before it, samples as text."""

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import xml
from ecgbatch.records.formats.format import Format, whole_small_file
from ecgbatch.records.formats.patient import day, sex_of_word, years_between
from ecgbatch.records.formats.units import per_millivolt, side_by_side
from ecgbatch.records.recording import Reason, RecordError


def _decode(data: bytes) -> Decoded:
    root = xml.parse(data)
    rhythm = next((w for w in root.iterfind("eventdata/event/wavedata") if xml.text(w, "type") == "ECG_RHYTHMS"), None)
    channels = rhythm.findall("channel") if rhythm is not None else []
    if rhythm is None or not channels:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the file has no rhythm (ECG_RHYTHMS)")
    if xml.text(rhythm, "resolution/samplerate/exponent") not in ("", "1"):
        raise RecordError(Reason.NO_SAMPLING_RATE, "the sampling rate has an exponent other than 1")
    per_bit = xml.number(xml.text(rhythm, "resolution/yres/unitperbit"), "unitperbit")
    step = per_bit / per_millivolt(xml.text(rhythm, "resolution/yres/units"), xml.text(channels[0], "name"))
    born, recorded = (day(xml.text(root, f"{at}date")) for at in ("patdata/birth", "examdescript/startdatetime/"))
    device = (xml.text(root, f"examdescript/aquiringdevice/hardware/{name}") for name in ("vendor", "model"))
    return Decoded(
        side_by_side([_samples(channel) * step for channel in channels]),
        xml.number(xml.text(rhythm, "resolution/samplerate/value"), "sampling rate"),
        tuple(xml.text(channel, "name") for channel in channels),
        FORMAT.name,
        age=years_between(born, recorded),
        sex=sex_of_word(xml.text(root, "patdata/gender")),
        device=" ".join(filter(None, device)) or None,
    )


def _samples(channel: Element) -> NDArray[np.float64]:
    """A channel's steps. Raises RecordError for those that are written in another way, or fewer than are claimed."""
    if xml.text(channel, "datastype") != "COMMASEPARATE":
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the samples are not written as numbers between commas")
    samples = xml.numbers(xml.text(channel, "data"))
    if xml.number(xml.text(channel, "samplecount") or "0", "samplecount") > len(samples):
        raise RecordError(Reason.TRUNCATED, "a lead holds fewer samples than the file claims")
    return samples


FORMAT = Format(
    "schiller", lambda head: xml.root_name(head).rpartition(".")[2] == "SchillerEDI", whole_small_file(_decode)
)
