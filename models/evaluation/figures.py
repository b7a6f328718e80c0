"""How well a model's probabilities fit the labels of records: overall, per superclass, per age group and sex."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation import metrics
from ecgbatch.models.evaluation.bootstrap import RESAMPLES, SEED, Estimate, draws, estimate
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.metrics import Numbers, Probabilities

METRICS = ("auc", "average_precision", "f1", "precision", "recall", "calibration_error")
GROWS_BY_CHANCE = "calibration_error"

AGE_GROUPS = {"<40": 40.0, "40-59": 60.0, "60-79": 80.0, ">=80": math.inf}
"""Age groups and the age, in years, below which they end."""

SEXES: dict[float | None, str] = {0: "male", 1: "female"}

Figures = dict[str, Estimate]


@dataclass(frozen=True)
class Group:
    """Records of one age group or sex, and the macro averages over them."""

    by: str
    name: str
    records: int
    figures: Figures


@dataclass(frozen=True)
class Evaluation:
    """`figures` has a row per superclass, one of their means (macro) and one of all their decisions pooled (micro).

    Precision, recall and F1 are at the `thresholds`. `exact_match` is the share of records with all labelled
    superclasses decided as they are labelled.
    """

    records: int
    positives: dict[str, int]
    thresholds: dict[str, float]
    exact_match: Estimate
    figures: dict[str, Figures]
    groups: list[Group]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = asdict(self)
        values["exact_match"] = self.exact_match._asdict()
        values["figures"] = {row: _as_dicts(figures) for row, figures in self.figures.items()}
        values["groups"] = [vars(group) | {"figures": _as_dicts(group.figures)} for group in self.groups]
        return values | {"resamples": RESAMPLES, "seed": SEED}


def evaluate(
    records: Sequence[LabelledRecord],
    probabilities: Probabilities,
    thresholds: Mapping[str, float],
    superclasses: Sequence[str] = LABELS,
) -> Evaluation:
    """Compares the records' labels with their probabilities, (R, K) in the order of the superclasses; R is not 0."""
    labels = labels_of(records)
    values: Numbers = probabilities.astype(np.float64)
    found = decided(values, superclasses, thresholds)
    figures = np.concatenate([overall(labels, values, found, counts) for counts in draws(len(records))])
    exact = np.concatenate([_exact_match(labels, found, counts) for counts in draws(len(records))])
    groups = []
    for by, name, chosen in _groups(records):
        part = labels[chosen], values[chosen], found[chosen]
        macro = np.concatenate([_per_superclass(*part, counts).mean(axis=1) for counts in draws(int(chosen.sum()))])
        groups.append(Group(by, name, int(chosen.sum()), _figures(macro)))
    return Evaluation(
        records=len(records),
        positives=dict(zip(superclasses, labels.sum(axis=0).tolist(), strict=True)),
        thresholds={name: thresholds[name] for name in superclasses},
        exact_match=estimate(exact),
        figures={row: _figures(figures[:, at]) for at, row in enumerate(rows_of(superclasses))},
        groups=groups,
    )


def rows_of(superclasses: Sequence[str]) -> tuple[str, ...]:
    """What there are figures of."""
    return (*superclasses, "macro", "micro")


def labels_of(records: Sequence[LabelledRecord]) -> NDArray[np.int64]:
    """The records' labels, (R, K)."""
    return np.array([record.labels for record in records], np.int64)


def decided(probabilities: Numbers, superclasses: Sequence[str], thresholds: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which superclasses are found, (R, K): those whose probability reaches the threshold."""
    found: NDArray[np.bool_] = probabilities >= [thresholds[name] for name in superclasses]
    return found


def overall(labels: NDArray[np.int64], probabilities: Numbers, found: NDArray[np.bool_], counts: Numbers) -> Numbers:
    """(R, K) each, and how often each record counts, (B, R) -> (B, rows, METRICS), rows as `rows_of` names them."""
    superclasses = _per_superclass(labels, probabilities, found, counts)
    micro = _metrics(labels.ravel(), probabilities.ravel(), found.ravel(), counts.repeat(labels.shape[1], axis=1))
    return np.concatenate([superclasses, superclasses.mean(axis=1, keepdims=True), micro[:, np.newaxis]], axis=1)


def _per_superclass(
    labels: NDArray[np.int64], probabilities: Numbers, found: NDArray[np.bool_], counts: Numbers
) -> Numbers:
    """(R, K) each and (B, R) -> (B, K, METRICS)."""
    columns = zip(labels.T, probabilities.T, found.T, strict=True)
    return np.stack([_metrics(*column, counts) for column in columns], axis=1)


def _metrics(labels: NDArray[np.int64], probabilities: Numbers, found: NDArray[np.bool_], counts: Numbers) -> Numbers:
    """(R,) each and (B, R) -> (B, METRICS)."""
    at_threshold = metrics.confusion(labels, found, counts)
    return np.stack(
        [
            metrics.roc_auc(labels, probabilities, counts),
            metrics.average_precision(labels, probabilities, counts),
            at_threshold.f1,
            at_threshold.precision,
            at_threshold.recall,
            metrics.expected_calibration_error(labels, probabilities, counts),
        ],
        axis=1,
    )


def _exact_match(labels: NDArray[np.int64], found: NDArray[np.bool_], counts: Numbers) -> Numbers:
    exact: Numbers = counts @ (labels == found).all(axis=1).astype(np.float64) / len(labels)
    return exact


def _figures(values: Numbers) -> Figures:
    """(1 + RESAMPLES, METRICS) -> a figure of each metric."""
    return {
        metric: estimate(values[:, at], grows_by_chance=metric == GROWS_BY_CHANCE) for at, metric in enumerate(METRICS)
    }


def _groups(records: Sequence[LabelledRecord]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """The groups that have records: by what, name, and which records (R,) they are."""
    ages = [age_group(record.age) for record in records]
    sexes = [SEXES.get(record.sex, "unknown") for record in records]
    for by, names, order in (
        ("age", ages, (*AGE_GROUPS, "unknown")),
        ("sex", sexes, (*SEXES.values(), "unknown")),
    ):
        for name in order:
            chosen = np.array(names) == name
            if chosen.any():
                yield by, name, chosen


def age_group(age: float | None) -> str:
    """The name of the group that an age, in years, is in."""
    below = (name for name, end in AGE_GROUPS.items() if age is not None and age < end)
    return next(below, "unknown")


def _as_dicts(figures: Figures) -> dict[str, dict[str, float | None]]:
    return {metric: figure._asdict() for metric, figure in figures.items()}
