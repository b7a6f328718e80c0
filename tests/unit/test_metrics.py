"""The metrics against their definitions, written out record by record."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgbatch.models.evaluation import metrics


class Case(NamedTuple):
    """Records, few of whose probabilities differ, and how often each counts."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    counts: NDArray[np.int64]


PROBABILITY = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.999, 1.0]) | st.floats(0, 1, width=32)
ROW = st.tuples(st.integers(0, 1), PROBABILITY, st.integers(0, 3))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    labels, probabilities, counts = zip(*draw(st.lists(ROW, min_size=1, max_size=30)), strict=True)
    return Case(np.array(labels), np.array(probabilities), np.array([max(1, counts[0]), *counts[1:]]))


def auc(labels: list[int], probabilities: list[float]) -> float:
    pairs = [
        (p > q) + (p == q) / 2
        for yes, p in zip(labels, probabilities, strict=True)
        for no, q in zip(labels, probabilities, strict=True)
        if yes and not no
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def average_precision(labels: list[int], probabilities: list[float]) -> float:
    if not any(labels):
        return math.nan
    total = recall = 0.0
    for threshold in sorted(set(probabilities), reverse=True):
        taken = [label for label, p in zip(labels, probabilities, strict=True) if p >= threshold]
        new = sum(taken) / sum(labels)
        total += (new - recall) * sum(taken) / len(taken)
        recall = new
    return total


def calibration_error(labels: list[int], probabilities: list[float]) -> float:
    total = 0.0
    for number in range(10):
        held = [(label, p) for label, p in zip(labels, probabilities, strict=True) if min(int(p * 10), 9) == number]
        if held:
            share, mean = (sum(column) / len(held) for column in zip(*held, strict=True))
            total += len(held) / len(labels) * abs(share - mean)
    return total


DEFINITIONS: list[tuple[Callable[..., NDArray[np.float64]], Callable[[list[int], list[float]], float]]] = [
    (metrics.roc_auc, auc),
    (metrics.average_precision, average_precision),
    (metrics.expected_calibration_error, calibration_error),
]


@pytest.mark.parametrize(("metric", "definition"), DEFINITIONS)
@given(case=cases())
def test_a_metric_is_what_its_definition_says(
    metric: Callable[..., NDArray[np.float64]], definition: Callable[[list[int], list[float]], float], case: Case
) -> None:
    labels, probabilities, counts = case
    once = definition(labels.tolist(), probabilities.tolist())
    assert metric(labels, probabilities) == pytest.approx(once, abs=1e-12, nan_ok=True)
    repeated = definition(labels.repeat(counts).tolist(), probabilities.repeat(counts).tolist())
    both = metric(labels, probabilities, np.stack([np.ones(len(counts)), counts]))
    assert both == pytest.approx([once, repeated], abs=1e-12, nan_ok=True)


@given(cases())
def test_decisions_are_counted_as_they_are(case: Case) -> None:
    labels, probabilities, counts = case
    found = probabilities >= 0.3
    cells = [0.0, 0.0, 0.0, 0.0]
    for label, yes, count in zip(labels, found, counts, strict=True):
        cells[{(1, True): 0, (0, True): 1, (1, False): 2, (0, False): 3}[int(label), bool(yes)]] += int(count)
    confusion = metrics.confusion(labels, found, counts.astype(float))
    assert [float(cell) for cell in confusion] == cells
    precision = cells[0] / (cells[0] + cells[1]) if cells[0] + cells[1] else 0
    recall = cells[0] / (cells[0] + cells[2]) if cells[0] + cells[2] else 0
    assert (float(confusion.precision), float(confusion.recall)) == (precision, recall)
    harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert confusion.f1 == pytest.approx(harmonic)


@given(cases())
def test_no_threshold_is_better_than_the_best(case: Case) -> None:
    labels, probabilities, _ = case

    def f1(threshold: float) -> float:
        return float(metrics.confusion(labels, probabilities >= threshold).f1)

    best = metrics.best_threshold(labels, probabilities)
    assert f1(best) == max(map(f1, probabilities))
    at_least = probabilities[probabilities >= best]
    below = probabilities[probabilities < best]
    if len(below):
        assert best == pytest.approx((at_least.min() + below.max()) / 2)


def test_known_figures() -> None:
    """Two negatives and two positives, one pair of which is the wrong way round."""
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.roc_auc(labels, probabilities) == 0.75
    assert metrics.average_precision(labels, probabilities) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx((0.1 + 0.4 + 0.65 + 0.2) / 4)
    assert metrics.best_threshold(labels, probabilities) == pytest.approx((0.1 + 0.35) / 2)


@pytest.mark.parametrize("label", [0, 1])
def test_what_cannot_be_said_is_not_a_number(label: int) -> None:
    labels, probabilities = np.full(3, label), np.array([0.1, 0.2, 0.3])
    assert math.isnan(metrics.roc_auc(labels, probabilities))
    assert math.isnan(metrics.average_precision(labels, probabilities)) == (label == 0)
