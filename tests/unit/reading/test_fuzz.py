"""Anything at all is read, or becomes a reason."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from places import REPOSITORY
from wfdb_files import FEW, FRAGMENTS, HEADER, read_or_fail, samples


@settings(max_examples=120, deadline=None)
@given(header=st.binary(max_size=300) | st.text(max_size=300).map(str.encode), data=st.binary(max_size=100))
def test_any_header_is_read_or_a_record_error(header: bytes, data: bytes) -> None:
    assert read_or_fail(header, data) is None


@settings(max_examples=120, deadline=None)
@given(lines=st.lists(st.sampled_from(FRAGMENTS + HEADER.splitlines()), max_size=16), data=st.binary(max_size=100))
def test_any_mixture_of_header_lines_is_read_or_a_record_error(lines: list[str], data: bytes) -> None:
    read_or_fail("\n".join(lines).encode(), data * 300)


@settings(max_examples=120, deadline=None)
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


def test_damaged_records_are_read_alike_by_all_readers(tmp_path: Path) -> None:
    """The first few of those that `benchmarks/fuzz.py` tries by the thousand."""
    script = REPOSITORY / "benchmarks/fuzz.py"
    line = [sys.executable, "-W", "ignore", str(script), "--inputs", "200", "--first", "100000"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    counts = {row["what"]: row["inputs"] for row in found["rows"]}
    assert counts["read"] + counts["refused"] == 200
    assert counts["as wfdb"] > 30
