"""Reading records: the same samples as wfdb, every fault a reason, and no header that can do harm."""

import hashlib
import os
import signal as signals
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.io
import wfdb
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgbatch.records import compiled, formats
from ecgbatch.records.files import Files
from ecgbatch.records.finishing import finish
from ecgbatch.records.formats import wfdb_compiled
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError, Recording
from ecgbatch.records.resampling import resample

FEW = settings(max_examples=25, deadline=None)
needs_compiler = pytest.mark.skipif(
    not compiled.available(),
    reason="the compiled reader is not built: needs a C++ compiler at install time",
)


def samples(seed: int = 0, count: int = 1000, leads: int = 12, bits: int = 16) -> NDArray[np.int64]:
    """Random samples of a format's whole range but the one value that means an invalid sample."""
    highest = 2 ** (bits - 1)
    return np.random.default_rng(seed).integers(1 - highest, highest, (count, leads))


def write(
    folder: Path,
    digital: NDArray[np.int64],
    rate: str = "100",
    names: tuple[str, ...] = LEADS,
    scale: str = "1000(0)/mV",
    name: str = "r",
    length: str | None = None,
    checksums: NDArray[np.int64] | None = None,
) -> None:
    """Writes a record of format 16."""
    sums = digital.sum(axis=0) % 65536 if checksums is None else checksums
    lines = [f"{name} {len(names)} {rate} {len(digital) if length is None else length}"]
    lines += [f"{name}.dat 16 {scale} 16 0 0 {sums[i]} 0 {lead}" for i, lead in enumerate(names)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.dat").write_bytes(digital.astype("<i2").tobytes())


def reason(root: Path, record: str = "r") -> Reason:
    with pytest.raises(RecordError) as caught:
        read(root, record)
    error = caught.value
    assert error.stage == "read"
    assert error.detail and error.detail.isprintable() and len(error.detail) <= 300
    return error.reason


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def by_wfdb(path: Path) -> NDArray[np.float64]:
    """The first ten seconds in the order of LEADS."""
    record = wfdb.rdrecord(str(path), sampto=int(10 * wfdb.rdheader(str(path)).fs))
    found = [name.upper() for name in record.sig_name]
    return record.p_signal[:, [found.index(lead.upper()) for lead in LEADS]]


# ------------------------------------------------------------------------------------------ the same as wfdb


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


@FEW
@given(
    order=st.permutations(range(14)),
    case=st.sampled_from([str, str.upper, str.lower, str.swapcase]),
    limb=st.sampled_from(["", "D"]),
)
def test_leads_are_matched_by_name(order: list[int], case: type[str], limb: str) -> None:
    digital = samples(leads=14)
    names = [case(limb + lead if set(lead) == {"I"} else lead) for lead in LEADS] + ["V3R", "resp nasal"]
    with TemporaryDirectory() as folder:
        write(Path(folder), digital[:, order], names=tuple(names[i] for i in order))
        assert np.array_equal(read(Path(folder), "r").signal, digital[:, :12] / 1000)


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


# ------------------------------------------------------------------------------------------ plain records


def is_plain(record: Path) -> bool:
    """Whether a record is read the plain way; then the general way must give the same."""
    plain = wfdb_compiled.read(record.parent, record.name, 5, True)
    if plain is None:
        return False
    files = Files(record.parent, follow_links=True)
    general = finish(formats.decode(files, record.name, None, 10), files.sha256, 5)
    assert plain.signal.tobytes() == general.signal.tobytes()
    assert (plain.sha256, plain.flags) == (general.sha256, general.flags)
    return True


@needs_compiler
def test_real_records_are_plain(ptbxl_fold9: Path) -> None:
    records = (ptbxl_fold9 / "RECORDS").read_text().split()
    assert all(is_plain(ptbxl_fold9 / record) for record in records[::5])


@needs_compiler
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", True),
        ("1000(0)/mV", "204.75(-12)/mV", True),
        ("1000(0)/mV 16 0", "200/mV 16 -7", True),
        (" AVR\n", "\tavr  \n", True),
        ("\n", "\r\n", True),
        ("r 12 100 1000", "# made up\n\nr 12 100 1000 11:39:16 05/02/2020", True),
        (" 16 1000", " 16x1+24 1000", True),
        ("r 12 100 1000", "r 12 100 999", True),
        ("r 12 100 1000", "r 12 100.0 1000", True),
        ("r 12 100 1000", "r 12 100", True),
        ("r 12 100 1000", "r 12 500 1000", False),
        ("r.dat 16 ", "r.dat 212 ", False),
        ("r.dat 16 ", "r.dat 16:1 ", False),
        ("r.dat 16 ", "./r.dat 16 ", False),
        ("r.dat 16 ", ".r.dat 16 ", False),
        ("1000(0)/mV", "1e3(0)/mV", False),
        ("1000(0)/mV", "0(0)/mV", False),
        ("1000(0)/mV", "1000(0)", True),
        ("1000(0)/mV", "1000(0)/uV", True),
        ("mV 16 0 0 0 0 I\n", "mV\n", False),
        (" II\n", " I\n", False),
        ("\n", "\n#\u00e9\n", False),
        ("\n", "\r", False),
    ],
)
def test_which_records_are_plain(tmp_path: Path, old: str, new: str, expected: bool) -> None:
    write(tmp_path, samples(count=1100), length="1000", checksums=np.zeros(12, int), names=tuple(map(str.upper, LEADS)))
    content = (tmp_path / "r.hea").read_bytes().decode()
    assert old in content
    (tmp_path / "r.hea").write_bytes(content.replace(old, new).encode())
    assert is_plain(tmp_path / "r") == expected


@needs_compiler
@pytest.mark.parametrize("damage", ["short", "invalid", "folder", "missing"])
def test_damaged_records_are_not_plain(tmp_path: Path, damage: str) -> None:
    digital = samples()
    digital[999, 11] = -(2**15) if damage == "invalid" else 0
    write(tmp_path, digital[:999] if damage == "short" else digital, length="1000")
    if damage in ("folder", "missing"):
        (tmp_path / "r.dat").unlink()
    if damage == "folder":
        (tmp_path / "r.dat").mkdir()
    assert not is_plain(tmp_path / "r")


@needs_compiler
@settings(max_examples=300, deadline=None)
@given(
    gain=st.from_regex(r"[0-9]{1,10}([.][0-9]{0,8})?", fullmatch=True),
    baseline=st.just("") | st.integers(-(10**10), 10**10).map("({})".format) | st.just("(+5)"),
    zero=st.integers(-(10**10), 10**10),
    checksum=st.integers(-70000, 70000),
    offset=st.just("") | st.integers(0, 1300).map("+{}".format),
    length=st.integers(999, 1050),
    blank=st.sampled_from([" ", "  ", "\t", " \t "]),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
)
def test_plain_numbers_are_the_general_ones(
    gain: str, baseline: str, zero: int, checksum: int, offset: str, length: int, blank: str, end: str
) -> None:
    signals = [["r.dat", f"16{offset}", f"{gain}{baseline}/mV", "16", zero, 0, checksum, 0, lead] for lead in LEADS]
    with TemporaryDirectory() as folder:
        write(Path(folder), samples(count=1050))
        lines = [["r", 12, 100, length], *signals]
        header = end.join(blank.join(map(str, line)) for line in lines)
        (Path(folder) / "r.hea").write_bytes(header.encode())
        is_plain(Path(folder) / "r")


# ------------------------------------------------------------------------------------------ rates, units, flags


def test_resampled_500_hz_records_are_the_release_at_100_hz(ptbxl_fold9: Path) -> None:
    differences = []
    for header in sorted(ptbxl_fold9.glob("records500/*/*.hea")):
        record = str(header.relative_to(ptbxl_fold9).with_suffix(""))
        recording = read(ptbxl_fold9, record)
        assert "resampled" in recording.flags
        low = read(ptbxl_fold9, record.replace("500", "100", 1).replace("_hr", "_lr"))
        differences.append(recording.signal[20:-20] - low.signal[20:-20])
    assert len(differences) >= 100
    assert np.sqrt(np.mean(np.square(differences))) < 0.4e-3


@pytest.mark.parametrize("rate", ["128", "250", "257", "360", "500", "512.5", "1000", "333.333", "9999.9"])
def test_any_rate_keeps_slow_waves_and_drops_fast_ones(tmp_path: Path, rate: str) -> None:
    time = np.arange(int(10 * float(rate)) + 1) / float(rate)
    slow, fast = np.sin(2 * np.pi * 9 * time), np.sin(2 * np.pi * 55 * time)
    digital = np.rint(10000 * np.stack([slow, fast] * 6, axis=1)).astype(np.int64)
    write(tmp_path, digital, rate=rate)
    recording = read(tmp_path, "r")
    assert recording.signal.shape == (1000, 12)
    assert "resampled" in recording.flags
    expected = 10 * np.sin(2 * np.pi * 9 * (np.arange(1000) / 100 + 0.00125))
    assert np.abs(recording.signal[50:-50, 0] - expected[50:-50]).max() < 0.12
    assert np.abs(recording.signal[50:-50, 1]).max() < 0.1
    assert read(tmp_path, "r").signal.tobytes() == recording.signal.tobytes()


def test_a_low_rate_gains_no_mirror_images(tmp_path: Path) -> None:
    wave = np.rint(10000 * np.sin(2 * np.pi * 20 * np.arange(600) / 60)).astype(np.int64)
    write(tmp_path, np.stack([wave] * 12, axis=1), rate="60")
    expected = 10 * np.sin(2 * np.pi * 20 * (np.arange(1000) / 100 + 0.00125))
    assert np.abs(read(tmp_path, "r").signal[50:-50, 0] - expected[50:-50]).max() < 0.05


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("", Reason.NO_SAMPLING_RATE),
        ("0 1000", Reason.NO_SAMPLING_RATE),
        ("20 1000", Reason.UNSUPPORTED_RATE),
        ("1e9 1000", Reason.UNSUPPORTED_RATE),
    ],
)
def test_rates_that_are_refused(tmp_path: Path, rate: str, expected: Reason) -> None:
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r 12 100 1000", f"r 12 {rate}")
    assert reason(tmp_path) == expected


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


def test_duration(tmp_path: Path) -> None:
    write(tmp_path, samples(count=499))
    assert reason(tmp_path) == Reason.WRONG_DURATION
    digital = samples(count=1001)
    write(tmp_path, digital)
    recording = read(tmp_path, "r")
    assert recording.flags == ("cropped",)
    assert np.array_equal(recording.signal, digital[:1000] / 1000)


def test_flags(tmp_path: Path) -> None:
    digital = samples()
    digital[:, 4] = -3
    write(tmp_path, digital, checksums=np.arange(12))
    assert read(tmp_path, "r").flags == ("checksum_mismatch", "flat_lead")
    write(tmp_path, digital, checksums=digital.sum(axis=0) % 65536 - 65536)
    assert read(tmp_path, "r").flags == ("flat_lead",)
    digital[-1, 4] = -2
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == (), "a lead that moves at its end is not flat"


def test_a_long_record_is_digested_whole(tmp_path: Path) -> None:
    digital = np.tile(samples(), (800, 1))
    write(tmp_path, digital)
    content = (tmp_path / "r.hea").read_bytes() + (tmp_path / "r.dat").read_bytes()
    assert len(content) > 16 << 20
    recording = read(tmp_path, "r")
    assert recording.sha256 == hashlib.sha256(content).hexdigest()
    assert np.array_equal(recording.signal, digital[:1000] / 1000)


# ------------------------------------------------------------------------------------------ faults


def test_samples_that_are_no_numbers(tmp_path: Path) -> None:
    digital = samples(count=1500)
    digital[1200, 3] = -32768
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == ("cropped",)
    digital[900:910, 3] = -32768
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == ("cropped", "gap_filled")
    digital[910, 3] = -32768
    write(tmp_path, digital)
    assert reason(tmp_path) == Reason.NOT_FINITE
    write(tmp_path, samples(), scale="1e-306(0)/V")
    assert reason(tmp_path) == Reason.NOT_FINITE


def test_headers_that_leave_something_open(tmp_path: Path) -> None:
    write(tmp_path, samples())
    header = (tmp_path / "r.hea").read_text()
    (tmp_path / "r.hea").write_text(header.replace("100 1000", "100 1000 " + 2000 * "1"))
    assert reason(tmp_path) == Reason.UNREADABLE_HEADER


def test_a_missing_lead_is_named(tmp_path: Path) -> None:
    write(tmp_path, samples(leads=11), names=LEADS[:7] + LEADS[8:])
    with pytest.raises(RecordError, match="V2") as caught:
        read(tmp_path, "r")
    assert caught.value.reason == Reason.MISSING_LEAD


def test_missing_files(tmp_path: Path) -> None:
    assert reason(tmp_path) == Reason.MISSING_HEADER
    assert reason(tmp_path, "no/such/folder/r") == Reason.MISSING_HEADER
    assert reason(tmp_path, "x" * 300) == Reason.UNREADABLE_HEADER
    write(tmp_path, samples())
    (tmp_path / "r.dat").unlink()
    assert reason(tmp_path) == Reason.MISSING_SIGNAL_FILE


@pytest.mark.parametrize("length", ["1001", "5000", "999999999999999"])
def test_a_header_that_claims_more_than_there_is(tmp_path: Path, length: str) -> None:
    write(tmp_path, samples(), length=length)
    assert reason(tmp_path) == Reason.TRUNCATED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r.dat 16 ", "r.dat 16:999999999999 "),
        ("r.dat 16 ", "r.dat 16x999999999 "),
        ("r.dat 16 ", "r.dat 16+999999999999 "),
        ("r.dat 16 ", "r.dat 516 "),
        ("r.dat 16 ", "r.dat 8:99999999 "),
        ("r 12 100 1000", "r 999999999 100 1000"),
        ("r 12 100 1000", "r/999999999 12 100 1000"),
        ("r 12 100 1000", "r 12 100 999999999999999"),
        ("r.dat 16 ", "r.dat 99 "),
        ("1000(0)/mV", "1e400(0)/mV"),
    ],
)
def test_no_header_makes_us_allocate_much(tmp_path: Path, old: str, new: str) -> None:
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", old, new)
    with allocating_at_most(32 << 20):
        reason(tmp_path)


def test_huge_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, samples())
    os.truncate(tmp_path / "r.dat", 1 << 40)
    assert reason(tmp_path) == Reason.TOO_LARGE
    os.truncate(tmp_path / "r.hea", 1 << 40)
    assert reason(tmp_path) == Reason.TOO_LARGE


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, samples())
    file = (tmp_path / "r").with_suffix(suffix)
    file.unlink()
    os.mkfifo(file)
    assert reason(tmp_path) == Reason.NOT_A_FILE
    file.unlink()
    file.mkdir()
    assert reason(tmp_path) == Reason.NOT_A_FILE
    file.rmdir()
    file.symlink_to("/dev/zero")
    assert reason(tmp_path) == Reason.NOT_A_FILE
    file.unlink()
    file.symlink_to(file)
    assert reason(tmp_path) in (Reason.UNREADABLE_HEADER, Reason.UNREADABLE_SIGNAL)


def test_links_are_followed_within_the_archive(tmp_path: Path) -> None:
    store, farm = tmp_path / "store", tmp_path / "farm"
    store.mkdir()
    farm.mkdir()
    write(store, samples())
    for suffix in (".hea", ".dat"):
        (farm / f"r{suffix}").symlink_to(store / f"r{suffix}")
    assert reason(farm) == Reason.UNSAFE_PATH
    assert read(farm, "r", follow_links=True).sha256 == read(store, "r").sha256
    assert read(tmp_path, "farm/r").sha256 == read(store, "r").sha256


@pytest.mark.parametrize(
    "record",
    ["", ".", "a/", "/etc/r", "../r", "a/../../r", "s3://bucket/r", "http://h/r", "a\0b"],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, record: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write(tmp_path, samples())
    assert reason(inner, record) == Reason.UNSAFE_PATH


@pytest.mark.parametrize("file", ["../r.dat", "/etc/passwd", "s3://b/r.dat", "..\\r.dat", "."])
def test_signal_files_that_lie_elsewhere_are_refused(tmp_path: Path, file: str) -> None:
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r.dat", file)
    assert reason(tmp_path) == Reason.UNSAFE_PATH


def test_names_that_a_shell_would_expand(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*?"
    folder.mkdir()
    wfdb.wrsamp(
        "r",
        fs=100,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=samples(bits=12),
        fmt=["212"] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
    )
    assert np.array_equal(read(tmp_path, "a[1]*?/r").signal, samples(bits=12) / 200)


# ------------------------------------------------------------------------------------------ anything at all

HEADER = "\n".join(["r 12 100 1000", *(f"r.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS)])
FRAGMENTS = [
    *("r 12 100 1000", "r/2 12 100 1000", "r 12", "r 12 500 99999999", "s1 500", "~ 500", "#Age: 1", "", " "),
    *(f"r.dat {form} 1000(0)/mV 16 0 0 0 0 I" for form in ("16", "212", "8x3", "516", "310:7", "16+24", "24x999999")),
    *("r.dat 16", "r.dat 16 1e400/mV 16 0 0 0 0 V1", "r.dat 16 nan", "~ 0 200/mV 16 0 0 0 0 II", "\0", "r 12 1e999"),
]


class allocating_at_most:  # noqa: N801
    """Fails if Python or numpy held more bytes at once than given."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *_: object) -> None:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < self.limit, f"{peak} bytes"


def read_or_fail(header: bytes, data: bytes) -> Recording | None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "r.hea").write_bytes(header)
        (Path(folder) / "r.dat").write_bytes(data)
        try:
            with allocating_at_most(32 << 20):
                recording = read(Path(folder), "r")
        except RecordError:
            return None
        is_plain(Path(folder) / "r")
        return recording


@settings(max_examples=300, deadline=None)
@given(header=st.binary(max_size=300) | st.text(max_size=300).map(str.encode), data=st.binary(max_size=100))
def test_any_header_is_read_or_a_record_error(header: bytes, data: bytes) -> None:
    assert read_or_fail(header, data) is None


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(st.sampled_from(FRAGMENTS + HEADER.splitlines()), max_size=16), data=st.binary(max_size=100))
def test_any_mixture_of_header_lines_is_read_or_a_record_error(lines: list[str], data: bytes) -> None:
    read_or_fail("\n".join(lines).encode(), data * 300)


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, len(HEADER) - 1), st.characters(max_codepoint=0x2FF)), max_size=4))
def test_a_damaged_header_is_read_or_a_record_error(edits: list[tuple[int, str]]) -> None:
    characters = list(HEADER)
    for place, character in edits:
        characters[place] = character
    recording = read_or_fail("".join(characters).encode(), samples().astype("<i2").tobytes())
    if recording:
        assert recording.signal.shape == (1000, 12)
        assert np.isfinite(recording.signal).all()


@FEW
@given(data=st.binary(max_size=24000))
def test_any_signal_file_is_read_or_a_record_error(data: bytes) -> None:
    for form in ("16", "212", "8", "310", "516"):
        read_or_fail(HEADER.replace("r.dat 16 ", f"r.dat {form} ").encode(), data)


def test_a_reason_has_a_meaning_and_an_error_one_line() -> None:
    for member in Reason:
        assert member.isidentifier()
        assert member.meaning
        assert "\n" not in member.meaning
    error = RecordError(Reason.TRUNCATED, "a\n b\x07\udcff" + "x" * 1000)
    assert error.detail.startswith("a b??xxx")
    assert len(str(error)) < 330


def test_a_soft_time_limit_passes_through(tmp_path: Path) -> None:
    write(tmp_path, samples())

    def out_of_time(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signals.signal(signals.SIGALRM, out_of_time)
    signals.setitimer(signals.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(SoftTimeLimitExceeded):
            while True:
                read(tmp_path, "r")
    finally:
        signals.setitimer(signals.ITIMER_REAL, 0)
        signals.signal(signals.SIGALRM, before)


def test_a_plain_record_needs_neither_wfdb_nor_scipy(tmp_path: Path) -> None:
    write(tmp_path, samples())
    code = (
        "import sys; from pathlib import Path; from ecgbatch.records.reading import read; "
        f"read(Path({str(tmp_path)!r}), 'r'); print([m for m in ('wfdb', 'scipy', 'pandas') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "[]"


def test_too_little_memory_is_a_reason(tmp_path: Path) -> None:
    write(tmp_path, np.tile(samples(), (600, 1)))
    code = (
        "import resource, re; from pathlib import Path; from ecgbatch.records.reading import read\n"
        "from ecgbatch.records.recording import RecordError\n"
        "used = 1024 * int(re.search(r'VmSize:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20),) * 2)\n"
        f"try: read(Path({str(tmp_path)!r}), 'r')\n"
        "except RecordError as error: print(error.reason)"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == Reason.OUT_OF_MEMORY
