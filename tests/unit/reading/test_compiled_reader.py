"""The compiled reader gives what the one in Python gives, bit for bit, or leaves a record to it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wfdb_files import FEW, compiled_takes, needs_compiler, samples, write

from ecgbatch.records import compiled
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read


@needs_compiler
def test_real_records_are_taken(ptbxl_fold9: Path) -> None:
    records = (ptbxl_fold9 / "RECORDS").read_text().split()
    assert all(compiled_takes(ptbxl_fold9 / record) for record in records[::5])


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
        ("r 12 100 1000", "r 12 150 1000", True),
        ("r 12 100 1000", "r 12 133.33 1000", True),
        ("r 12 100 1000", "r 12 500 1000", False),
        ("r 12 100 1000", "r 12 20 1000", False),
        ("r 12 100 1000", "r 12 1e2 1000", False),
        ("r 12 100 1000", "r/1 12 100 1000", False),
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
        (" V1\n", " MDC_ECG_lead_C1\n", True),
        (" V1\n", " -V1\n", False),
        ("\n", "\n#\u00e9\n", False),
        ("\n", "\r", False),
    ],
)
def test_which_records_are_taken(tmp_path: Path, old: str, new: str, expected: bool) -> None:
    write(tmp_path, samples(count=1100), length="1000", checksums=np.zeros(12, int), names=tuple(map(str.upper, LEADS)))
    content = (tmp_path / "r.hea").read_bytes().decode()
    assert old in content
    (tmp_path / "r.hea").write_bytes(content.replace(old, new).encode())
    assert compiled_takes(tmp_path / "r") == expected


@needs_compiler
@pytest.mark.parametrize("damage", ["short", "invalid", "folder", "missing"])
def test_damaged_records_are_left_to_python(tmp_path: Path, damage: str) -> None:
    digital = samples()
    digital[999, 11] = -(2**15) if damage == "invalid" else 0
    write(tmp_path, digital[:999] if damage == "short" else digital, length="1000")
    if damage in ("folder", "missing"):
        (tmp_path / "r.dat").unlink()
    if damage == "folder":
        (tmp_path / "r.dat").mkdir()
    assert not compiled_takes(tmp_path / "r")


@needs_compiler
@settings(max_examples=100, deadline=None)
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
def test_any_number_is_what_it_is_in_python(
    gain: str, baseline: str, zero: int, checksum: int, offset: str, length: int, blank: str, end: str
) -> None:
    signals = [["r.dat", f"16{offset}", f"{gain}{baseline}/mV", "16", zero, 0, checksum, 0, lead] for lead in LEADS]
    with TemporaryDirectory() as folder:
        write(Path(folder), samples(count=1050))
        lines = [["r", 12, 100, length], *signals]
        header = end.join(blank.join(map(str, line)) for line in lines)
        (Path(folder) / "r.hea").write_bytes(header.encode())
        compiled_takes(Path(folder) / "r")


@needs_compiler
@pytest.mark.parametrize("rate", ["100", "128", "257", "333.333", "400", "500", "512.5", "1000", "9991.1"])
def test_any_rate_order_and_number_of_files(tmp_path: Path, rate: str) -> None:
    order = np.random.default_rng(0).permutation(14)
    digital = samples(count=int(10.3 * float(rate)), leads=14)
    names = (*LEADS, "resp", "V3R")
    write(tmp_path, digital, rate=rate, names=tuple(names[i] for i in order))
    lines = (tmp_path / "r.hea").read_text().splitlines()
    matlab = np.array([30, 5, len(digital), 0, 4], "<i4").tobytes() + b"val\0"
    for first, last, name, before in ((1, 5, "r.x", b""), (5, 10, "r.mat", matlab), (10, 15, "r.y", b"left out")):
        form = f"16+{len(before)}" if before else "16"
        lines[first:last] = [line.replace("r.dat 16 ", f"{name} {form} ") for line in lines[first:last]]
        content = before + digital[:, first - 1 : last - 1].astype("<i2").tobytes()
        (tmp_path / name).write_bytes(content)
    (tmp_path / "r.hea").write_text("\n".join(lines))
    assert compiled_takes(tmp_path / "r")


@needs_compiler
@pytest.mark.parametrize("count", [500, 501, 734, 989, 990, 999])
def test_short_records(tmp_path: Path, count: int) -> None:
    for rate in (100, 400):
        write(tmp_path, samples(count=count * rate // 100), rate=str(rate))
        assert compiled_takes(tmp_path / "r")


@needs_compiler
def test_a_real_record_at_500_hz_is_taken(ptbxl_fold9: Path) -> None:
    headers = sorted(ptbxl_fold9.glob("records500/*/*.hea"))[::10]
    assert headers
    assert all(compiled_takes(header.with_suffix("")) for header in headers)


PARTS = ["I", "II", "III", "aVR", "V1", "C6", "D1", "DIII", "Dv1", "lead", "ECG", "mdc", "_", " ", "\t", "-", "x"]


@needs_compiler
@FEW
@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join), max_size=50))
def test_a_lead_has_the_same_names_in_both(names: list[str]) -> None:
    named = [name for name in names if name.strip()]
    with TemporaryDirectory() as folder:
        write(Path(folder), samples(leads=12 + len(named)), names=(*named, *LEADS))
        assert compiled_takes(Path(folder) / "r")


def test_without_the_compiled_reader_the_numbers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, samples(count=5000), rate="500")
    with_it = read(tmp_path, "r")
    monkeypatch.setattr(compiled, "reader", None)
    without = read(tmp_path, "r")
    assert with_it.signal.tobytes() == without.signal.tobytes()
    assert (with_it.flags, with_it.sha256) == (without.flags, without.sha256)


@needs_compiler
def test_it_checks_what_it_is_given(tmp_path: Path) -> None:
    write(tmp_path, samples())
    header = str(tmp_path / "r.hea")
    signal = np.empty((1000, 12))
    taps = np.ones(3)
    assert compiled.reader.read(header, "", lambda _: (100, 1, 1, 1, taps), signal)
    for arguments in [
        (header, "", lambda _: (100, 1, 1, 1, taps), signal[:999]),
        (header, "", lambda _: (100, 1), signal),
        (header, "", 7, signal),
    ]:
        with pytest.raises((ValueError, TypeError)):
            compiled.reader.read(*arguments)
    resampled = np.empty((500, 12))
    compiled.reader.resample(signal, 1, 2, taps, resampled)
    for up, down, some_taps, room in [
        *((0, 2, taps, resampled), (1, 0, taps, resampled), (1, 2, taps[:2], resampled), (1, 3, taps, resampled)),
        (1, 2, taps, resampled[:0]),
    ]:
        with pytest.raises((ValueError, BufferError)):
            compiled.reader.resample(signal, up, down, some_taps, room)
