"""The pipeline with stages that are handed in: each record comes to one outcome, in batches of one length."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgbatch.db import outcomes as db
from ecgbatch.db.chunks import Outcome
from ecgbatch.db.outcomes import Failure, Prediction
from ecgbatch.db.terms import Windows
from ecgbatch.records.quality import Quality
from ecgbatch.records.recording import Flag, Reason, Record, RecordError, Recording, Window
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.pipeline import Extent, Pipeline, flags_to_refuse
from ecgbatch.worker.watchdog import Watchdog

READER = ThreadPoolExecutor(max_workers=1)
WATCHDOG = Watchdog(60)
LENGTHS = (1000, 700)
FAILS = 0
INVALID = 250
"""The length of windows of which the scorer makes no numbers."""


class FirstSampleScorer:
    """Gives a record's first sample as its probabilities, and remembers what it was given."""

    device = "cpu"
    lead_sets = ()

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.shapes: list[tuple[int, ...]] = []

    def metadata(self, age: float | None, sex: float | None) -> tuple[tuple[float, float], tuple[str, ...]]:
        return (age or 0.0, sex or 0.0), ("age_missing",) if age is None else ()

    def clean(self, signals: NDArray[np.float64]) -> tuple[Any, list[Quality]]:
        return signals, [Quality(1.0, 0.0)] * len(signals)

    def score(self, cleaned: Any, metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shapes.append(cleaned.shape)
        probabilities: NDArray[np.float32] = np.repeat(cleaned[:, 0, :1], 5, axis=1)
        return np.full_like(probabilities, np.nan) if cleaned.shape[1] == INVALID else probabilities

    def embed(self, cleaned: Any, metadata: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.score(cleaned, metadata), cleaned[:, 0, :].astype(np.float32)

    def uncertain(self, probabilities: Sequence[float]) -> Sequence[str]:
        return ()


@given(records=st.lists(st.sampled_from((FAILS, *LENGTHS)), max_size=100), size=st.integers(1, 40))
def test_each_record_comes_to_one_outcome(records: list[int], size: int) -> None:
    stored: list[Outcome] = []
    scorer = FirstSampleScorer(size)

    def read(_settings: Settings, _root: Path, _extent: Extent, path: str) -> list[Window]:
        number = int(path)
        if records[number] == FAILS:
            raise RecordError(Reason.TRUNCATED, "too short")
        return [Window(None, Recording(np.full((records[number], 12), number / 128), path, ()))]

    def store(outcomes: Sequence[Outcome]) -> None:
        stored.extend(outcomes)

    pipeline = Pipeline(Settings(), read, Extent(), scorer, store, WATCHDOG, READER, frozenset())
    pipeline.run(Path(), [Record(str(n), 50.0, 1, id=n) for n in range(len(records))])
    assert sorted(outcome.recording_id for outcome in stored) == list(range(len(records)))
    for outcome in stored:
        if isinstance(outcome, Failure):
            assert records[outcome.recording_id] == FAILS
        else:
            assert isinstance(outcome, Prediction)
            assert outcome.probabilities == (outcome.recording_id / 128,) * 5
            assert outcome.input_sha256 == str(outcome.recording_id)
            assert outcome.windows == ()
    assert all(shape[0] <= size for shape in scorer.shapes)


LONG = st.lists(st.sampled_from((*LENGTHS, INVALID)), max_size=80)


@given(records=st.lists(LONG, max_size=12), size=st.integers(1, 40), alone=st.booleans())
def test_windows_come_together_whatever_batches_they_are_in(records: list[list[int]], size: int, alone: bool) -> None:
    stored: list[Outcome] = []
    scorer = FirstSampleScorer(size)

    def read(_settings: Settings, _root: Path, _extent: Extent, path: str) -> list[Window]:
        if not records[int(path)]:
            raise RecordError(Reason.NO_SIGNAL, "nothing")
        return [
            Window(n * 10.0, Recording(np.full((length, 12), n / 128), path, () if length == 1000 else (Flag.SHORT,)))
            for n, length in enumerate(records[int(path)])
        ]

    pipeline = Pipeline(Settings(), read, Extent(Windows.ALL), scorer, stored.extend, WATCHDOG, READER, frozenset())
    listed = [Record(str(n), 50.0, 1, id=n) for n in range(len(records))]
    if alone:
        for record in listed:
            stored.extend(pipeline.run_one(Path(), record))
    else:
        pipeline.run(Path(), listed)
    assert sorted(outcome.recording_id for outcome in stored) == list(range(len(records)))
    for outcome in stored:
        lengths = records[outcome.recording_id]
        if isinstance(outcome, Failure):
            assert outcome.reason == (Reason.NOT_FINITE if lengths else Reason.NO_SIGNAL)
            assert not lengths or INVALID in lengths
        else:
            rows = sorted(outcome.windows, key=lambda window: window.start_s)
            assert rows == [db.Window(n * 10.0, (n / 128,) * 5) for n in range(len(lengths))]
            assert outcome.probabilities == pytest.approx(((len(lengths) - 1) / 2 / 128,) * 5)
            assert outcome.flags == ("short" if len(lengths) == 1 and lengths[0] < 1000 else "")
    assert all(shape[0] <= size for shape in scorer.shapes)


def test_records_with_flags_to_refuse_fail() -> None:
    stored: list[Outcome] = []
    settings = Settings(refuse="age_missing, short")
    refused = flags_to_refuse(settings)

    def read(_settings: Settings, _root: Path, _extent: Extent, path: str) -> list[Window]:
        return [Window(None, Recording(np.zeros((1000, 12)), path, ()))]

    scorer = FirstSampleScorer(8)
    pipeline = Pipeline(settings, read, Extent(), scorer, stored.extend, WATCHDOG, READER, refused)
    pipeline.run(Path(), [Record("known", 50.0, 1, id=1), Record("unknown", None, 1, id=2)])
    known, unknown = sorted(stored, key=lambda outcome: outcome.recording_id)
    assert isinstance(known, Prediction)
    assert isinstance(unknown, Failure)
    assert (unknown.reason, unknown.detail) == (Reason.REFUSED, "age_missing")


def test_a_flag_that_there_is_not_cannot_be_refused() -> None:
    with pytest.raises(EcgbatchError, match="there is no flag 'shrot'"):
        flags_to_refuse(Settings(refuse="shrot"))
