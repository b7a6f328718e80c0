"""How well probabilities fit labels."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Labels = NDArray[np.generic]
Probabilities = NDArray[np.floating]


def roc_auc(labels: Labels, probabilities: Probabilities) -> float:
    """The chance of a positive to rank above a negative, ties counting half (Hanley & McNeil 1982).

    Not a number when one of the two is missing.
    """
    positive = np.asarray(labels) == 1
    positives, negatives = positive.sum(), (~positive).sum()
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(probabilities)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def best_threshold(labels: Labels, probabilities: Probabilities) -> float:
    """The probability from which on to say yes for the highest F1; halfway to the next lower one."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    found = np.cumsum(np.asarray(labels)[order] == 1)
    f1 = 2 * found / (np.arange(1, len(ranked) + 1) + found[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal probabilities stand on one side
    last = int(np.argmax(f1))
    return float((ranked[last] + ranked[last + 1]) / 2 if last + 1 < len(ranked) else ranked[last])
