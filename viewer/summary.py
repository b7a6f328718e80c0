"""A job in numbers, gathered in one pass over what it has scored."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest, nsmallest

import numpy as np
from numpy.typing import NDArray

from ecgbatch.db.scored import Scored
from ecgbatch.models.config import LABELS
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
    """Records of an age group or a sex, and how many of them have each superclass, (5,)."""

    records: int = 0
    found: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LABELS), np.int64))


@dataclass
class Summary:
    """Of a job: distributions (5, BINS), superclasses found (5,), groups, and the records worth a look.

    `highest` has of each superclass the record of the highest probability, `flagged` of each flag the first record;
    `uncertain` are those where a probability is nearest to its threshold.
    """

    distributions: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(LABELS), BINS), np.int64))
    found: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LABELS), np.int64))
    groups: dict[tuple[str, str], Group] = field(default_factory=lambda: defaultdict(Group))
    flags: Counter[str] = field(default_factory=Counter)
    highest: dict[str, Scored] = field(default_factory=dict)
    uncertain: list[Scored] = field(default_factory=list)
    flagged: dict[str, Scored] = field(default_factory=dict)
    records: int = 0


def summarise(records: Iterable[Scored], thresholds: Mapping[str, float]) -> Summary:
    """Gathers all of a job's records at the model's thresholds; memory stays flat."""
    summary = Summary()
    at = np.array([thresholds[label] for label in LABELS])

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
    for label, name in enumerate(LABELS):
        summary.distributions[label] += np.bincount(bins[:, label], minlength=BINS)
        known = [summary.highest[name]] if name in summary.highest else []
        [summary.highest[name]] = nlargest(1, [*known, *block], key=lambda record: record.probabilities[label])
    for record, superclasses in zip(block, found, strict=True):
        for group in (("age", age_group(record.age)), ("sex", SEXES.get(record.sex, "unknown"))):
            summary.groups[group].records += 1
            summary.groups[group].found += superclasses
        flags = [flag_of(flag) for flag in record.flags]
        summary.flags.update(flags)
        for flag in flags:
            if flag not in FLAGS_WITHOUT_A_PICTURE:
                summary.flagged.setdefault(flag, record)
