"""Any name that a file system allows is written down exactly, in letters that every database holds."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgbatch.records.paths import LONGEST, on_disk, write_down
from ecgbatch.records.recording import Reason, RecordError


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (b"records100/00000/00001_lr", "records100/00000/00001_lr"),
        (b"x ", "x "),
        (b"back\\slash", "back\\slash"),
        (b"20:15:30 ecg", "20:15:30 ecg"),
        ("Müller/心电图".encode(), "Müller/心电图"),
        (b"\xff\x80a", "%FF%80a"),
        (b"100%", "100%"),
        (b"50%20x", "50%20x"),
        (b"a%FFb", "a%25FFb"),
        (b"%25", "%2525"),
        (b"a::b", "a%3A:b"),
        (b"two\nlines\x1b[31m", "two\nlines\x1b[31m"),
    ],
)
def test_names_and_how_they_are_written(name: bytes, written: str) -> None:
    assert write_down(os.fsdecode(name)) == written
    assert on_disk(written) == (os.fsdecode(name), None)


def test_a_locale_that_knows_no_utf_8_changes_nothing() -> None:
    code = "import os; from ecgbatch.records.paths import on_disk, write_down\n" + (
        "for name in ('Müller/心电图'.encode(), b'\\xff'):\n"
        "    path, member = on_disk(write_down(os.fsdecode(name), '心'))\n"
        "    assert (os.fsencode(path), member) == (name, '心')"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", f"exec({code!a})"], env=environment, check=True)


@given(name=st.binary(max_size=30), member=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
def test_every_name_comes_back(name: bytes, member: str | None) -> None:
    written = write_down(os.fsdecode(name), member)
    assert written.encode().decode() == written
    assert "\0" not in written
    path, its_member = on_disk(written)
    assert os.fsencode(path) == name
    assert its_member == member


@given(names=st.lists(st.text("%258F[A:\udcff/", max_size=6), min_size=2, max_size=2, unique=True))
def test_different_names_are_written_differently(names: list[str]) -> None:
    assert write_down(names[0]) != write_down(names[1])


def test_a_path_that_no_index_holds_is_written_short_and_cannot_be_read() -> None:
    a, b = (write_down(f"{'d/' * 1500}{name}") for name in "ab")
    assert a != b
    assert len(a.encode()) < 1000
    assert write_down("x" * LONGEST) == "x" * LONGEST
    with pytest.raises(RecordError) as caught:
        on_disk(a)
    assert caught.value.reason == Reason.UNSAFE_PATH
    looks_so = a.replace("%[", "%25[")
    assert write_down(on_disk(looks_so)[0]) == looks_so
