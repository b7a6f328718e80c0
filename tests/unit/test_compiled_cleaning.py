"""The compiled cleaning against scipy, on every instruction set here."""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
import pytest
import reference
from float32 import assert_cleaned
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbatch.models import preprocessing
from ecgbatch.models.kernels import compiled
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.records import quality
from ecgbatch.settings import EcgbatchError

pytestmark = pytest.mark.skipif(
    not compiled.available(), reason="the compiled kernel is not built: needs a C++ compiler at install time"
)

SETS = compiled.usable_instructions()


def random_recordings(batch: int, samples: int, seed: int) -> np.ndarray:
    """(batch, samples, 12) mV that wander, as leads do that lose their contact."""
    return np.cumsum(np.random.default_rng(seed).standard_normal((batch, samples, 12)), axis=1) / 10


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9),
    samples=st.integers(22, 3000),
    offset=st.sampled_from([0.0, -3.0, 1000.0]),
    scale=st.sampled_from([1e-9, 1.0, 1e4]),
    instructions=st.sampled_from(SETS or ("none",)),
    seed=st.integers(0, 2**31),
)
def test_cleaning_is_what_scipy_does(
    batch: int, samples: int, offset: float, scale: float, instructions: str, seed: int
) -> None:
    signals = scale * (random_recordings(batch, samples, seed) + offset)
    expected = reference.clean(signals, Normalization(0.0, 1.0))
    cleaned, _ = compiled.clean(signals, Normalization(0.0, 1.0), instructions)
    assert cleaned.flags.c_contiguous
    assert_cleaned(cleaned, expected, signals)


def test_cleaning_gives_the_float32_that_scipy_gives_but_where_rounding_is_close() -> None:
    signals = random_recordings(8, 1000, 0)
    for instructions in SETS:
        cleaned, _ = compiled.clean(signals, Normalization(), instructions)
        assert np.mean(cleaned != reference.clean(signals, Normalization())) < 1e-3


def test_cleaning_has_the_same_bits_on_every_instruction_set_and_in_every_batch() -> None:
    signals = random_recordings(9, 1000, 1)
    together, qualities = compiled.clean(signals, Normalization())
    for instructions in SETS:
        for size in (1, 2, 9):
            parts = [signals[i : i + size] for i in range(0, 9, size)]
            cleaned, found = zip(*(compiled.clean(part, Normalization(), instructions) for part in parts))
            np.testing.assert_array_equal(np.concatenate(cleaned), together)
            assert [quality for part in found for quality in part] == qualities


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(22, 1200), seed=st.integers(0, 99), steps=st.sampled_from([0, 3, 1000]))
def test_quality_is_what_numpy_says_of_the_filtered_signal(samples: int, seed: int, steps: int) -> None:
    """Also of samples that are alike, as those of few bits are, and of leads that are constant."""
    signals = random_recordings(2, samples, seed)
    if steps:
        signals = np.round(signals * steps) / steps
    signals[0, :, seed % 12] = 1.5
    _, found = compiled.clean(signals, Normalization())
    np.testing.assert_allclose(found, quality.measure(preprocessing.filtered(signals)), rtol=1e-9, atol=1e-9)


def test_quality_of_what_is_known() -> None:
    """Of sines of 1 mV in I and 2 mV in all other leads: a range of 4 mV, more at the ends, III 1 mV too large."""
    wave = np.sin(2 * np.pi * 5 * np.arange(1000) / 100)
    signals = np.tile(2 * wave[:, None], (1, 1, 12))
    signals[0, :, 0] = wave
    [found], [silent] = (compiled.clean(each, Normalization())[1] for each in (signals, np.ones((1, 1000, 12))))
    assert found.amplitude == pytest.approx(4, rel=0.15)
    assert found.limb_residual == pytest.approx(np.sqrt(1 / 3), rel=1e-3)
    assert silent.amplitude < 1e-9
    assert silent.limb_residual == 0


@pytest.mark.parametrize("instructions", SETS)
def test_constant_leads_become_nothing(instructions: str) -> None:
    levels = np.array([0.0, 1.0, -1.0, 1e-6, 5.0, 1e4, 0.0, -300.0, 2.5, 1e-12, 32.767, -32.768])
    cleaned, _ = compiled.clean(np.tile(levels, (2, 1000, 1)), Normalization(0.0, 1.0), instructions)
    assert (cleaned[:, :, levels == 0] == 0).all()
    assert (np.abs(cleaned) <= 1e-9 * np.abs(levels)).all()


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 10, 500, 999])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_broken_sample_breaks_its_lead_alone_as_in_scipy(at: int, broken: float, instructions: str) -> None:
    signals = random_recordings(3, 1000, 2)
    expected, _ = compiled.clean(signals, Normalization(), instructions)
    expected[1, :, 7] = np.nan
    signals[1, at, 7] = broken
    np.testing.assert_array_equal(compiled.clean(signals, Normalization(), instructions)[0], expected)
    np.testing.assert_array_equal(np.isnan(reference.clean(signals, Normalization())), np.isnan(expected))


def test_threads_clean_at_once() -> None:
    signals = random_recordings(8, 1000, 3)
    alone, _ = compiled.clean(signals, Normalization())
    with ThreadPoolExecutor(2) as pool:
        for result, _ in pool.map(lambda _: compiled.clean(signals, Normalization()), range(50)):
            np.testing.assert_array_equal(result, alone)


def test_other_threads_run_while_one_cleans() -> None:
    signals = random_recordings(300, 1000, 5)

    def clean() -> tuple[float, float]:
        began = time.perf_counter()
        compiled.clean(signals, Normalization(), "baseline")
        return began, time.perf_counter()

    def moments_within_a_call() -> int:
        moments = []
        cleaning = pool.submit(clean)
        while not cleaning.done():
            moments.append(time.perf_counter())
            time.sleep(0.0005)
        began, ended = cleaning.result()
        return sum(began < moment < ended for moment in moments)

    with ThreadPoolExecutor(1) as pool:
        assert median(moments_within_a_call() for _ in range(15)) >= 4


def test_signals_no_longer_than_the_padding_are_refused() -> None:
    assert compiled.clean(np.ones((2, 22, 12)), Normalization())[0].shape == (2, 22, 12)
    for samples in (0, 1, 21):
        with pytest.raises(ValueError, match="21"):
            compiled.clean(np.ones((2, samples, 12)), Normalization())


def test_arrays_that_cannot_be_cleaned_are_refused() -> None:
    signals = random_recordings(2, 100, 4)
    wrong = [
        signals.astype(np.float32),
        signals.astype(">f8"),
        signals[:, ::2],
        signals.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        signals[:, :, :11].copy(),
        signals[0],
        np.broadcast_to(np.float64(0), (0, 2**20 + 1, 12)).copy(),
    ]
    for array in wrong:
        with pytest.raises(EcgbatchError, match=r"^[^\n]+$"):
            compiled.clean(array, Normalization())
    with pytest.raises(EcgbatchError, match="sse9"):
        compiled.clean(signals, Normalization(), "sse9")
    assert compiled.clean(signals[:0], Normalization())[0].shape == (0, 100, 12)


def test_the_kernel_checks_what_it_is_to_clean() -> None:
    clean, filters = compiled._kernel.clean, compiled._FILTERS
    signals, cleaned, qualities = np.zeros(2 * 30 * 12), np.zeros(2 * 30 * 12, np.float32), np.zeros(4)
    clean("baseline", *filters, 0.0, 1.0, signals, cleaned, qualities, 2, 30)
    for batch, samples in [(2, 31), (1, 30), (3, 20), (-2, -30), (2, 0), (1, 2**60)]:
        with pytest.raises(ValueError):
            clean("baseline", *filters, 0.0, 1.0, signals, cleaned, qualities, batch, samples)
    for arguments in [
        ("sse9", *filters, 0.0, 1.0, signals, cleaned, qualities),
        ("baseline", *filters[::-1], 0.0, 1.0, signals, cleaned, qualities),
        ("baseline", filters[0], filters[1][:-1], 0.0, 1.0, signals, cleaned, qualities),
        ("baseline", *filters, 0.0, 1.0, signals, cleaned[:-1], qualities),
        ("baseline", *filters, 0.0, 1.0, signals, cleaned, qualities[:-1]),
        ("baseline", *filters, 0.0, 1.0, signals[:-1], cleaned, qualities),
    ]:
        with pytest.raises(ValueError):
            clean(*arguments, 2, 30)
