"""The same samples as wfdb, in every format."""

import hashlib
import tempfile
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
import pytest
import scipy.io
import wfdb
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from wfdb_files import (
    FEW,
    by_wfdb,
    compiled_takes,
    failure,
    reason,
    replace,
    samples,
    write,
)

from ecgbatch.records import compiled
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError
from ecgbatch.records.resampling import resample


@FEW
@given(
    seed=st.integers(0, 2**32),
    gain=st.floats(1e-3, 1e6),
    baselines=st.lists(st.integers(-30000, 30000), min_size=12, max_size=12),
)
def test_signal_is_bit_identical_to_wfdb(seed: int, gain: float, baselines: list[int]) -> None:
    with TemporaryDirectory() as folder:
        wfdb.wrsamp(
            "r",
            fs=100,
            units=["mV"] * 12,
            sig_name=list(LEADS),
            d_signal=samples(seed),
            fmt=["16"] * 12,
            adc_gain=[gain] * 12,
            baseline=baselines,
            write_dir=folder,
        )
        recording = read(Path(folder), "r")
        content = (Path(folder) / "r.hea").read_bytes() + (Path(folder) / "r.dat").read_bytes()
        assert recording.signal.tobytes() == wfdb.rdrecord(f"{folder}/r").p_signal.tobytes()
        assert recording.sha256 == hashlib.sha256(content).hexdigest()
        assert recording.flags == ()


@pytest.mark.parametrize(("form", "bits"), [("16", 16), ("24", 24), ("32", 24), ("80", 8), ("212", 12), ("516", 16)])
def test_every_format_is_read_as_wfdb_reads_it(tmp_path: Path, form: str, bits: int) -> None:
    order = [3, 11, 0, 1, 2, 4, 10, 5, 6, 7, 8, 9]
    wfdb.wrsamp(
        "r",
        fs=100,
        units=["mV"] * 12,
        sig_name=[LEADS[i] for i in order],
        d_signal=samples(bits=bits, count=1300),
        fmt=[form] * 12,
        adc_gain=[200.0] * 12,
        baseline=[7] * 12,
        write_dir=str(tmp_path),
    )
    recording = read(tmp_path, "r")
    assert np.array_equal(recording.signal, by_wfdb(tmp_path / "r"))
    assert recording.flags == ("cropped",)
    files = ["r.hea", *dict.fromkeys(wfdb.rdheader(str(tmp_path / "r")).file_name)]
    content = b"".join((tmp_path / file).read_bytes() for file in files)
    assert recording.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("form", ["8", "61", "160", "310", "311"])
def test_formats_that_wfdb_reads_but_does_not_write(tmp_path: Path, form: str) -> None:
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r.dat 16 ", f"r.dat {form} ")
    content = np.random.default_rng(0).integers(1, 4, 24000, dtype=np.uint8)
    (tmp_path / "r.dat").write_bytes(content.tobytes())
    recording = read(tmp_path, "r")
    assert np.array_equal(recording.signal, by_wfdb(tmp_path / "r"))
    assert "checksum_mismatch" in recording.flags


@pytest.mark.parametrize(("form", "per_frame"), [("16x2", 13), ("16:2", 12)])
def test_several_samples_per_frame_and_skew(tmp_path: Path, form: str, per_frame: int) -> None:
    write(tmp_path, samples(count=1100))
    (tmp_path / "r.dat").write_bytes(samples(count=1100, leads=per_frame).astype("<i2").tobytes())
    lines = (tmp_path / "r.hea").read_text().splitlines()
    lines[4] = lines[4].replace(" 16 ", f" {form} ", 1)
    (tmp_path / "r.hea").write_text("\n".join(lines))
    assert np.array_equal(read(tmp_path, "r").signal, by_wfdb(tmp_path / "r"))


def test_signals_in_two_files(tmp_path: Path) -> None:
    limbs, chest = samples(1, leads=6), samples(2, leads=6)
    write(tmp_path, np.concatenate([limbs, chest], axis=1))
    lines = (tmp_path / "r.hea").read_text().splitlines()
    lines[7:] = [line.replace("r.dat", "r.xyz") for line in lines[7:]]
    lines[1], lines[12] = lines[12], lines[1]
    (tmp_path / "r.hea").write_text("\n".join(lines))
    (tmp_path / "r.dat").write_bytes(limbs[:, [1, 2, 3, 4, 5, 0]].astype("<i2").tobytes())
    (tmp_path / "r.xyz").write_bytes(chest[:, [5, 0, 1, 2, 3, 4]].astype("<i2").tobytes())
    recording = read(tmp_path, "r")
    assert np.array_equal(recording.signal, np.concatenate([limbs, chest], axis=1) / 1000)
    assert recording.flags == ()
    content = b"".join((tmp_path / name).read_bytes() for name in ("r.hea", "r.xyz", "r.dat"))
    assert recording.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("rate", [100, 500])
def test_matlab_files_of_the_cinc_challenges(tmp_path: Path, rate: int) -> None:
    digital = samples(count=12 * rate)
    scipy.io.savemat(tmp_path / "JS1.mat", {"val": digital.T.astype(np.int16)}, format="4")
    sums = digital.sum(axis=0) % 65536 - 32768
    lines = [f"JS1 12 {rate} {len(digital)} 05-Feb-2020 11:39:16"]
    lines += [f"JS1.mat 16x1+24 1000.0(0)/mV 16 0 0 {sums[i] + 32768} 0 {LEADS[i]}" for i in range(12)]
    lines += ["#Age: 56", "#Sex: Female", "#Dx: 426783006"]
    (tmp_path / "JS1.hea").write_text("\r\n".join(lines))
    recording = read(tmp_path, "JS1")
    expected = digital[: 10 * rate] / 1000
    assert np.array_equal(by_wfdb(tmp_path / "JS1"), expected)
    if rate == 100:
        assert np.array_equal(recording.signal, expected)
        assert recording.flags == ("cropped",)
    else:
        assert np.array_equal(recording.signal, resample(expected, Fraction(rate)))
        assert recording.flags == ("cropped", "resampled")


@pytest.mark.parametrize("rate", ["100", "250"])
def test_age_and_sex_are_those_of_the_comments(tmp_path: Path, rate: str) -> None:
    write(tmp_path, samples(count=2500), rate=rate)
    assert (read(tmp_path, "r").age, read(tmp_path, "r").sex) == (None, None)
    with (tmp_path / "r.hea").open("a") as header:
        header.write("#Age: 56\n#Sex: Female\n")
    assert (read(tmp_path, "r").age, read(tmp_path, "r").sex) == (56, 1)
    replace(tmp_path / "r.hea", f"r 12 {rate}", f"r 12 {rate}e0")  # which the compiled reader leaves to Python
    assert (read(tmp_path, "r").age, read(tmp_path, "r").sex) == (56, 1)


def test_records_of_several_segments(tmp_path: Path) -> None:
    digital = samples(count=1500)
    write(tmp_path, digital[:300], name="s1")
    write(tmp_path, digital[300:1100], name="s2")
    write(tmp_path, digital[1100:], name="s3")
    (tmp_path / "r.hea").write_text("r/3 12 100 1500\ns1 300\ns2 800\ns3 400\n")
    recording = read(tmp_path, "r")
    assert np.array_equal(recording.signal, by_wfdb(tmp_path / "r"))
    assert recording.flags == ("cropped",)
    content = b"".join((tmp_path / n).read_bytes() for n in ("r.hea", "s1.hea", "s1.dat", "s2.hea", "s2.dat"))
    assert recording.sha256 == hashlib.sha256(content).hexdigest()


def test_a_gap_between_segments(tmp_path: Path) -> None:
    write(tmp_path, samples(count=600), name="s1")
    (tmp_path / "layout.hea").write_text("layout 12 100 0\n" + "".join(f"~ 0 200/mV 16 0 0 0 0 {n}\n" for n in LEADS))
    (tmp_path / "r.hea").write_text("r/4 12 100 1300\nlayout 0\ns1 600\n~ 100\ns1 600\n")
    assert reason(tmp_path) == Reason.NOT_FINITE
    (tmp_path / "r.hea").write_text("r/3 12 100 1200\nlayout 0\ns1 600\ns1 600\n")
    assert read(tmp_path, "r").flags == ("cropped",)


def test_segments_that_do_not_fit_their_record(tmp_path: Path) -> None:
    write(tmp_path, samples(count=1200), name="s1")
    for header in ("r/1 12 100 1000\ns1 1000\n", "r/1 12 200 2400\ns1 1200\n", "r/1 12 100 1200\nr 1200\n"):
        (tmp_path / "r.hea").write_text(header)
        assert reason(tmp_path) == Reason.UNREADABLE_HEADER


def test_real_records(ptbxl_fold9: Path) -> None:
    records = (ptbxl_fold9 / "RECORDS").read_text().split()
    for record in records[::20]:
        recording = read(ptbxl_fold9, record)
        assert recording.signal.tobytes() == wfdb.rdrecord(str(ptbxl_fold9 / record)).p_signal.tobytes()
        assert set(recording.flags) <= {"flat_lead"}


def test_a_counter_frequency_and_a_date_are_no_matter(tmp_path: Path) -> None:
    write(tmp_path, samples(), rate="100/360(12.5)", length="1000 11:39:16 05/02/2020")
    assert read(tmp_path, "r").flags == ()


@pytest.mark.parametrize(
    ("units", "factor"), [("mV", 1), ("uV", 1000), ("\N{MICRO SIGN}V", 1000), ("\u03bcV", 1000), ("V", 0.001)]
)
def test_units_become_millivolts(tmp_path: Path, units: str, factor: float) -> None:
    digital = samples()
    write(tmp_path, digital, scale=f"4(0)/{units}")
    assert np.array_equal(read(tmp_path, "r").signal, digital / 4 / factor)


def test_other_units_are_refused(tmp_path: Path) -> None:
    write(tmp_path, samples(), scale="1000(0)/mmHg")
    assert reason(tmp_path) == Reason.UNSUPPORTED_UNITS


def test_defaults_of_the_format(tmp_path: Path) -> None:
    digital = samples()
    write(tmp_path, digital, scale="0", length="0")
    replace(tmp_path / "r.hea", " 16 0 0 ", " 16 12 0 ")
    assert np.array_equal(read(tmp_path, "r").signal, (digital - 12) / 200)


def test_a_long_record_is_digested_whole(tmp_path: Path) -> None:
    digital = np.tile(samples(), (800, 1))
    write(tmp_path, digital)
    content = (tmp_path / "r.hea").read_bytes() + (tmp_path / "r.dat").read_bytes()
    assert len(content) > 16 << 20
    recording = read(tmp_path, "r")
    assert recording.sha256 == hashlib.sha256(content).hexdigest()
    assert np.array_equal(recording.signal, digital[:1000] / 1000)


def test_headers_that_leave_something_open(tmp_path: Path) -> None:
    write(tmp_path, samples())
    header = (tmp_path / "r.hea").read_text()
    (tmp_path / "r.hea").write_text(header.replace("100 1000", "100 1000 " + 2000 * "1"))
    assert reason(tmp_path) == Reason.UNREADABLE_HEADER


# ------------------------------------------------------------------------------------------ MATLAB files


def matlab_4(digital: NDArray[np.int64], kind: int = 30, dtype: str = "<i2", rows: int = 12) -> bytes:
    head = np.array([kind, rows, digital.size // rows, 0, 4], "<i4").tobytes() + b"val\0"
    return head + digital.astype(dtype).tobytes()


def write_matlab(folder: Path, content: bytes, name: str = "r.mat", form: str = "16+24") -> None:
    write(folder, samples())
    replace(folder / "r.hea", "r.dat 16 ", f"{name} {form} ")
    (folder / name).write_bytes(content)


def test_a_matlab_4_file_is_read_as_its_header_says(tmp_path: Path) -> None:
    write_matlab(tmp_path, matlab_4(samples()))
    assert np.array_equal(read(tmp_path, "r").signal, samples() / 1000)
    assert compiled_takes(tmp_path / "r") == compiled.available()


@pytest.mark.parametrize("name", ["r.mat", "r.MAT", "r.dat"])
@pytest.mark.parametrize("version", ["5", "7.3"])
def test_matlab_files_of_other_versions(tmp_path: Path, version: str, name: str) -> None:
    if version == "5":
        scipy.io.savemat(tmp_path / "s.mat", {"val": samples().T.astype("<i2")}, appendmat=False)
        content = (tmp_path / "s.mat").read_bytes()
    else:
        content = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + samples().astype("<i2").tobytes()
    write_matlab(tmp_path, content, name)
    error = failure(tmp_path)
    assert error.reason == Reason.UNREADABLE_SIGNAL
    assert "MATLAB" in error.detail
    assert "version 4" in error.detail


@pytest.mark.parametrize(
    "content",
    [
        matlab_4(samples(), 0, "<f8"),
        matlab_4(samples(), 20, "<i4"),
        matlab_4(samples(), 40, "<u2"),
        matlab_4(samples(), rows=1000),
        matlab_4(samples())[:19],
        bytes(24) + samples().astype("<i2").tobytes(),
    ],
    ids=["double", "int32", "uint16", "transposed", "cut", "zeros"],
)
def test_a_matlab_file_that_is_not_what_its_header_says(tmp_path: Path, content: bytes) -> None:
    write_matlab(tmp_path, content)
    error = failure(tmp_path)
    assert error.reason == Reason.UNREADABLE_SIGNAL
    assert "no MATLAB 4 matrix" in error.detail


def test_a_matlab_4_file_of_32_bits_under_a_header_that_says_so(tmp_path: Path) -> None:
    write_matlab(tmp_path, matlab_4(samples(), 20, "<i4"), form="32+24")
    assert np.array_equal(read(tmp_path, "r").signal, samples() / 1000)


# ------------------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize(("form", "bits"), [("16", 16), ("24", 24), ("32", 24), ("80", 8), ("212", 12), ("516", 16)])
def test_a_header_without_a_length(tmp_path: Path, form: str, bits: int) -> None:
    digital = samples(bits=bits, count=700)
    wfdb.wrsamp(
        "r",
        fs=100,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=digital,
        fmt=[form] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        write_dir=str(tmp_path),
    )
    replace(tmp_path / "r.hea", "r 12 100 700", "r 12 100")
    assert np.array_equal(read(tmp_path, "r").signal, digital / 200)


def test_format_8_begins_with_the_first_value_of_its_header(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(-100, 100, (1000, 12))
    write(tmp_path, steps)
    replace(tmp_path / "r.hea", "r.dat 16 1000(0)/mV 16 0 0 ", "r.dat 8 1000(0)/mV 8 0 -500 ")
    (tmp_path / "r.dat").write_bytes(steps.astype("i1").tobytes())
    assert np.array_equal(read(tmp_path, "r").signal, (steps.cumsum(axis=0) - 500) / 1000)
    assert np.array_equal(read(tmp_path, "r").signal, by_wfdb(tmp_path / "r"))


def test_a_sample_marked_as_invalid_within_a_frame_is_missing(tmp_path: Path) -> None:
    """The mean of the mark and a sound sample is -16.3 mV, and looks like a sample."""
    digital = samples(count=1000, leads=24, bits=10)
    digital[500:505, 6] = -32768
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r.dat 16 ", "r.dat 16x2 ")
    (tmp_path / "r.dat").write_bytes(digital.astype("<i2").tobytes())
    recording = read(tmp_path, "r")
    assert "gap_filled" in recording.flags
    assert recording.signal.min() > -1
    digital[500:511, 6] = -32768
    (tmp_path / "r.dat").write_bytes(digital.astype("<i2").tobytes())
    assert reason(tmp_path) == Reason.NOT_FINITE


def test_a_skew_that_leads_beyond_the_file_leaves_a_gap(tmp_path: Path) -> None:
    digital = samples()
    write(tmp_path, digital)
    checksum = digital[:, 3].sum() % 65536
    replace(tmp_path / "r.hea", f"r.dat 16 1000(0)/mV 16 0 0 {checksum}", "r.dat 16:9 1000/mV 16 0 0 0")
    recording = read(tmp_path, "r")
    assert "gap_filled" in recording.flags
    assert np.array_equal(recording.signal[:991, 3], digital[9:, 3] / 1000)


def test_the_last_samples_of_a_311_block_have_ten_bits(tmp_path: Path) -> None:
    """Wfdb takes a bit too many of the third sample of each block."""
    digital = samples(bits=10)
    write(tmp_path, digital)
    replace(tmp_path / "r.hea", "r.dat 16 ", "r.dat 311 ")
    triples = (digital.reshape(-1, 3) & 0x3FF).astype("<u4")
    blocks = triples[:, 0] | triples[:, 1] << 10 | triples[:, 2] << 20 | np.uint32(0xC0000000)
    (tmp_path / "r.dat").write_bytes(blocks.astype("<u4").tobytes())
    assert np.array_equal(read(tmp_path, "r").signal, digital / 1000)


def test_segments_with_their_leads_in_another_order(tmp_path: Path) -> None:
    digital = samples(count=1000)
    write(tmp_path, digital[:400], name="s1")
    write(tmp_path, digital[400:, ::-1], name="s2", names=LEADS[::-1])
    (tmp_path / "r.hea").write_text("r/2 12 100 1000\ns1 400\ns2 600\n")
    assert np.array_equal(read(tmp_path, "r").signal, digital / 1000)


def test_a_short_gap_between_segments_is_filled(tmp_path: Path) -> None:
    write(tmp_path, samples(count=600), name="s1")
    (tmp_path / "r.hea").write_text("r/3 12 100 1210\ns1 600\n~ 10\ns1 600\n")
    assert read(tmp_path, "r").flags == ("cropped", "gap_filled")


# ------------------------------------------------------------------------------------------ by the package wfdb


def write_by_wfdb(folder: Path, form: str, bits: int, count: int = 1000) -> NDArray[np.int64]:
    digital = samples(bits=bits, count=count)
    scale = {"adc_gain": [200.0] * 12, "baseline": [0] * 12, "units": ["mV"] * 12, "sig_name": list(LEADS)}
    wfdb.wrsamp("r", fs=100, d_signal=digital, fmt=[form] * 12, write_dir=str(folder), **scale)
    return digital


@pytest.mark.parametrize("form", ["212", "516"])
def test_other_formats_in_a_zip(tmp_path: Path, form: str) -> None:
    digital = write_by_wfdb(tmp_path, form, int(form) % 100)
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in [path for path in tmp_path.iterdir() if path.name.startswith("r")]:
            archive.write(file, file.name)
    assert np.array_equal(read(tmp_path / "a.zip", "r").signal, digital / 200)
    assert read(tmp_path / "a.zip", "r").sha256 == read(tmp_path, "r").sha256


def test_samples_marked_as_invalid_within_frames_of_another_format(tmp_path: Path) -> None:
    digital = samples(count=1000, leads=24, bits=7)
    digital[500:505, 6] = -128
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r.dat 16 1000", "r.dat 80x2 50")
    (tmp_path / "r.dat").write_bytes((digital + 128).astype("u1").tobytes())
    recording = read(tmp_path, "r")
    assert "gap_filled" in recording.flags
    assert np.array_equal(recording.signal[:, 1], np.trunc(digital[:, 2:4].mean(axis=1)) / 50)
    assert recording.signal.min() >= -64 / 50


def test_signals_of_a_file_that_are_not_listed_one_after_the_other(tmp_path: Path) -> None:
    digital = samples(bits=8)
    write(tmp_path, samples())
    lines = (tmp_path / "r.hea").read_text().replace("r.dat 16", "r.dat 80").splitlines()
    for number in range(2, 13, 2):
        lines[number] = lines[number].replace("r.dat", "other.dat")
    (tmp_path / "r.hea").write_text("\n".join(lines))
    (tmp_path / "r.dat").write_bytes((digital[:, ::2] + 128).astype("u1").tobytes())
    (tmp_path / "other.dat").write_bytes((digital[:, 1::2] + 128).astype("u1").tobytes())
    assert np.array_equal(read(tmp_path, "r").signal, digital / 1000)


def test_what_wfdb_cannot_give_is_refused(tmp_path: Path) -> None:
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r.dat 16 ", "r.dat 61x2 ")
    (tmp_path / "r.dat").write_bytes(samples(leads=24).astype(">i2").tobytes())
    assert reason(tmp_path) == Reason.UNREADABLE_SIGNAL


def test_flac_files_that_lie_about_their_length(tmp_path: Path) -> None:
    """The 36 bits before the digest of the samples say how many there are; 0 is not told."""
    digital = write_by_wfdb(tmp_path, "516", 16)
    sound = {file: file.read_bytes() for file in tmp_path.iterdir() if file.suffix != ".hea"}
    header = (tmp_path / "r.hea").read_text()

    def with_length(length: int, header: str) -> Reason | None:
        for file, content in sound.items():
            file.write_bytes(content[:21] + bytes([content[21] & 0xF0]) + length.to_bytes(4) + content[26:])
        (tmp_path / "r.hea").write_text(header)
        try:
            return None if np.array_equal(read(tmp_path, "r").signal, digital / 200) else Reason.CRASHED
        except RecordError as error:
            return error.reason

    untold = header.replace("r 12 100 1000", "r 12 100")
    assert with_length(1000, untold) is None
    assert with_length(0, header) == Reason.UNREADABLE_SIGNAL
    assert with_length(999, header) == Reason.TRUNCATED
    longer = header.replace("r 12 100 1000", "r 12 100 2000000000")
    assert with_length(2_000_000_000, longer) == Reason.UNREADABLE_SIGNAL


def test_no_room_for_the_temporary_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_by_wfdb(tmp_path, "212", 12)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert "TMPDIR" in failure(tmp_path).detail
