"""What is missing, lies elsewhere, claims too much or is no file becomes a reason, at no cost."""

import os
import re
import signal as signals
import sqlite3
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from billiard.exceptions import SoftTimeLimitExceeded
from wfdb_files import (
    HEADER,
    allocating_at_most,
    failure,
    reason,
    replace,
    samples,
    write,
)

from ecgbatch.records.formats import wfdb_header
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


@pytest.mark.parametrize("named", ["jobs.db", "jobs.db-wal", "jobs.db-shm", "link"])
def test_a_database_in_use_is_not_opened(tmp_path: Path, named: str) -> None:
    write(tmp_path, samples())
    (tmp_path / "link").symlink_to("jobs.db")
    replace(tmp_path / "r.hea", "r.dat", named)
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE jobs (id)")
    assert reason(tmp_path) == Reason.NOT_A_FILE
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM jobs')"
    subprocess.run([sys.executable, "-c", script, tmp_path / "jobs.db"], check=True)
    assert (tmp_path / "jobs.db-wal").exists(), "our locks are gone: another process takes itself for the last one"
    connection.close()
    assert reason(tmp_path) != Reason.NOT_A_FILE


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


def test_git_lfs_pointers_say_what_to_do(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0797d0a8\nsize 120000\n"
    write(tmp_path, samples())
    (tmp_path / "r.dat").write_text(pointer)
    error = failure(tmp_path)
    assert (error.reason, error.detail) == (
        Reason.UNREADABLE_SIGNAL,
        "r.dat is a Git LFS pointer: run git lfs pull",
    )
    (tmp_path / "r.hea").write_text(pointer)
    error = failure(tmp_path)
    assert (error.reason, error.detail) == (
        Reason.UNREADABLE_HEADER,
        "r.hea is a Git LFS pointer: run git lfs pull",
    )


def test_real_git_lfs_pointers(shared: Path) -> None:
    assert "git lfs pull" in failure(shared / "field/lfs", "00001_hr").detail


SECRET = "root:$6$secret:19000:0:99999:7:::"


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        f"r 12 100 1000\n{SECRET}\n" + 11 * "x 16\n",
        f"r/1 12 100 1000\n{SECRET}\n",
        HEADER.replace("1000(0)/mV", f"1000(0)/{SECRET}"),
        HEADER.replace("r.dat", f"/{SECRET}"),
        HEADER.replace(" V2", f" {SECRET}"),
        HEADER.replace("r.dat 16", "r.dat 99"),
    ],
)
def test_a_failure_quotes_nothing_of_a_file(tmp_path: Path, content: str) -> None:
    write(tmp_path, samples())
    (tmp_path / "r.hea").write_text(content)
    assert "secret" not in str(failure(tmp_path))


NASTY = [
    *("r 12 " + "1" * n + "/" + "1" * n + "(" + "1" * n for n in (300, 328)),
    "r 12 " + "1" * 990,
    "r" + " " * 990 + "x",
    "r 12 1" + "." * 990,
    "r 12 " + "1e1" * 300,
    "r 12 100/" + "1." * 480 + "(",
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("line", NASTY, ids=range(len(NASTY)))
def test_no_record_line_takes_long(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.hea").write_text(line + "\n" + HEADER.partition("\n")[2])
    began = time.process_time()
    reason(tmp_path)
    assert time.process_time() - began < 1


GROWING: list[tuple[re.Pattern[str], Callable[[int], str]]] = [
    *(
        (wfdb_header._RECORD_LINE, lambda n, c=c: "r 12 " + c * n + "(" + c * n)
        for c in ("1", "1.", "1e1", " ", ".", "+")
    ),
    *((wfdb_header._RECORD_LINE, lambda n, c=c: c * n + "!") for c in ("r", "r ", "1/", " ")),
    *(
        (wfdb_header._SIGNAL_LINE, lambda n, c=c: "r.dat 16x1:1+1 " + c * n + "(0)/mV " + c * n + "!")
        for c in ("1", "1 ", "1.", "1e1", " ", "(1", "/")
    ),
    *((wfdb_header._SIGNAL_LINE, lambda n, c=c: c * n + " 16" + c * n + "!") for c in ("x", "x ", "1 ", "1x")),
    *((wfdb_header._SEGMENT_LINE, lambda n, c=c: c * n + "!") for c in ("s", "s ", "~ ", "1 ", "-")),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", GROWING, ids=range(len(GROWING)))
def test_no_expression_takes_more_than_linear_time(case: tuple[re.Pattern[str], Callable[[int], str]]) -> None:
    """Fifty thousand letters take a millisecond; what backtracks takes a minute, or for ever."""
    expression, text = case

    def seconds(n: int) -> float:
        line = text(n)
        return min(timeit.repeat(lambda: expression.fullmatch(line), number=1, repeat=2, timer=time.process_time))

    assert seconds(50_000) < 1


def test_many_linked_files_take_the_memory_of_one(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(16 << 20))
    lines = ["r 40 100 1000"]
    for number in range(40):
        (tmp_path / f"{number}.dat").symlink_to("big")
        lines.append(f"{number}.dat 16 1000/mV 16 0 0 0 0 {LEADS[number] if number < 12 else 'x'}")
    (tmp_path / "r.hea").write_text("\n".join(lines))
    with allocating_at_most(64 << 20):
        assert reason(tmp_path) == Reason.NO_SIGNAL


@pytest.mark.parametrize(
    ("first", "line", "most"), [("r {} 100 1000", "r.dat 16", 1001), ("r/{} 12 100 9", "s 1", 10_001)]
)
def test_too_many_signals_or_segments(tmp_path: Path, first: str, line: str, most: int) -> None:
    (tmp_path / "r.hea").write_text("\n".join([first.format(most), *[line] * most]))
    assert reason(tmp_path) == Reason.TOO_LARGE


def test_its_first_seconds_in_too_many_segments(tmp_path: Path) -> None:
    write(tmp_path, samples(count=1), name="s")
    (tmp_path / "r.hea").write_text("\n".join(["r/2000 12 1000 2000", *["s 1"] * 2000]))
    replace(tmp_path / "s.hea", "s 12 100 1", "s 12 1000 1")
    assert reason(tmp_path) == Reason.TOO_LARGE
