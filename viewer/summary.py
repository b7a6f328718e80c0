"""A job in numbers, gathered in one pass over what it has scored."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest, nsmallest

import numpy as np
from numpy.typing import NDArray

from ecgbatch.db.scored import Scored
from ecgbatch.models.evaluation.figures import AGE_GROUPS, SEXES, age_group
from ecgbatch.records.recording import flag_of

BINS = 20
"""Of a probability's distribution, all of the same width."""
MOST_UNCERTAIN = 4
TOGETHER = 10_000
FLAGS_WITHOUT_A_PICTURE = {"age_missing", "sex_missing", "age_over_89", "age_implausible", "resampled"}
"""Nothing of them is to be seen in the signal."""
GROUPS = tuple(("age", name) for name in (*AGE_GROUPS, "unknown")) + tuple(
    ("sex", name) for name in (*SEXES.values(), "unknown")
)


@dataclass
class Group:
    """Records of an age group or a sex, and how many of them have each class, (K,)."""

    found: NDArray[np.int64]
    records: int = 0


@dataclass
class Summary:
    """Of a job, by the classes of its model: distributions (K, BINS), found (K,), groups, and the records worth a look.

    `highest` has of each class the record of the highest probability, `flagged` of each flag the first record;
    `uncertain` are those where a probability is nearest to its threshold.
    """

    labels: tuple[str, ...]
    distributions: NDArray[np.int64]
    found: NDArray[np.int64]
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)
    highest: dict[str, Scored] = field(default_factory=dict)
    uncertain: list[Scored] = field(default_factory=list)
    flagged: dict[str, Scored] = field(default_factory=dict)
    records: int = 0


def summarise(records: Iterable[Scored], thresholds: Mapping[str, float]) -> Summary:
    """Gathers all of a job's records at the thresholds of the model's classes, in its order; memory stays flat."""
    classes = len(thresholds)
    summary = Summary(tuple(thresholds), np.zeros((classes, BINS), np.int64), np.zeros(classes, np.int64))
    at = np.array(list(thresholds.values()))

    def doubt(record: Scored) -> float:
        return float(np.abs(np.array(record.probabilities) - at).min())

    block: list[Scored] = []
    for record in records:
        block.append(record)
        if len(block) == TOGETHER:
            summary.uncertain = nsmallest(MOST_UNCERTAIN, [*summary.uncertain, *block], key=doubt)
            _add(summary, block, at)
            block = []
    summary.uncertain = nsmallest(MOST_UNCERTAIN, [*summary.uncertain, *block], key=doubt)
    _add(summary, block, at)
    return summary


def _add(summary: Summary, block: list[Scored], thresholds: NDArray[np.float64]) -> None:
    if not block:
        return
    probabilities = np.array([record.probabilities for record in block])
    found = probabilities >= thresholds
    summary.records += len(block)
    summary.found += found.sum(axis=0)
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    for label, name in enumerate(summary.labels):
        summary.distributions[label] += np.bincount(bins[:, label], minlength=BINS)
        known = [summary.highest[name]] if name in summary.highest else []
        [summary.highest[name]] = nlargest(1, [*known, *block], key=lambda record: record.probabilities[label])
    for record, classes in zip(block, found, strict=True):
        for group in (("age", age_group(record.age)), ("sex", SEXES.get(record.sex, "unknown"))):
            of_group = summary.groups.setdefault(group, Group(np.zeros(len(summary.labels), np.int64)))
            of_group.records += 1
            of_group.found += classes
        flags = [flag_of(flag) for flag in record.flags]
        summary.flags.update(flags)
        for flag in flags:
            if flag not in FLAGS_WITHOUT_A_PICTURE:
                summary.flagged.setdefault(flag, record)
