"""What has misled readers of each format."""

import copy
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ecg_files import WRITERS, csv, dicom, edf, ishne, scp
from ecg_made import AGE, INDEPENDENT, Ecg, make
from ecg_xml import aecg, cardiosoft, muse, philips

from ecgbatch.records import formats
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Flag, Reason, RecordError, Recording

Reads = Callable[[bytes], Recording]


@pytest.fixture
def reads(tmp_path: Path) -> Reads:
    def of(content: bytes) -> Recording:
        (tmp_path / "file").write_bytes(content)
        return read(tmp_path, "file")

    return of


def reason(reads: Reads, content: bytes) -> Reason:
    with pytest.raises(RecordError) as caught:
        reads(content)
    return caught.value.reason


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "csv.csv"])
def test_a_file_is_known_by_its_content_alone(folder: Path, tmp_path: Path, name: str) -> None:
    found = [f.name for f in formats.FORMATS if f.recognises((folder / name).read_bytes()[:4096])]
    assert len(found) == 1


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(5000), b"%PDF-1.7", b"<html><body>", b"a,b,c\n1,2,3\n", "ä".encode() * 3000], ids=repr
)
def test_other_files_are_none(content: bytes) -> None:
    assert formats.format_of(content[:4096]) is None


# ------------------------------------------------------------------------------------------ MUSE


def test_muse_at_250_hz(reads: Reads) -> None:
    ecg = make(250)
    assert np.abs(reads(muse(ecg)).signal - reads(aecg(ecg)).signal).max() < 0.006


def test_muse_with_everything_about_the_person_taken_out(reads: Reads, ecg: Ecg) -> None:
    content = muse(ecg)
    start, end = content.index(b"<PatientDemographics>"), content.index(b"<TestDemographics>")
    found = reads(content[:start] + content[end:])
    assert (found.age, found.sex) == (None, None)


def test_muse_age_from_days_and_in_months(reads: Reads, ecg: Ecg) -> None:
    content = muse(ecg).replace(b"YEARS", b"MONTHS")
    assert reads(content).age == pytest.approx(49 / 12)
    content = content.replace(b"<PatientAge>49</PatientAge>", b"<DateofBirth>12-31-1953</DateofBirth>")
    assert reads(content).age is None
    content = content.replace(
        b"<AcquisitionDevice>", b"<AcquisitionDate>12-30-2003</AcquisitionDate><AcquisitionDevice>"
    )
    assert reads(content).age == 49


def test_muse_checksum(reads: Reads, ecg: Ecg) -> None:
    content = muse(ecg)
    start = content.rindex(b"<LeadDataCRC32>") + len(b"<LeadDataCRC32>")
    changed = content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :]
    assert Flag.CHECKSUM_MISMATCH in reads(changed).flags


def test_muse_without_a_rhythm(reads: Reads, ecg: Ecg) -> None:
    assert reason(reads, muse(ecg).replace(b">Rhythm<", b">Median<")) is Reason.UNREADABLE_SIGNAL


def test_muse_with_a_shorter_lead_than_it_claims(reads: Reads, ecg: Ecg) -> None:
    claimed = b"<LeadSampleCountTotal>%d<"
    assert reason(reads, muse(ecg).replace(claimed % 5000, claimed % 5001)) is Reason.TRUNCATED


def test_units_that_are_none(reads: Reads, ecg: Ecg) -> None:
    assert reason(reads, muse(ecg).replace(b"MICROVOLTS", b"COUNTS")) is Reason.UNSUPPORTED_UNITS
    assert (
        reason(reads, aecg(ecg).replace(b'scale value="2.5" unit="uV"', b'scale value="2.5"'))
        is Reason.UNSUPPORTED_UNITS
    )


def test_xml_that_is_not_in_the_encoding_it_names(reads: Reads, ecg: Ecg) -> None:
    content = muse(ecg).replace(b"ISO-8859-1", b"UTF-8").replace(b"DOE", b"D\xd6E")
    assert reads(content).age == 49


# ------------------------------------------------------------------------------------------ other XML


@pytest.mark.parametrize("code", ["UN", "", "O"])
def test_aecg_sex_that_is_not_told(reads: Reads, ecg: Ecg, code: str) -> None:
    content = aecg(ecg).replace(
        b'administrativeGenderCode code="F"', f'administrativeGenderCode code="{code}"'.encode()
    )
    assert reads(content).sex is None
    assert (
        reads(content.replace(b'administrativeGenderCode code=""', b'administrativeGenderCode nullFlavor="UNK"')).sex
        is None
    )


def test_aecg_reported_age(reads: Reads, ecg: Ecg) -> None:
    reported = b'<relatedObservation><code code="21612-7"/><value value="46" unit="a"/></relatedObservation>'
    content = aecg(ecg).replace(
        b"<component><series>", b"<controlVariable>" + reported + b"</controlVariable><component><series>"
    )
    assert reads(content).age == 49
    assert reads(content.replace(b"birthTime", b"someTime")).age == 46


def test_aecg_that_has_a_derived_series_alone(reads: Reads, ecg: Ecg) -> None:
    assert reason(reads, aecg(ecg).replace(b"RHYTHM", b"REPRESENTATIVE_BEAT")) is Reason.UNREADABLE_SIGNAL


@pytest.mark.parametrize(("gap", "samples"), [(0, 1000), (3, 700)])
def test_aecg_in_sets_that_follow_on_each_other(reads: Reads, ecg: Ecg, gap: int, samples: int) -> None:
    """As devices write it that store a page of so many seconds at a time; a gap ends a stretch."""
    parts = [aecg(Ecg(ecg.millivolts[start:end], ecg.rate)).decode() for start, end in ((0, 1500), (1500, 5000))]
    parts[1] = parts[1].replace('"20021122091000"', f'"2002112209{1000 + gap + 3}.000"')
    first, second = (part[part.index("<component><sequenceSet>") : part.index("<derivation>")] for part in parts)
    found = reads(parts[0].replace(first, second + first).encode())
    assert len(found.signal) == samples
    if gap == 0:
        assert np.array_equal(found.signal, reads(aecg(ecg)).signal)


def test_xml_after_an_empty_line(reads: Reads, ecg: Ecg) -> None:
    assert np.array_equal(reads(b"\r\n" + muse(ecg)).signal, reads(muse(ecg)).signal)


def test_csv_with_decimal_commas(tmp_path: Path, reads: Reads, ecg: Ecg) -> None:
    (tmp_path / "archive.toml").write_text('rate = 500\nunits = "mV"\n')
    found = reads(csv(ecg).replace(b",", b";").replace(b".", b","))
    assert np.array_equal(found.signal, reads(csv(ecg)).signal)


def test_aecg_in_milliseconds_and_millivolts(reads: Reads, ecg: Ecg) -> None:
    content = aecg(ecg)
    other = content.replace(b'value="0.002" unit="s"', b'value="2" unit="ms"').replace(
        b'scale value="2.5" unit="uV"', b'scale value="0.0025" unit="mV"'
    )
    assert other != content
    assert np.abs(reads(other).signal - reads(content).signal).max() < 1e-9


def test_cardiosoft_age_as_stated(reads: Reads, ecg: Ecg) -> None:
    assert reads(cardiosoft(ecg).replace(b"<PatientInfo>", b'<PatientInfo><Age units="years">52</Age>')).age == 52


def test_philips_default_age_is_none_and_shifted_days_are(reads: Reads, ecg: Ecg) -> None:
    content = philips(ecg).decode("utf-16")
    assert reads(content.replace("<dateofbirth>1953-01-01</dateofbirth>", "").encode("utf-16")).age is None
    assert reads(content.replace("1953-01-01", "2053-01-01").encode("utf-16")).age is None
    assert reads(content.replace("1953-01-01", "1802-01-01").encode("utf-16")).age == 200


def test_philips_with_fifteen_leads_uncompressed_as_text(reads: Reads, ecg: Ecg) -> None:
    content = philips(ecg).decode("utf-16")
    start, end = content.index("<parsedwaveforms"), content.index("</parsedwaveforms>")
    digital = np.concatenate((ecg.digital(5), ecg.digital(5)[:, :3]), axis=1)
    labels = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6 V3R V4R V7"
    plain = (
        f'<parsedwaveforms dataencoding="Plain" numberofleads="15" leadlabels="{labels}" durationperchannel="10000" '
        f'samplespersecond="500" resolution="5">{" ".join(map(str, digital.T.ravel()))}'
    )
    found = reads((content[:start] + plain + content[end:]).encode("utf-16"))
    assert np.abs(found.signal - reads(philips(ecg)).signal).max() < 1e-9


# ------------------------------------------------------------------------------------------ binary


def test_dicom_with_leads_recorded_one_after_the_other(reads: Reads, ecg: Ecg) -> None:
    import pydicom

    file = pydicom.dcmread(io.BytesIO(dicom(ecg)))
    rhythm = file.WaveformSequence[1]
    digital = np.frombuffer(rhythm.WaveformData, "<i2").reshape(-1, 12)
    groups = []
    for number in range(4):
        group = copy.deepcopy(rhythm)
        group.ChannelDefinitionSequence = list(group.ChannelDefinitionSequence)[3 * number : 3 * number + 3]
        group.NumberOfWaveformChannels = 3
        group.WaveformData = digital[:, 3 * number : 3 * number + 3].tobytes()
        groups.append(group)
    file.WaveformSequence = groups
    together, apart = io.BytesIO(), io.BytesIO()
    file.save_as(together)
    for number, group in enumerate(groups):
        group.MultiplexGroupTimeOffset = 2500 * number
    file.save_as(apart)
    assert np.abs(reads(together.getvalue()).signal - reads(dicom(ecg)).signal).max() < 1e-9
    assert reason(reads, apart.getvalue()) is Reason.MISSING_LEAD


@pytest.mark.parametrize(("padding", "is_missing"), [(-32768, True), (0, False)])
def test_dicom_padding_is_missing_but_zero_is_a_sample(reads: Reads, ecg: Ecg, padding: int, is_missing: bool) -> None:
    import pydicom

    file = pydicom.dcmread(io.BytesIO(dicom(ecg)))
    rhythm = file.WaveformSequence[1]
    digital = np.frombuffer(rhythm.WaveformData, "<i2").reshape(-1, 12).copy()
    digital[1000:1010] = padding
    rhythm.WaveformData = digital.tobytes()
    rhythm.add_new("WaveformPaddingValue", "OW", struct.pack("<h", padding))
    made = io.BytesIO()
    file.save_as(made)
    assert (Flag.GAP_FILLED in reads(made.getvalue()).flags) is is_missing


def test_dicom_of_an_eeg_is_no_ecg(reads: Reads, ecg: Ecg) -> None:
    content = dicom(ecg, meaning_only=True)
    for number in b"123456":
        content = content.replace(b"Lead V%c (" % number, b"Lead C%c (" % number)
    assert np.array_equal(reads(content).signal, reads(dicom(ecg)).signal)
    assert reason(reads, content.replace(b"Lead aVR (", b"Lead Cz  (")) is Reason.MISSING_LEAD


def test_dicom_without_a_waveform(reads: Reads, ecg: Ecg) -> None:
    import pydicom

    file = pydicom.dcmread(io.BytesIO(dicom(ecg)))
    del file.WaveformSequence
    made = io.BytesIO()
    file.save_as(made)
    assert reason(reads, made.getvalue()) is Reason.UNREADABLE_SIGNAL


def deflated(content: bytes) -> bytes:
    """A DICOM file whose data set is deflated."""
    (length,) = struct.unpack_from("<I", content, 140)
    plain, packed = b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99"
    head = content[: 144 + length].replace(plain, packed)
    head = head[:140] + struct.pack("<I", len(head) - 144) + head[144:]
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return head + packing.compress(content[144 + length :]) + packing.flush()


def test_deflated_dicom(reads: Reads, ecg: Ecg) -> None:
    found = reads(deflated(dicom(ecg)))
    assert np.array_equal(found.signal, reads(dicom(ecg)).signal)
    assert (found.age, found.device) == (AGE, "Maker Model")
    assert reason(reads, deflated(dicom(ecg))[:-500]) is Reason.TRUNCATED
    assert reason(reads, deflated(dicom(ecg) + bytes(40 << 20))) is Reason.TOO_LARGE


def test_a_device_is_what_can_be_stored_and_shown(reads: Reads, ecg: Ecg) -> None:
    assert reads(dicom(ecg).replace(b"Maker", b"M\0k\x1br")).device == "Mkr Model"


def test_edf_that_says_nothing_of_the_person(reads: Reads, ecg: Ecg) -> None:
    content = bytearray(edf(ecg))
    content[8:88] = b"0         dd-MMM-yyyy".ljust(80)
    found = reads(bytes(content))
    assert (found.age, found.sex) == (None, None)


def test_edf_of_an_eeg_is_no_ecg(reads: Reads, ecg: Ecg) -> None:
    content = edf(ecg)
    names = ("D1", "D2", "D3", "D4", "D5", "D6", "C1", "C2", "C3", "C4", "C5", "C6")
    for lead, name in zip(LEADS, names, strict=True):
        content = content.replace(f"ECG {lead}".ljust(16).encode(), name.ljust(16).encode())
    assert reason(reads, content) is Reason.MISSING_LEAD


def test_edf_whose_number_of_data_records_was_never_filled_in(reads: Reads, ecg: Ecg) -> None:
    content = bytearray(edf(ecg))
    content[236:244] = b"-1".ljust(8)
    assert np.array_equal(reads(bytes(content)).signal, reads(edf(ecg)).signal)
    assert reason(reads, edf(ecg)[:-1]) is Reason.TRUNCATED


def test_edf_with_interruptions_is_read_up_to_the_first(reads: Reads, ecg: Ecg) -> None:
    content = edf(ecg, annotated=True).replace(b"EDF+C", b"EDF+D")
    whole = reads(content)
    assert np.array_equal(whole.signal, reads(edf(ecg)).signal)
    assert content.count(b"+7\x14\x14\x00") == 1
    found = reads(content.replace(b"+7\x14\x14\x00", b"+17\x14\x14"))
    assert len(found.signal) == 700
    assert np.abs(found.signal[:600] - whole.signal[:600]).max() < 1e-4
    without = edf(ecg)
    assert reason(reads, without[:192] + b"EDF+D" + without[197:]) is Reason.UNREADABLE_HEADER


def test_ishne_with_fewer_leads(reads: Reads, ecg: Ecg) -> None:
    content = bytearray(ishne(ecg))
    content[158:160] = b"\1\0"
    assert INDEPENDENT[0] == "I"
    found = reads(bytes(content))  # I follows from II and III
    assert {Flag.LEADS_DERIVED, Flag.CHECKSUM_MISMATCH} <= set(found.flags)
    content[162:164] = b"\1\0"
    assert reason(reads, bytes(content)) is Reason.MISSING_LEAD


def test_scp_leads_of_more_bytes_than_their_size_can_tell(reads: Reads) -> None:
    ecg = make(1000)
    long = Ecg(np.tile(ecg.millivolts, (4, 1)), 1000)
    content = scp(long, huffman=False)
    assert np.abs(reads(content).signal - reads(scp(ecg)).signal).max() < 0.01


def test_scp_cut_off(reads: Reads, ecg: Ecg) -> None:
    assert reason(reads, scp(ecg)[:-2000]) is Reason.TRUNCATED
