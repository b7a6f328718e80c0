"""An ECG gives the same numbers whatever format it is in."""

from pathlib import Path

import numpy as np
import pytest
from ecg_files import ARCHIVE_TOML, WRITERS, code15, dicom, scp, wfdb
from ecg_made import AGE, SEX, Ecg, make

from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Flag

QUANTIZED = 0.004
"""Millivolts that rounding to a device's step can make, III and the augmented leads derived from it included."""


@pytest.mark.parametrize("name", WRITERS)
def test_signal_age_sex_and_provenance(folder: Path, name: str) -> None:
    original, found = read(folder, "original"), read(folder, name)
    assert np.abs(found.signal - original.signal).max() < QUANTIZED
    told = name not in ("sph.h5", "npy.npy", "csv.csv")
    assert (found.age, found.sex) == ((AGE, SEX) if told else (None, None))
    assert set(found.flags) == {Flag.RESAMPLED} | ({Flag.LEADS_DERIVED} if name == "muse.xml" else set())
    assert found.format != "wfdb" and len(found.sha256) == 64
    assert "doe" not in f"{found.device}".lower()


def test_probabilities(tmp_path: Path) -> None:
    """Of files in the same steps of 1 uV; what a device's own steps change, up to 0.006, is lost and not misread."""
    ecg = make(500, seed=3)._replace(step=1)
    wfdb(tmp_path, "original", ecg)
    (tmp_path / "archive.toml").write_text(ARCHIVE_TOML.format(rate=500))
    for name, write in WRITERS.items():
        (tmp_path / name).write_bytes(write(ecg))
    scorer = Scorer(Registry(SHIPPED).find(None))
    recordings = [read(tmp_path, name) for name in ("original", *WRITERS)]
    cleaned, _ = scorer.clean(np.stack([recording.signal for recording in recordings]))
    probabilities = scorer.score(cleaned, np.array([[AGE, SEX]] * len(recordings), np.float32))
    assert np.abs(probabilities[1:] - probabilities[0]).max() < 1e-3


@pytest.mark.parametrize("options", [{"huffman": False}, {"from_zero": True}, {"subtracted": True}], ids=str)
def test_scp_as_others_write_it(folder: Path, ecg: Ecg, tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "x.scp").write_bytes(scp(ecg, **options))
    found = read(tmp_path, "x.scp")
    assert np.abs(found.signal - read(folder, "scp.scp").signal).max() < 1e-9
    assert Flag.CHECKSUM_MISMATCH not in found.flags


@pytest.mark.parametrize("options", [{"hemodynamic": True}, {"meaning_only": True}], ids=str)
def test_dicom_as_others_write_it(folder: Path, ecg: Ecg, tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "x.dcm").write_bytes(dicom(ecg, **options))
    assert np.abs(read(tmp_path, "x.dcm").signal - read(folder, "dicom.dcm").signal).max() < 1e-9


def test_each_record_of_code15_without_the_zeros_around_it(tmp_path: Path) -> None:
    ecgs = [Ecg(make(400, seed).millivolts[:length], 400) for seed, length in enumerate((4000, 2934, 2100))]
    code15(tmp_path / "part.hdf5", ecgs, [11, 7, 13])
    for number, ecg in zip((11, 7, 13), ecgs, strict=True):
        wfdb(tmp_path, "original", ecg)
        original, found = read(tmp_path, "original"), read(tmp_path, f"part.hdf5::{number}")
        assert found.signal.shape == original.signal.shape
        assert np.abs(found.signal - original.signal).max() < QUANTIZED
        assert found.flags == original.flags


def test_digests_tell_records_and_layouts_apart(tmp_path: Path, ecg: Ecg) -> None:
    np.save(tmp_path / "two.npy", np.stack([ecg.millivolts, 2 * ecg.millivolts]))
    toml = 'rate = {}\nunits = "mV"\nleads = ["I","II","III","aVR","aVL","aVF","V1","V2","V3","V4","V5","V6"]'
    digests = set()
    for rate in (500, 250):
        (tmp_path / "archive.toml").write_text(toml.format(rate))
        digests |= {read(tmp_path, f"two.npy::{member}").sha256 for member in (0, 1)}
    assert len(digests) == 4
