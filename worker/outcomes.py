"""What records come to: the windows of each put together again after scoring."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

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


Scored: TypeAlias = tuple[ReadWindow, Probabilities]
"""A window and its probabilities."""


class Outcomes:
    """Makes outcomes of scored windows. What fails is a record: if one of its windows does, no other counts."""

    def __init__(self, refused: frozenset[str], uncertain: Callable[[Probabilities], Sequence[str]]) -> None:
        self._refused = refused
        self._uncertain = uncertain
        self._waiting: dict[str, list[Scored]] = {}

    def after(self, windows: Sequence[ReadWindow], probabilities: NDArray[np.float32]) -> list[Outcome]:
        """The outcomes of the records of which these, with (n, 5) probabilities, are the last windows to be scored."""
        outcomes = []
        for window, (norm, mi, sttc, cd, hyp) in zip(windows, probabilities.tolist(), strict=True):
            scored = self._waiting.pop(window.record.path, [])
            scored.append((window, (norm, mi, sttc, cd, hyp)))
            if len(scored) == window.of:
                outcomes.append(self._outcome(scored))
            else:
                self._waiting[window.record.path] = scored
        return outcomes

    def _outcome(self, scored: Sequence[Scored]) -> Outcome:
        """The outcome of a record: of its windows the mean of the probabilities, the median of the measures."""
        (first, probabilities), *others = scored
        quality, flags = first.quality, set(first.flags)
        if others:
            norm, mi, sttc, cd, hyp = (math.fsum(column) / len(scored) for column in zip(*(p for _, p in scored)))
            probabilities = norm, mi, sttc, cd, hyp
            quality = Quality(*(median(measure) for measure in zip(*(w.quality for w, _ in scored))))
            # `short` is said of records, and only the last window is
            flags = flags.union(*(window.flags for window, _ in others)) - {Flag.SHORT}
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
            windows=tuple(db.Window(w.window.start, each) for w, each in scored if w.window.start is not None),
        )


def failure_of(record: Record, error: RecordError) -> Failure:
    """The failure of a record that could not be read, or took its process along."""
    return Failure(_id(record), error.stage, error.reason, error.detail, error.attempts)


def _id(record: Record) -> int:
    assert record.id is not None, "a record from the database has an id"
    return record.id
