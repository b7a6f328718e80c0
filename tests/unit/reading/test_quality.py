"""What a signal says about its recording: wrong gains and units, and limb leads that contradict each other."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reference import clean

from ecgbatch.models.preprocessing import Normalization
from ecgbatch.records import quality
from ecgbatch.records.quality import Quality
from ecgbatch.records.reading import read
from ecgbatch.records.synthetic import write_archive


def measure(signal: NDArray[np.float64]) -> Quality:
    filtered = clean(signal[None], Normalization(0.0, 1.0))[0]
    return quality.measure(filtered.astype(np.float64)[None])[0]


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.float64]]:
    root = tmp_path_factory.mktemp("archive")
    write_archive(root, 8)
    return [read(root, name).signal for name in (root / "RECORDS").read_text().split()]


def test_it_is_what_it_is_said_to_be() -> None:
    filtered = np.zeros((1000, 12))
    filtered[:, 0], filtered[:, 1], filtered[:, 2] = np.sin(np.arange(1000)), 0, 0
    filtered[:, 3:] = np.arange(1000)[:, None] / 999
    np.testing.assert_allclose(quality.measure(filtered[None])[0], measure_directly(filtered), rtol=1e-12)
    assert quality.measure(np.zeros((2, 500, 12))) == [(0, 0), (0, 0)]


def measure_directly(filtered: NDArray[np.float64]) -> Quality:
    ranges = [np.percentile(lead, 99.5) - np.percentile(lead, 0.5) for lead in filtered.T]
    first, second, third = filtered.T[:3]
    residual = np.sqrt(np.mean((first + third - second) ** 2)) / np.sqrt(np.mean([first**2, second**2, third**2]))
    return Quality(float(np.median(ranges)), float(residual))


def test_sound_recordings_have_no_flag(signals: list[NDArray[np.float64]]) -> None:
    for signal in signals:
        assert measure(signal).flags() == set()


@pytest.mark.parametrize("factor", [1e-3, 1 / 10, 10, 200, 1e3])
def test_wrong_units_and_gains_show(signals: list[NDArray[np.float64]], factor: float) -> None:
    for signal in signals:
        assert measure(factor * signal).flags() == {"amplitude_implausible"}


def test_leads_that_contradict_each_other_show(signals: list[NDArray[np.float64]]) -> None:
    for signal in signals:
        each_to_its_own_range = signal / (signal.max(axis=0) - signal.min(axis=0))
        assert "limb_leads_contradict" in measure(each_to_its_own_range).flags()
        swapped = signal[:, [0, 2, 1, *range(3, 12)]]
        assert "limb_leads_contradict" in measure(swapped).flags()


@pytest.mark.parametrize("record", ["1", "5", "9"])
def test_each_lead_scaled_to_its_own_range(shared: Path, record: str) -> None:
    assert measure(read(shared / "field/gains", record).signal).flags() == {"limb_leads_contradict"}


@pytest.mark.parametrize("record", ["E00001", "E00004", "E00007", "HR00005", "HR00009", "S0003"])
def test_wrong_gains_of_real_archives(shared: Path, record: str) -> None:
    assert measure(read(shared / "field/gains", record).signal).flags() == {"amplitude_implausible"}


def test_real_recordings_are_rarely_flagged(ptbxl_fold9: Path) -> None:
    records = (ptbxl_fold9 / "RECORDS").read_text().split()[::10]
    flagged = [record for record in records if measure(read(ptbxl_fold9, record).signal).flags()]
    assert len(flagged) <= 0.006 * len(records), flagged
