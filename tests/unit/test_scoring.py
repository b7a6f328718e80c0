"""What was read together is scored in batches of the size that was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgbatch.models.scorer import MOST_ON_CPU, Scorer
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.worker.pipeline import Batch


@given(records=st.integers(0, 70), failures=st.integers(0, 3), size=st.integers(1, 80))
def test_parts_are_the_whole(records: int, failures: int, size: int) -> None:
    signals = np.arange(records, dtype=np.float32).reshape(-1, 1, 1)
    rows = [{"recording_id": n} for n in range(records)]
    failed = [{"recording_id": -n} for n in range(failures)]
    parts = list(Batch(signals, signals[:, 0], rows, failed).parts(size))
    assert [len(part.rows) for part in parts] == [min(size, records - k * size) for k in range(len(parts))]
    assert np.array_equal(np.concatenate([part.signals for part in parts]), signals)
    assert np.array_equal(np.concatenate([part.metadata for part in parts]), signals[:, 0])
    assert [row for part in parts for row in part.rows] == rows
    assert [row for part in parts for row in part.failed] == failed


@pytest.mark.parametrize(("wanted", "most"), [(3, 3), (60, 60), (200, MOST_ON_CPU)])
def test_no_more_records_are_scored_at_once_than_asked_for(wanted: int, most: int) -> None:
    scorer = Scorer(Registry(SHIPPED).find(None), kernel="torch", batch_size=wanted)
    network, sizes = scorer._network, []

    def watched(signals: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        sizes.append(len(signals))
        return network(signals, metadata)

    scorer._network = watched
    assert scorer.score(np.zeros((201, 1000, 12), np.float32), np.zeros((201, 2), np.float32)).shape == (201, 5)
    assert max(sizes) == most
