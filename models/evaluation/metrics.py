"""How well probabilities fit labels.

Throughout, `labels` (R,) are 0 or 1 and `probabilities` (R,) those of one superclass over R records. `counts` (…, R)
says how often each record counts, once where it is not given; a figure is then (…), so that a whole bootstrap is one
call. What cannot be said, for lack of positives or negatives, is not a number.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.generic]
Probabilities = NDArray[np.floating]
Numbers = NDArray[np.float64]

BINS = 10


class Confusion(NamedTuple):
    """Records by label and decision, each (…). What would be divided by nothing is 0."""

    true_positives: Numbers
    false_positives: Numbers
    false_negatives: Numbers
    true_negatives: Numbers

    @property
    def precision(self) -> Numbers:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Numbers:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> Numbers:
        """The harmonic mean of precision and recall."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


class Ranking(NamedTuple):
    """How many positives and negatives (…, T) have at least each of the T different probabilities, highest first."""

    thresholds: Probabilities
    positives: Numbers
    negatives: Numbers


class Bins(NamedTuple):
    """Per bin of equal width, (…, BINS) each: records, and their sums of probabilities and of labels."""

    records: Numbers
    probability: Numbers
    positives: Numbers


def rank(labels: Labels, probabilities: Probabilities, counts: Numbers | None = None) -> Ranking:
    """What ROC and precision-recall curves are drawn from; equal probabilities are one step."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    steps = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))
    counted = np.ones(len(order)) if counts is None else counts[..., order]
    positives = np.cumsum(counted * (labels[order] == 1), axis=-1)[..., steps]
    return Ranking(ranked[steps], positives, np.cumsum(counted, axis=-1)[..., steps] - positives)


def roc_auc(labels: Labels, probabilities: Probabilities, counts: Numbers | None = None) -> Numbers:
    """The chance of a positive to rank above a negative, ties counting half (Hanley & McNeil 1982)."""
    _, positives, negatives = rank(labels, probabilities, counts)
    above = positives - np.diff(positives, prepend=0) / 2
    pairs = positives[..., -1] * negatives[..., -1]
    return _ratio((above * np.diff(negatives, prepend=0)).sum(axis=-1), pairs, otherwise=np.nan)


def average_precision(labels: Labels, probabilities: Probabilities, counts: Numbers | None = None) -> Numbers:
    """The precision at each threshold, weighted by the recall it adds: not interpolated (Davis & Goadrich 2006)."""
    _, positives, negatives = rank(labels, probabilities, counts)
    added = np.diff(positives, prepend=0) * _ratio(positives, positives + negatives)
    return _ratio(added.sum(axis=-1), positives[..., -1], otherwise=np.nan)


def confusion(labels: Labels, found: NDArray[np.bool_], counts: Numbers | None = None) -> Confusion:
    """Counts the records by label and by whether the superclass was found."""
    positive, counted = labels == 1, np.ones(len(labels)) if counts is None else counts
    cells = (positive & found, ~positive & found, positive & ~found, ~positive & ~found)
    return Confusion(*(np.asarray(counted @ cell.astype(np.float64)) for cell in cells))


def calibration_bins(labels: Labels, probabilities: Probabilities, counts: Numbers | None = None) -> Bins:
    """What a calibration curve is drawn from."""
    number = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    counted = np.ones(len(labels)) if counts is None else counts
    member = np.eye(BINS)[number]
    sums = (member, member * probabilities[:, np.newaxis], member * (labels == 1)[:, np.newaxis])
    return Bins(*(np.asarray(counted @ each) for each in sums))


def expected_calibration_error(labels: Labels, probabilities: Probabilities, counts: Numbers | None = None) -> Numbers:
    """How far, on average, the probability is from the share of positives among the records in its bin.

    Ten bins of equal width over the probability of the positive class, weighted by their records (Naeini, Cooper &
    Hauskrecht 2015). Chance alone makes it larger than 0, the more so the fewer the records are.
    """
    records, probability, positives = calibration_bins(labels, probabilities, counts)
    return np.asarray(np.abs(probability - positives).sum(axis=-1) / records.sum(axis=-1))


def best_threshold(labels: Labels, probabilities: Probabilities) -> float:
    """The probability from which on to say yes for the highest F1; halfway to the next lower one."""
    thresholds, positives, negatives = rank(labels, probabilities)
    f1 = 2 * positives / (positives + negatives + positives[-1])
    last = int(np.argmax(f1))
    return float(thresholds[last : last + 2].mean())


def _ratio(part: Numbers, whole: Numbers, otherwise: float = 0.0) -> Numbers:
    ratio: Numbers = np.divide(part, whole, out=np.full(np.shape(whole), otherwise), where=np.asarray(whole) != 0)
    return ratio
