"""Between which probabilities a superclass is uncertain, with a promise: class-conditional conformal prediction.

Of labelled records that the model did not learn from, `limits` takes the probability that 90 % of those with the
superclass reach, and the one that 90 % of those without it do not exceed. A probability that both allow rules out
neither answer. So, for records of the same kind, of those with the superclass at least 90 % keep "present" among the
possible answers, of those without it at least 90 % "absent", each by itself and however rare the superclass is
(Sadinle, Lei & Wasserman, *Least Ambiguous Set-Valued Classifiers with Bounded Error Levels*, 2019; Vovk, Gammerman &
Shafer, *Algorithmic Learning in a Random World*, 2005, where it is called Mondrian).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.evaluation.bootstrap import Estimate, draws, estimate
from ecgbatch.models.evaluation.metrics import Labels, Numbers, Probabilities

COVERAGE = 0.9
SPLITS = 200


class Limits(NamedTuple):
    """From `low` on a superclass may be present, up to `high` it may be absent; between them it is uncertain."""

    low: float
    high: float


class Coverage(NamedTuple):
    """Of the records with a superclass, the share of which it may be present; of those without, absent; (…) each."""

    present: Numbers
    absent: Numbers


def limits(labels: Labels, probabilities: Probabilities, coverage: float = COVERAGE) -> Limits:
    """The limits that these records, (R,) each, give, for the share `coverage` of records to come.

    With n records on one side the limit is the k-th outermost of them, k = floor((n + 1) (1 - coverage)): a new one is
    then beyond it with a chance of at most k / (n + 1). Where n is too small for any, nothing is ruled out.
    """
    with_it, without_it = np.sort(probabilities[labels == 1]), np.sort(probabilities[labels != 1])[::-1]
    beyond = [math.floor((len(side) + 1) * (1 - coverage) + 1e-9) for side in (with_it, without_it)]
    low = float(with_it[beyond[0] - 1]) if beyond[0] else 0.0
    high = float(without_it[beyond[1] - 1]) if beyond[1] else 1.0
    return Limits(low, high)


def covered(labels: Labels, probabilities: Probabilities, of: Limits, counts: Numbers | None = None) -> Coverage:
    """The coverage that limits have on records (R,), each of which counts as often as `counts` (…, R) says."""
    counted = np.ones(len(labels)) if counts is None else counts
    kept = np.where(labels == 1, probabilities >= of.low, probabilities <= of.high)
    with np.errstate(invalid="ignore"):
        present, absent = (
            np.asarray(counted @ (side & kept) / (counted @ side)) for side in (labels == 1, labels != 1)
        )
    return Coverage(present, absent)


def resampled(labels: Labels, probabilities: Probabilities, coverage: float = COVERAGE) -> Coverage:
    """The mean coverage of limits from one half of the records on the other half, over SPLITS random halvings."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(len(labels))
        fitted, held = np.split(order, [len(order) // 2])
        found.append(
            covered(labels[held], probabilities[held], limits(labels[fitted], probabilities[fitted], coverage))
        )
    return Coverage(*(np.nanmean(side) for side in zip(*found, strict=True)))


class Kept(NamedTuple):
    """How a model's limits of a superclass keep their promise on labelled records.

    present, absent: the coverage, with its bootstrap interval. of_halves: that of limits made on one half of these
    records on the other half. uncertain: how many records lie between the limits.
    """

    superclass: str
    low: float
    high: float
    present: Estimate
    absent: Estimate
    of_halves: tuple[float, float]
    uncertain: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() | {"present": self.present._asdict(), "absent": self.absent._asdict()}


def kept(
    labels: NDArray[np.int64],
    probabilities: Numbers,
    superclasses: Sequence[str],
    of: Mapping[str, tuple[float, float]],
) -> tuple[list[Kept], int]:
    """Of each superclass that has limits, (R, K) each, and how many records are uncertain of any."""
    found, any_uncertain = [], np.zeros(len(labels), bool)
    for at, superclass in enumerate(superclasses):
        if superclass in of:
            said, own, limited = labels[:, at], probabilities[:, at], Limits(*of[superclass])
            between = (own >= limited.low) & (own <= limited.high)
            any_uncertain |= between
            sides = zip(*(covered(said, own, limited, counts) for counts in draws(len(said))), strict=True)
            present, absent = (estimate(np.concatenate(side)) for side in sides)
            halves = (round(float(side), 4) for side in resampled(said, own))
            found.append(Kept(superclass, *limited, present, absent, (next(halves), next(halves)), int(between.sum())))
    return found, int(any_uncertain.sum())
