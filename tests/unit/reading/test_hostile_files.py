"""What is missing, lies elsewhere, claims too much or is no file becomes a reason, at no cost."""

import os
import signal as signals
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from billiard.exceptions import SoftTimeLimitExceeded
from wfdb_files import (
    allocating_at_most,
    reason,
    replace,
    samples,
    write,
)

from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError


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
