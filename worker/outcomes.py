"""What records come to: the windows of each put together again after scoring."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.db import outcomes as db
from ecgbatch.db.chunks import Outcome
from ecgbatch.db.outcomes import Failure, Prediction, Probabilities
from ecgbatch.records.quality import Quality
from ecgbatch.records.recording import Flag, Reason, Record, RecordError, Window, flag_about, flag_of


@dataclass(frozen=True, slots=True)
class ReadWindow:
    """One of the `of` windows of a record that was read, and all that there is to be said of it."""

    record: Record
    window: Window
    of: int
    quality: Quality
    flags: frozenset[str]


class Scored(NamedTuple):
    """A window, its probabilities, and its features (F,) if they are to be kept."""

    window: ReadWindow
    probabilities: Probabilities
    features: NDArray[np.float32] | None


class Outcomes:
    """Makes outcomes of scored windows. What fails is a record: if one of its windows does, no other counts."""

    def __init__(self, refused: frozenset[str], uncertain: Callable[[Probabilities], Sequence[str]]) -> None:
        self._refused = refused
        self._uncertain = uncertain
        self._waiting: dict[str, list[Scored]] = {}

    def after(
        self,
        windows: Sequence[ReadWindow],
        probabilities: NDArray[np.float32],
        features: NDArray[np.float32] | None = None,
    ) -> list[Outcome]:
        """The outcomes of the records of which these are the last windows to be scored.

        `probabilities` are (n, K), `features` (n, F) if they are to be kept.
        """
        outcomes = []
        of_each = repeat(None) if features is None else features
        for window, of_classes, its_features in zip(windows, probabilities.tolist(), of_each):
            scored = self._waiting.pop(window.record.path, [])
            scored.append(Scored(window, tuple(of_classes), its_features))
            if len(scored) == window.of:
                outcomes.append(self._outcome(scored))
            else:
                self._waiting[window.record.path] = scored
        return outcomes

    def _outcome(self, scored: Sequence[Scored]) -> Outcome:
        """A record's outcome: of its windows the mean of probabilities and features, the median of the measures."""
        (first, probabilities, features), *others = scored
        quality, flags = first.quality, set(first.flags)
        if others:
            columns = zip(*(s.probabilities for s in scored))
            probabilities = tuple(math.fsum(column) / len(scored) for column in columns)
            quality = Quality(*(median(measure) for measure in zip(*(s.window.quality for s in scored))))
            if features is not None:
                features = np.mean([s.features for s in scored if s.features is not None], axis=0)
            # `short` is said of records, and only the last window is
            flags = flags.union(*(other.window.flags for other in others)) - {Flag.SHORT}
        if not all(map(math.isfinite, probabilities)):
            return Failure(
                _id(first.record), "score", Reason.NOT_FINITE, "the model's probabilities are not numbers", 1
            )
        if uncertain := self._uncertain(probabilities):
            flags.add(flag_about(Flag.UNCERTAIN, *uncertain))
        if refusing := sorted(flag for flag in flags if flag_of(flag) in self._refused):
            return Failure(_id(first.record), "read", Reason.REFUSED, ", ".join(refusing), 1)
        recording = first.window.recording
        return Prediction(
            _id(first.record),
            probabilities,
            recording.sha256,
            ",".join(sorted(flags)),
            *quality,
            format=recording.format,
            device=recording.device,
            age=recording.age,
            sex=recording.sex,
            windows=tuple(db.Window(w.window.start, p) for w, p, _ in scored if w.window.start is not None),
            features=None if features is None else features.astype("<f2").tobytes(),
        )


def failure_of(record: Record, error: RecordError) -> Failure:
    """The failure of a record that could not be read, or took its process along."""
    return Failure(_id(record), error.stage, error.reason, error.detail, error.attempts)


def _id(record: Record) -> int:
    assert record.id is not None, "a record from the database has an id"
    return record.id
