"""The compiled reader gives what the one in Python gives, bit for bit, or leaves a record to it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wfdb_files import compiled_takes, needs_compiler, samples, write

from ecgbatch.records.leads import LEADS


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
