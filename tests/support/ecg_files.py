"""Writes one ECG in every format that is read, as devices write it, with what has misled readers before."""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records import synthetic
from ecgbatch.records.leads import LEADS

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
UNUSUAL_ORDER = (*INDEPENDENT, "III", "aVR", "aVL", "aVF")
BORN, RECORDED = date(1953, 1, 1), date(2002, 11, 22)
AGE, SEX = 49, 1


class Ecg(NamedTuple):
    """(T, 12) millivolts, samples a second, and the microvolts of a step where it is not a device's own."""

    millivolts: NDArray[np.float64]
    rate: int
    step: float | None = None

    def digital(self, step: float, leads: tuple[str, ...] = LEADS) -> NDArray[np.int16]:
        """(T, n) in steps of so many microvolts."""
        columns = [LEADS.index(lead) for lead in leads]
        return np.rint(self.millivolts[:, columns] * 1000 / step).astype("<i2")


def make(rate: int = 500, seed: int = 0) -> Ecg:
    """A synthetic ECG of ten seconds."""
    rng = np.random.default_rng(seed)
    return Ecg(synthetic._record(rate, "ventricular extrasystoles", 70, rng), rate)


def wfdb(folder: Path, name: str, ecg: Ecg) -> None:
    """The same as a WFDB record, of 1 uV a bit."""
    digital = ecg.digital(1)
    lines = [f"{name} 12 {ecg.rate} {len(digital)}"]
    sums = digital.sum(axis=0, dtype=np.int64) % 2**16
    lines += [f"{name}.dat 16 1000(0)/mV 16 0 0 {total} 0 {lead}" for lead, total in zip(LEADS, sums, strict=True)]
    (folder / f"{name}.hea").write_text("\n".join([*lines, f"# Age: {AGE}", "# Sex: Female"]) + "\n")
    (folder / f"{name}.dat").write_bytes(digital.tobytes())


# ------------------------------------------------------------------------------------------ XML


def muse(ecg: Ecg) -> bytes:
    """Eight leads, the median beat before the rhythm."""
    step = ecg.step or 4.88

    def waveform(kind: str, digital: NDArray[np.int16]) -> str:
        leads = "".join(
            f"<LeadData><LeadByteCountTotal>{2 * len(digital)}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{len(digital)}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>{step}</LeadAmplitudeUnitsPerBit>"
            "<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
            f"<LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize>"
            f"<LeadDataCRC32>{zlib.crc32(values.tobytes())}</LeadDataCRC32>"
            f"<WaveFormData>\n{base64.encodebytes(values.tobytes()).decode()}</WaveFormData></LeadData>"
            for lead, values in zip(INDEPENDENT, digital.T.copy(), strict=True)
        )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>8</NumberofLeads>"
            f"<SampleBase>{ecg.rate}</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform>"
        )

    digital = ecg.digital(step, INDEPENDENT)
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>'
        f"<PatientDemographics><PatientLastName>DOE</PatientLastName><PatientAge>{AGE}</PatientAge>"
        "<AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender></PatientDemographics>"
        "<TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice></TestDemographics>"
        f"{waveform('Median', -3 * digital[:600])}{waveform('Rhythm', digital)}</RestingECG>"
    ).encode("latin-1")


def aecg(ecg: Ecg) -> bytes:
    """III and the augmented leads last, and a derived beat below the rhythm."""
    unit = ecg.step or 2.5

    def sequences(digital: NDArray[np.int16]) -> str:
        step = f'<head value="20021122091000"/><increment value="{1 / ecg.rate}" unit="s"/>'
        leads = "".join(
            f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value xsi:type="SLIST_PQ">'
            f'<origin value="0" unit="uV"/><scale value="{unit}" unit="uV"/>'
            f"<digits>{' '.join(map(str, values))}</digits></value></sequence></component>"
            for lead, values in zip(UNUSUAL_ORDER, digital.T.tolist(), strict=True)
        )
        return (
            '<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/>'
            f'<value xsi:type="GLIST_TS">{step}</value></sequence></component>{leads}</sequenceSet></component>'
        )

    digital = ecg.digital(unit, UNUSUAL_ORDER)
    derived = f'<derivedSeries><code code="REPRESENTATIVE_BEAT"/>{sequences(-3 * digital[:600])}</derivedSeries>'
    return (
        "<!-- a comment comes first -->"
        '<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'<effectiveTime><center value="{RECORDED:%Y%m%d}"/></effectiveTime>'
        '<subjectDemographicPerson><name>Doe</name><administrativeGenderCode code="F"/>'
        f'<birthTime value="{BORN:%Y%m%d}"/></subjectDemographicPerson>'
        f'<component><series><code code="RHYTHM"/>'
        "<author><seriesAuthor><manufacturedSeriesDevice><manufacturerModelName>ELI250</manufacturerModelName>"
        "</manufacturedSeriesDevice></seriesAuthor></author>"
        f"{sequences(digital)}<derivation>{derived}</derivation></series></component></AnnotatedECG>"
    ).encode()


def cardiosoft(ecg: Ecg) -> bytes:
    """The median beat before the strip."""
    step = ecg.step or 5

    def samples(tag: str, digital: NDArray[np.int16]) -> str:
        leads = "".join(
            f'<WaveformData lead="{lead}">\t\t{",".join(map(str, values))}</WaveformData>'
            for lead, values in zip(LEADS, digital.T.tolist(), strict=True)
        )
        return (
            f'<{tag}><NumberOfLeads>12</NumberOfLeads><SampleRate units="Hz">{ecg.rate}</SampleRate>'
            f"<ChannelSampleCountTotal>{len(digital)}</ChannelSampleCountTotal>"
            f'<Resolution units="uVperLsb">{step}</Resolution>{leads}</{tag}>'
        )

    def day(tag: str, of: date) -> str:
        return f"<{tag}><Day>{of.day}</Day><Month>{of.month}</Month><Year>{of.year}</Year></{tag}>"

    digital = ecg.digital(step)
    return (
        f'<?xml version="1.0" encoding="ISO8859-1" ?><CardiologyXML>{day("ObservationDateTime", RECORDED)}'
        "<ClinicalInfo><DeviceInfo><Desc>CardioSoft</Desc><SoftwareVer>V6.71</SoftwareVer></DeviceInfo></ClinicalInfo>"
        f"<PatientInfo>{day('BirthDateTime', BORN)}<Gender>FEMALE</Gender></PatientInfo>"
        f"<RestingECGMeasurements>{samples('MedianSamples', -3 * digital[:600])}</RestingECGMeasurements>"
        f"{samples('StripData', digital)}</CardiologyXML>"
    ).encode("latin-1")


def schiller(ecg: Ecg) -> bytes:
    """The averaged beat before the rhythm."""
    step = ecg.step or 1

    def waves(kind: str, digital: NDArray[np.int16]) -> str:
        channels = "".join(
            f"<channel><name>{lead}</name><data>{','.join(map(str, values))}</data>"
            f"<datastype>COMMASEPARATE</datastype><samplecount>{len(digital)}</samplecount></channel>"
            for lead, values in zip(LEADS, digital.T.tolist(), strict=True)
        )
        return (
            f"<wavedata><type>{kind}</type><resolution><samplerate><exponent>1</exponent><value>{ecg.rate}</value>"
            f"</samplerate><yres><unitperbit>{step:.1f}</unitperbit><units>UV</units></yres></resolution>"
            f"{channels}<channelconfiguration>ECG_STANDARD</channelconfiguration></wavedata>"
        )

    digital = ecg.digital(step)
    return (
        '\N{ZERO WIDTH NO-BREAK SPACE}<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<com.xiriuz.sema.xml.schillerEDI.SchillerEDI><patdata><lastname>Doe</lastname>"
        f"<birthdate>{BORN:%Y%m%d}</birthdate><gender>FEMALE</gender></patdata><examdescript>"
        f"<startdatetime><date>{RECORDED:%Y%m%d}</date><time>140610000</time></startdatetime><aquiringdevice>"
        "<hardware><vendor>Schiller</vendor><type>AT-110</type><model>AT-110</model></hardware></aquiringdevice>"
        f"</examdescript><eventdata><event>{waves('ECG_AVERAGES', -3 * digital[:600])}"
        f"{waves('ECG_RHYTHMS', digital)}</event></eventdata></com.xiriuz.sema.xml.schillerEDI.SchillerEDI>"
    ).encode()


def philips(ecg: Ecg) -> bytes:
    """UTF-16, compressed, an eleventh second with a calibration pulse, and a default age."""
    step = ecg.step or 5
    digital = ecg.digital(step).astype(np.int64)
    pulse = np.zeros((ecg.rate, 12), np.int64)
    pulse[ecg.rate // 2 :] = 200
    digital = np.concatenate((digital, pulse))
    i, ii, iii, avr, avl, avf = digital.T[:6].copy()
    stored = digital.T.copy()
    stored[2] = ii - i - iii
    stored[3] = -avr - (i + ii) // 2
    stored[4] = (i - iii) // 2 - avl
    stored[5] = (ii + iii) // 2 - avf
    waveforms = base64.b64encode(b"".join(map(_xli, stored))).decode()
    return (
        '<?xml version="1.0" encoding="utf-16"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        f'<dataacquisition date="{RECORDED}"><machine>PageWriter</machine><signalcharacteristics>'
        "<acquisitiontype>10-WIRE</acquisitiontype></signalcharacteristics></dataacquisition>"
        '<patient><generalpatientdata><name><lastname>DOE</lastname></name><age defaultage="20">'
        f"<dateofbirth>{BORN}</dateofbirth></age><sex>Female</sex></generalpatientdata></patient>"
        f'<waveforms><parsedwaveforms dataencoding="Base64" compression="XLI" numberofleads="12" '
        f'leadlabels="{" ".join(LEADS)}" durationperchannel="11000" samplespersecond="{ecg.rate}" resolution="{step}">'
        f"{waveforms}</parsedwaveforms></waveforms></restingecgdata>"
    ).encode("utf-16")


def _xli(samples: NDArray[np.int64]) -> bytes:
    bends = 2 * samples[1:-1] - samples[:-2] - samples[2:]
    words = np.concatenate((samples[:2], bends[1:] + 64, [64])).astype(np.int64) & 0xFFFF
    content = (words >> 8).astype(np.uint8).tobytes() + (words & 0xFF).astype(np.uint8).tobytes()
    chunk = _lzw(content)
    return struct.pack("<iHh", len(chunk), 1, bends[0]) + chunk


def _lzw(content: bytes) -> bytes:
    table = {bytes([value]): value for value in range(256)}
    codes, string = [], b""
    for byte in content:
        longer = string + bytes([byte])
        if longer in table:
            string = longer
            continue
        codes.append(table[string])
        if len(table) <= 1022:
            table[longer] = len(table)
        string = bytes([byte])
    bits = "".join(f"{code:010b}" for code in [*codes, table[string], 1023])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


# ------------------------------------------------------------------------------------------ binary


def dicom(ecg: Ecg, *, hemodynamic: bool = False, meaning_only: bool = False) -> bytes:
    """A derived beat before the rhythm; in a hemodynamic waveform a pressure beside the leads."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    numbers = (1, 2, 61, 62, 63, 64, *range(3, 9))
    step = ecg.step or 2.5

    def item(**values: Any) -> Dataset:
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    def channel(number: int, meaning: str, sensitivity: str, unit: str) -> Dataset:
        code = "" if meaning_only else f"2:{number}"
        return item(
            ChannelSourceSequence=[item(CodeValue=code, CodingSchemeDesignator="MDC", CodeMeaning=meaning)],
            ChannelSensitivity=sensitivity,
            ChannelSensitivityUnitsSequence=[item(CodeValue=unit, CodingSchemeDesignator="UCUM")],
            ChannelSensitivityCorrectionFactor="1",
            ChannelBaseline="0",
            WaveformBitsStored=16,
        )

    def group(digital: NDArray[np.int16], originality: str) -> Dataset:
        channels = [
            channel(n, f"Lead {lead} (Einthoven)", str(step), "uV") for n, lead in zip(numbers, LEADS, strict=True)
        ]
        if hemodynamic:
            digital = np.concatenate((digital, digital[:, :1]), axis=1)
            channels.append(channel(900, "Aortic pressure", "1", "mm[Hg]"))
        return item(
            WaveformOriginality=originality,
            NumberOfWaveformChannels=digital.shape[1],
            NumberOfWaveformSamples=len(digital),
            SamplingFrequency=str(ecg.rate),
            ChannelDefinitionSequence=channels,
            WaveformBitsAllocated=16,
            WaveformSampleInterpretation="SS",
            WaveformData=digital.tobytes(),
        )

    digital = ecg.digital(step)
    storage = UID(f"1.2.840.10008.5.1.4.1.1.9.{'2.1' if hemodynamic else '1.1'}")
    file = item(
        SOPClassUID=storage,
        SOPInstanceUID=UID("1.2.3"),
        PatientName="DOE^JANE",
        PatientAge=f"{AGE:03d}Y",
        PatientSex="F",
        Manufacturer="Maker",
        ManufacturerModelName="Model",
        WaveformSequence=[group(-3 * digital[:600], "DERIVED"), group(digital, "ORIGINAL")],
    )
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = storage
    file.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made = io.BytesIO()
    file.save_as(made, enforce_file_format=True)
    return made.getvalue()


def edf(ecg: Ecg, *, annotated: bool = False) -> bytes:
    """In microvolts, with a channel of another rate beside the leads."""
    import edfio

    signals = [
        edfio.EdfSignal(
            values * 1000, ecg.rate, label=f"ECG {lead}", physical_dimension="uV", physical_range=(-10000, 10000)
        )
        for lead, values in zip(LEADS, ecg.millivolts.T, strict=True)
    ]
    breath = edfio.EdfSignal(np.zeros(10), 1, label="Resp", physical_dimension="L", physical_range=(-1, 1))
    patient = edfio.Patient(sex="F", birthdate=BORN, name="Doe")
    made = io.BytesIO()
    recording = edfio.Recording(startdate=RECORDED, equipment_code="Recorder")
    notes = [edfio.EdfAnnotation(1, None, "a beat")] if annotated else None
    edfio.Edf([*signals, breath], annotations=notes, patient=patient, recording=recording).write(made)
    return made.getvalue()


def bdf(ecg: Ecg) -> bytes:
    """In millivolts."""
    import edfio

    signals = [
        edfio.BdfSignal(values, ecg.rate, label=lead, physical_dimension="mV", physical_range=(-10, 10))
        for lead, values in zip(LEADS, ecg.millivolts.T, strict=True)
    ]
    patient = edfio.Patient(sex="F", birthdate=BORN)
    made = io.BytesIO()
    edfio.Bdf(signals, patient=patient, recording=edfio.Recording(startdate=RECORDED)).write(made)
    return made.getvalue()


def ishne(ecg: Ecg) -> bytes:
    """With a comment between header and samples, and a number of samples that is not to be trusted."""
    header, comment = bytearray(522), b"comment"
    step = ecg.step or 2.5
    digital = ecg.digital(step, UNUSUAL_ORDER)
    codes = [5 + LEADS.index(lead) for lead in UNUSUAL_ORDER]
    struct.pack_into("<iiii", header, 10, len(comment), 99_999_999, 522, 522 + len(comment))
    header[28:31] = b"Doe"
    struct.pack_into("<hh3h3h", header, 128, 2, 0, BORN.day, BORN.month, BORN.year, 22, 11, 2002)
    struct.pack_into("<h12h12h12h", header, 156, 12, *codes, *[0] * 12, *[int(1000 * step)] * 12)
    header[232:238] = b"Holter"
    struct.pack_into("<h", header, 272, ecg.rate)
    head = bytes(header[10:]) + comment
    return b"ISHNE1.0" + struct.pack("<H", binascii.crc_hqx(head, 0xFFFF)) + head + digital.tobytes()


def scp(ecg: Ecg, *, huffman: bool = True, from_zero: bool = False, subtracted: bool = False) -> bytes:
    """Second differences; pointers from 1, or `from_zero`; perhaps with a reference beat `subtracted`."""
    step = ecg.step or 2.5
    digital = ecg.digital(step, UNUSUAL_ORDER).astype(np.int64)
    count = len(digital)
    numbers = (1, 2, *range(3, 9), 61, 62, 63, 64)
    tags = {4: struct.pack("<HB", AGE, 1), 8: b"\x02", 0: b"Doe\0", 14: bytes(8) + b"ELI2\0\0" + bytes(40)}
    patient = b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in tags.items()) + b"\xff\0\0"
    sections = {1: patient, 3: bytes([12, 4 | subtracted])}
    sections[3] += b"".join(struct.pack("<IIB", 1, count, number) for number in numbers)
    if subtracted:
        beat = digital[100:400].copy()
        places = [(101, 250, 400), (1001, 1150, 1300)]
        for first, _, last in places:
            digital[first - 1 : last] -= beat
        milliseconds = len(beat) * 1000 // ecg.rate
        sections[4] = struct.pack("<3H", milliseconds, 150, 2) + b"".join(struct.pack("<H3I", 0, *p) for p in places)
        sections[5] = _scp_waveform(beat, ecg.rate, step, huffman)
    if huffman:
        sections[2] = struct.pack("<H", 19999)
    sections[6] = _scp_waveform(digital, ecg.rate, step, huffman)
    pointers, body = b"", b""
    start = 6 + 16 + 12 * 10
    for number in range(1, 12):
        content = sections.get(number, b"")
        size = 16 + len(content) + len(content) % 2 if content else 0
        pointers += struct.pack("<HII", number, size, start + len(body) + (not from_zero) if content else 0)
        if content:
            body += _scp_section(number, content + bytes(len(content) % 2))
    pointers = struct.pack("<HII", 0, 16 + 120, 6 if from_zero else 7) + pointers
    rest = struct.pack("<I", start + len(body)) + _scp_section(0, pointers) + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _scp_section(number: int, content: bytes) -> bytes:
    rest = struct.pack("<HIBB6s", number, 16 + len(content), 20, 20, b"SCPECG") + content
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _scp_waveform(digital: NDArray[np.int64], rate: int, step: float, huffman: bool) -> bytes:
    values = digital.copy()
    values[2:] = digital[2:] - 2 * digital[1:-1] + digital[:-2]
    leads = [_scp_bits(lead.tolist()) if huffman else lead.astype("<i2").tobytes() for lead in values.T]
    sizes = struct.pack("<12H", *(len(lead) & 0xFFFF for lead in leads))
    return struct.pack("<HHBB", int(1000 * step), 1_000_000 // rate, 2, 0) + sizes + b"".join(leads)


def _scp_bits(values: list[int]) -> bytes:
    parts = []
    for value in values:
        if value == 0:
            parts.append("0")
        elif abs(value) <= 8:
            parts.append("1" * abs(value) + "0" + ("1" if value < 0 else "0"))
        elif -128 <= value < 128:
            parts.append("1111111110" + f"{value & 0xFF:08b}")
        else:
            parts.append("1111111111" + f"{value & 0xFFFF:016b}")
    bits = "".join(parts)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


# ------------------------------------------------------------------------------------------ arrays


def cpsc2018(ecg: Ecg) -> bytes:
    """A struct of sex, age and data, compressed."""
    import scipy.io

    made = io.BytesIO()
    struct_ecg = {"sex": "Female", "age": AGE, "data": ecg.millivolts.T}
    scipy.io.savemat(made, {"ECG": struct_ecg}, do_compression=True)
    return made.getvalue()


def sph(ecg: Ecg) -> bytes:
    """SPH's: one array, of half precision."""
    import h5py

    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        file["ecg"] = ecg.millivolts.T.astype(np.float16)
    return made.getvalue()


def code15(path: Path, ecgs: list[Ecg], ids: list[int], **options: Any) -> None:
    """A part of CODE-15: recordings amid zeros, and an empty last row."""
    import h5py

    tracings = np.zeros((len(ecgs) + 1, 4096, 12), np.float32)
    for row, ecg in enumerate(ecgs):
        before = (4096 - len(ecg.millivolts)) // 2
        tracings[row, before : before + len(ecg.millivolts)] = ecg.millivolts
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=tracings, **options)
        file["exam_id"] = np.array([*ids, 0])


def npy(ecg: Ecg) -> bytes:
    """An array of one record."""
    made = io.BytesIO()
    np.save(made, ecg.millivolts)
    return made.getvalue()


def csv(ecg: Ecg) -> bytes:
    """With a first line of names, and a column that is no lead."""
    rows = (f"{number}," + ",".join(f"{value:.4f}" for value in row) for number, row in enumerate(ecg.millivolts))
    return "\n".join([",".join(("time", *LEADS)), *rows, ""]).encode()


ARCHIVE_TOML = 'rate = {rate}\nunits = "mV"\nleads = ["' + '", "'.join(LEADS) + '"]\n'

WRITERS: dict[str, Callable[[Ecg], bytes]] = {
    "muse.xml": muse,
    "aecg.xml": aecg,
    "cardiosoft.xml": cardiosoft,
    "schiller.xml": schiller,
    "philips.xml": philips,
    "dicom.dcm": dicom,
    "edf.edf": edf,
    "bdf.bdf": bdf,
    "ishne.ecg": ishne,
    "scp.scp": scp,
    "cpsc2018.mat": cpsc2018,
    "sph.h5": sph,
    "npy.npy": npy,
    "csv.csv": csv,
}
"""By a name for the file."""
