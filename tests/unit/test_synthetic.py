"""The synthetic archive: complete, readable by wfdb, and shaped like electrocardiograms."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.signal import find_peaks

from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.synthetic import RATES, RHYTHMS, write_archive
from ecgbatch.settings import EcgbatchError


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    write_archive(root)
    return root


def records(archive: Path) -> list[wfdb.Record]:
    return [wfdb.rdrecord(str(archive / record.path)) for record in Archive(archive).records()]


def comment(record: wfdb.Record, name: str) -> str:
    return next(c.removeprefix(f"{name}: ") for c in record.comments if c.startswith(f"{name}: "))


def r_peaks(record: wfdb.Record) -> np.ndarray:
    """Seconds of the R peaks, from the slopes of all chest leads."""
    steps = int(0.02 * record.fs)
    slopes = np.abs(record.p_signal[steps:, 6:] - record.p_signal[:-steps, 6:]).sum(axis=1)
    return find_peaks(slopes, height=0.4 * slopes.max(), distance=int(0.25 * record.fs))[0] / record.fs


def test_every_record_is_read_by_wfdb(archive: Path) -> None:
    found = records(archive)
    assert len(found) == 64
    for record in found:
        assert record.p_signal.shape == (10 * record.fs, 12)
        assert record.sig_name == list(LEADS)
        assert record.units == ["mV"] * 12
        assert record.checksum == (np.rint(record.p_signal * 1000).astype(int).sum(axis=0) % 65536).tolist()
        assert 0.5 < np.ptp(record.p_signal) < 10
    assert {record.fs for record in found} == set(RATES)
    assert {comment(record, "Rhythm") for record in found} == set(RHYTHMS)


def test_every_record_can_be_scored(archive: Path) -> None:
    for record in Archive(archive).records():
        assert set(read(archive, record.path).flags) <= {"resampled"}
        assert record.age is not None and 18 <= record.age < 90
        assert record.sex in (0, 1)
    assert {record.sex for record in Archive(archive).records()} == {0, 1}


def test_leads_obey_einthoven_and_goldberger(archive: Path) -> None:
    for record in records(archive):
        i, ii, iii, avr, avl, avf = record.p_signal[:, :6].T
        for sum_of_leads in (i + iii - ii, avr + (i + ii) / 2, avl - (i - iii) / 2, avf - (ii + iii) / 2):
            assert np.abs(sum_of_leads).max() < 0.0021


def test_the_heart_rate_is_the_one_in_the_header(archive: Path) -> None:
    for record in records(archive):
        if comment(record, "Rhythm") == "sinus rhythm":
            rate = 60 / np.diff(r_peaks(record)).mean()
            assert rate == pytest.approx(float(comment(record, "Heart rate")), rel=0.06)


def test_rhythms_differ_as_they_should(archive: Path) -> None:
    spread: dict[str, list[float]] = {rhythm: [] for rhythm in RHYTHMS}
    for record in records(archive):
        lengths = np.diff(r_peaks(record))
        spread[comment(record, "Rhythm")].append(float(lengths.std() / lengths.mean()))
    assert max(spread["sinus rhythm"]) < 0.06
    for rhythm in RHYTHMS[1:]:
        assert min(spread[rhythm]) > 0.08


def test_a_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_archive(tmp_path / folder, records=5, seed=seed)
    contents = [[f.read_bytes() for f in sorted((tmp_path / name).glob("*.dat"))] for name in "abc"]
    assert contents[0] == contents[1]
    assert all(a != c for a, c in zip(contents[0], contents[2], strict=True))
    assert all(a != b for a, b in pairwise(contents[0]))


def test_it_is_light() -> None:
    code = "import sys, ecgbatch.records.synthetic; print([m for m in ('wfdb', 'scipy', 'torch') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "[]"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EcgbatchError, match="cannot write"):
        write_archive(tmp_path / "file")
