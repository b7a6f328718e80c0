"""The limits of uncertainty keep their promise on records that they were not made from."""

import numpy as np
import pytest

from ecgbatch.models.evaluation.conformal import Limits, covered, limits, resampled


def drawn(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that know something of them but are far from calibrated."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < share).astype(np.int64)
    return labels, 1 / (1 + np.exp(-rng.normal(3.0 * labels - 4.0, 1.5)))


def test_limits_are_the_outermost_that_may_be_left_out() -> None:
    labels = np.repeat([1, 0], [19, 9])
    probabilities = np.concatenate([np.arange(1, 20) / 20, np.arange(1, 10) / 100])
    assert limits(labels, probabilities) == Limits(0.1, 0.09), "the second of 19, for floor(20 x 0.1) is 2; one of 9"
    assert limits(labels[1:], probabilities[1:]).low == 0.1, "of 18 the first"
    few = np.repeat([1, 0], 8)
    assert limits(few, np.linspace(0, 1, 16)) == Limits(0.0, 1.0), "eight of either kind rule out nothing"


@pytest.mark.parametrize("count, share", [(60, 0.5), (500, 0.1)])
def test_new_records_are_covered(count: int, share: float) -> None:
    """On average over many draws, as promised, and not by much more: (k + 1) / (n + 1) at most is lost to rounding."""
    present, absent = [], []
    for seed in range(400):
        fitted, fresh = drawn(count, share, seed), drawn(2000, share, 10_000 + seed)
        found = covered(*fresh, limits(*fitted))
        present.append(found.present)
        absent.append(found.absent)
    assert 0.895 < np.mean(present) < 0.94
    assert 0.895 < np.mean(absent) < 0.94


def test_resampling_finds_the_coverage_and_shows_where_there_is_none() -> None:
    labels, probabilities = drawn(1000, 0.3, 0)
    sound = resampled(labels, probabilities)
    assert 0.89 < sound.present < 0.93
    assert 0.89 < sound.absent < 0.93
    assert resampled(labels, probabilities, 0.6).present < 0.7
    shifted = covered(labels, probabilities * 0.2, limits(labels, probabilities))
    assert shifted.present < 0.7, "records of another kind are not covered, and that shows"
