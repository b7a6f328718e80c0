"""Filters, normalisation, age and sex."""

import importlib.util
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import golden
import numpy as np
import pytest
import reference
import torch
from float32 import assert_cleaned
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt, iirnotch, lfilter_zi

from ecgbatch.models import preprocessing
from ecgbatch.models.kernels import compiled
from ecgbatch.models.kernels.filtering import Filters
from ecgbatch.models.preprocessing import MetadataFill, Normalization, metadata
from ecgbatch.models.weights.normalization_file import load_normalization
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES, SAMPLING_RATE
from ecgbatch.settings import EcgbatchError

SOME_GOLDEN = (138, 292, 456)
FILL = MetadataFill(age=59.0, sex=0.4)
Clean = Callable[[NDArray[np.float64], Normalization], NDArray[np.float32]]


def compiled_clean(
    instructions: str, signals: NDArray[np.float64], normalization: Normalization
) -> NDArray[np.float32]:
    return compiled.clean(signals, normalization, instructions)[0]


CLEANERS: dict[str, Clean] = {name: partial(compiled_clean, name) for name in compiled.usable_instructions()}
CLEANERS["numpy"] = preprocessing.clean


@pytest.fixture(params=CLEANERS)
def clean(request: pytest.FixtureRequest) -> Clean:
    return CLEANERS[request.param]


@pytest.mark.parametrize("batch", [1, 5])
def test_records_at_once_give_what_leads_one_by_one_give(clean: Clean, batch: int) -> None:
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((batch, SAMPLES, 12)) + 3 * np.sin(np.arange(SAMPLES) / 200)[:, None]
    cleaned = clean(signals, Normalization())
    assert cleaned.flags.c_contiguous
    assert_cleaned(cleaned, reference.clean(signals, Normalization()), signals)


@settings(max_examples=20, deadline=None)
@given(at=st.integers(0, SAMPLES - 1), lead=st.integers(0, len(LEADS) - 1), size=st.floats(-30, 30))
@pytest.mark.parametrize("cleaner", CLEANERS)
def test_a_single_spike_anywhere_is_cleaned_as_scipy_does(cleaner: str, at: int, lead: int, size: float) -> None:
    """The first and last samples are those on which the filters' padding is built."""
    signals = np.zeros((1, SAMPLES, len(LEADS)))
    signals[0, at, lead] = size
    cleaned = CLEANERS[cleaner](signals, Normalization(0.0, 1.0))
    assert_cleaned(cleaned, reference.clean(signals, Normalization(0.0, 1.0)), signals)


def by_scipy(signals: np.ndarray) -> np.ndarray:
    for each in preprocessing.FILTERS:
        signals = filtfilt(each.numerator, each.denominator, signals, axis=1)
    return signals


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("samples", [22, 49, 250, 500, 730, 737, SAMPLES, 3000])
def test_filtering_is_what_scipy_does_at_any_length(samples: int, offset: float) -> None:
    """However far leads are off, in numpy and in torch."""
    signals = np.cumsum(np.random.default_rng(1).standard_normal((4, samples, 12)), axis=1) / 10 + offset
    expected = by_scipy(signals)
    in_torch = Filters()(torch.from_numpy(signals)).numpy()
    for filtered in (preprocessing.filtered(signals), in_torch):
        np.testing.assert_allclose(filtered, expected, atol=1e-11 * np.abs(signals).max(), rtol=0)


def test_the_state_at_rest_is_scipys() -> None:
    for each in preprocessing.FILTERS:
        np.testing.assert_allclose(each.at_rest, lfilter_zi(each.numerator, each.denominator), rtol=1e-10)


def test_the_filters_take_drift_and_mains_away_and_leave_the_beats(clean: Clean) -> None:
    t = np.arange(SAMPLES) / 100
    parts = np.zeros((SAMPLES, 12))
    parts[:, :3] = np.stack([np.full(SAMPLES, 2.0), np.sin(2 * np.pi * 0.1 * t), np.sin(2 * np.pi * 10 * t)], axis=1)
    drift, slow, beats = clean(parts[None], Normalization(0.0, 1.0))[0, 200:-200, :3].T
    assert np.abs(drift).max() < 0.01
    assert np.abs(slow).max() < 0.05
    assert np.abs(beats - parts[200:-200, 2]).max() < 0.03


@pytest.fixture(scope="module")
def golden_signals(shared: Path) -> np.ndarray:
    spec = importlib.util.spec_from_file_location("ptbxl_archive", shared / "ptbxl/ptbxl_archive.py")
    assert spec and spec.loader
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    found: dict[int, NDArray[np.float64]] = {}
    for part in ("fold08", "extra"):
        ids, samples = pack.load(shared / f"ptbxl/ptbxl100_{part}.pxl")
        found |= {ecg_id: samples[place] / 1000 for place, ecg_id in enumerate(ids) if ecg_id in SOME_GOLDEN}
    return np.stack([found[ecg_id] for ecg_id in SOME_GOLDEN])


def test_golden_records(clean: Clean, golden_signals: np.ndarray, shared: Path) -> None:
    expected = np.load(shared / "golden/expected.npz")["preprocessed"]
    some = [golden.ECG_IDS.index(ecg_id) for ecg_id in SOME_GOLDEN]
    assert_cleaned(clean(golden_signals, Normalization()), expected[some].astype(np.float32), golden_signals)


def test_the_coefficients_are_those_that_scipy_designs() -> None:
    bandpass = butter(preprocessing.BANDPASS_ORDER, preprocessing.BANDPASS_HZ, "bandpass", fs=SAMPLING_RATE)
    notch = iirnotch(preprocessing.NOTCH_HZ, preprocessing.NOTCH_Q, fs=SAMPLING_RATE)
    for ours, designed in zip(preprocessing.FILTERS, (bandpass, notch), strict=True):
        for coefficients, wanted in zip((ours.numerator, ours.denominator), designed, strict=True):
            np.testing.assert_allclose(coefficients, wanted, rtol=1e-13, atol=1e-15)


def test_signals_no_longer_than_the_padding_are_refused(clean: Clean) -> None:
    for samples in (0, 1, preprocessing.SHORTEST - 1):
        with pytest.raises(ValueError, match=r"2[12]"):
            clean(np.ones((2, samples, 12)), Normalization())


def test_no_records_give_none(clean: Clean) -> None:
    assert clean(np.empty((0, SAMPLES, 12)), Normalization()).shape == (0, SAMPLES, 12)


@pytest.mark.parametrize(
    ("age", "sex", "values", "flags"),
    [
        (56.0, 1, (56.0, 1.0), ()),
        (0.0, 0, (0.0, 0.0), ()),
        (120.0, 0, (120.0, 0.0), ()),
        (None, 0, (59.0, 0.0), ("age_missing",)),
        (float("nan"), 0, (59.0, 0.0), ("age_missing",)),
        (300.0, 0, (90.0, 0.0), ("age_over_89",)),
        (121.0, 0, (59.0, 0.0), ("age_implausible",)),
        (-1.0, 0, (59.0, 0.0), ("age_implausible",)),
        (float("inf"), 0, (59.0, 0.0), ("age_implausible",)),
        (40.0, None, (40.0, 0.4), ("sex_missing",)),
        (40.0, 2, (40.0, 0.4), ("sex_missing",)),
        (None, None, (59.0, 0.4), ("age_missing", "sex_missing")),
    ],
)
def test_age_and_sex(age: float | None, sex: float | None, values: tuple[float, float], flags: tuple[str, ...]) -> None:
    assert metadata(age, sex, FILL) == (values, flags)


@given(age=st.none() | st.floats(), sex=st.none() | st.floats())
def test_whatever_age_and_sex_what_goes_in_can_be(age: float | None, sex: float | None) -> None:
    (years, coded), flags = metadata(age, sex, FILL)
    assert 0 <= years <= 120
    assert 0 <= coded <= 1
    assert bool(flags) == ((years, coded) != (age, sex))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_normalization_in_both_forms(tmp_path: Path, shape: tuple[int, ...]) -> None:
    mean, std = np.full(shape, -0.25), np.full(shape, 1.5)
    np.savez(tmp_path / "new.npz", global_mean=mean, global_std=std)
    np.savez(tmp_path / "old.npz", mean, std)
    assert (
        load_normalization(tmp_path / "new.npz")
        == load_normalization(tmp_path / "old.npz")
        == Normalization(-0.25, 1.5)
    )


def test_a_normalization_that_unpacks_to_megabytes_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", global_mean=np.zeros(4_000_000), global_std=1.0)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**16
    tracemalloc.start()
    with pytest.raises(EcgbatchError, match="of two numbers"):
        load_normalization(tmp_path / "bomb.npz")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000


def test_files_that_hold_no_normalization(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", a=1.0, b=2.0)
    np.savez(tmp_path / "long.npz", np.zeros(3), np.ones(3))
    np.savez(tmp_path / "flat.npz", 0.0, 0.0)
    np.savez(tmp_path / "nan.npz", np.nan, 1.0)
    np.savez(tmp_path / "text.npz", "a", "b")
    np.savez(tmp_path / "objects.npz", np.array([None]), np.array([None]))
    np.save(tmp_path / "array.npy", np.zeros(2))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.txt").write_text("mean 0, std 1")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "flat.npz").read_bytes()[:100])
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "long file.npz").write_bytes((tmp_path / "flat.npz").read_bytes() + bytes(2**16))
    paths = [*tmp_path.iterdir(), tmp_path / "missing.npz"]
    assert len(paths) == 13
    for path in paths:
        with pytest.raises(EcgbatchError) as error:
            load_normalization(path)
        assert "\n" not in str(error.value)
