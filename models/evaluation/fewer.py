"""How well a model does on less than it likes: fewer leads, fewer seconds. Each record is read once."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.bootstrap import Estimate, draws, estimate
from ecgbatch.models.evaluation.conformal import limits
from ecgbatch.models.evaluation.figures import labels_of
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.metrics import Numbers, roc_auc
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.signals import read_signal
from ecgbatch.records.leads import LEAD_SETS, LEADS, leads_of
from ecgbatch.records.recording import SAMPLING_RATE, SECONDS

READ_TOGETHER = 64
LENGTHS = (9.0, 7.3, 5.0, 4.0, 2.5)
"""Seconds."""


class Less(NamedTuple):
    """What is left of a record: the leads of a set, all twelve for None, and the first seconds."""

    lead_set: str | None = None
    seconds: float = SECONDS

    def of(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 1000, 12) -> (n, T, 12), other leads zero."""
        left = signals[:, : round(self.seconds * SAMPLING_RATE)].copy()
        left[..., [lead not in leads_of(self.lead_set) for lead in LEADS]] = 0
        return left


class Measured(NamedTuple):
    """Labels (R, 5), probabilities (R, 5) by what was left of the records, and their macro AUC."""

    labels: NDArray[np.int64]
    probabilities: dict[Less, NDArray[np.float32]]
    macro_aucs: dict[Less, Estimate]

    def declaration(self, lead_sets: Sequence[str]) -> dict[str, dict[str, object]]:
        """What a description says of it: these lead sets, all lengths, and the limits of uncertainty."""
        whole = self.probabilities[Less()]
        return {
            "lead_sets": {name: self.macro_aucs[Less(name)].value for name in lead_sets},
            "lengths": {f"{less.seconds:g}": auc.value for less, auc in self.macro_aucs.items() if not less.lead_set},
            "uncertain": {name: list(limits(self.labels[:, at], whole[:, at])) for at, name in enumerate(LABELS)},
        }


def measure(
    scorer: Scorer,
    archive: Path,
    records: Sequence[LabelledRecord],
    lead_sets: Sequence[str] = tuple(LEAD_SETS),
    lengths: Sequence[float] = LENGTHS,
    *,
    follow_links: bool = False,
) -> Measured:
    """Scores the records whole, by each lead set, and by each length (seconds).

    A lead that is not of the set is zero millivolts, as in a record that lacks it. Raises EcgbatchError for a record
    that cannot be read or is shorter than ten seconds.
    """
    ways = [Less(), *map(Less, lead_sets), *(Less(None, seconds) for seconds in lengths)]
    found: dict[Less, list[NDArray[np.float32]]] = {way: [] for way in ways}
    for start in range(0, len(records), READ_TOGETHER):
        some = records[start : start + READ_TOGETHER]
        signals = np.stack([read_signal(archive, record.path, follow_links=follow_links) for record in some])
        metadata = np.array([scorer.metadata(record.age, record.sex).values for record in some], np.float32)
        for way, parts in found.items():
            cleaned, _ = scorer.clean(way.of(signals))
            parts.append(scorer.score(cleaned, metadata))
    labels = labels_of(records)
    probabilities = {way: np.concatenate(parts) for way, parts in found.items()}
    return Measured(labels, probabilities, {way: _macro_auc(labels, of) for way, of in probabilities.items()})


def _macro_auc(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Estimate:
    def of(counts: Numbers) -> Numbers:
        by_superclass = np.stack([roc_auc(labels[:, at], probabilities[:, at], counts) for at in range(len(LABELS))])
        return np.asarray(by_superclass.mean(axis=0))

    return estimate(np.concatenate([of(counts) for counts in draws(len(labels))]))
