"""Two models' probabilities of the same records: how their figures differ, and which records change side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ecgbatch.models.evaluation.bootstrap import RESAMPLES, SEED, draws, estimate
from ecgbatch.models.evaluation.figures import METRICS, Figures, decided, labels_of, overall, rows_of
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.metrics import Numbers


class Change(NamedTuple):
    """A record that one model decides otherwise than the other: its label, and the probabilities of both."""

    path: str
    superclass: str
    label: int
    first: float
    second: float
    now_right: bool


class Comparison(NamedTuple):
    """`differences` are the second model's figures less the first's, `changes` the decisions that differ."""

    records: int
    differences: dict[str, Figures]
    changes: list[Change]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Per superclass, how many records are now right and how many now wrong."""
        found = {row: (0, 0) for row in self.differences if row not in ("macro", "micro")}
        for change in self.changes:
            right, wrong = found[change.superclass]
            found[change.superclass] = (right + change.now_right, wrong + (not change.now_right))
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        differences = {
            row: {metric: figure._asdict() for metric, figure in figures.items()}
            for row, figures in self.differences.items()
        }
        changes = [change._asdict() for change in self.changes]
        counts = {"records": self.records, "resamples": RESAMPLES, "seed": SEED}
        return counts | {"differences": differences, "changes": changes}


def compare(
    records: Sequence[LabelledRecord],
    superclasses: Sequence[str],
    probabilities: Sequence[Numbers],
    thresholds: Sequence[Mapping[str, float]],
) -> Comparison:
    """Compares two models' probabilities, (R, K) each, of the same records.

    The bootstrap is paired: each draw of the records counts for both models, so what makes a draw easy or hard for
    both falls out of the difference (Efron & Tibshirani 1993, chapter 13).
    """
    labels = labels_of(records)
    found = [decided(p, superclasses, t) for p, t in zip(probabilities, thresholds, strict=True)]
    drawn = np.concatenate(
        [
            overall(labels, probabilities[1], found[1], counts) - overall(labels, probabilities[0], found[0], counts)
            for counts in draws(len(records))
        ]
    )
    differences = {
        row: {metric: estimate(drawn[:, at, number]) for number, metric in enumerate(METRICS)}
        for at, row in enumerate(rows_of(superclasses))
    }
    changes = [
        Change(
            records[at].path,
            superclasses[column],
            int(labels[at, column]),
            float(probabilities[0][at, column]),
            float(probabilities[1][at, column]),
            bool(found[1][at, column] == labels[at, column]),
        )
        for at, column in np.argwhere(found[0] != found[1]).tolist()
    ]
    return Comparison(len(records), differences, changes)
