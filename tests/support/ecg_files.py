"""Writes one ECG in every format that is read, as devices write it, with what has misled readers before."""

import binascii
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ecg_made import AGE, BORN, RECORDED, UNUSUAL_ORDER, Ecg
from ecg_xml import aecg, cardiosoft, muse, philips, schiller
from numpy.typing import NDArray

from ecgbatch.records.leads import LEADS


def wfdb(folder: Path, name: str, ecg: Ecg) -> None:
    """The same as a WFDB record, of 1 uV a bit."""
    digital = ecg.digital(1)
    lines = [f"{name} 12 {ecg.rate} {len(digital)}"]
    sums = digital.sum(axis=0, dtype=np.int64) % 2**16
    lines += [f"{name}.dat 16 1000(0)/mV 16 0 0 {total} 0 {lead}" for lead, total in zip(LEADS, sums, strict=True)]
    (folder / f"{name}.hea").write_text("\n".join([*lines, f"# Age: {AGE}", "# Sex: Female"]) + "\n")
    (folder / f"{name}.dat").write_bytes(digital.tobytes())


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
