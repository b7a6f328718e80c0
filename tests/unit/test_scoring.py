"""A scorer scores no more records at once than was asked for."""

import numpy as np
import pytest

from ecgbatch.models.scorer import LARGEST_BATCH_ON_CPU, Scorer
from ecgbatch.models.weights.registry import SHIPPED, Registry


@pytest.mark.parametrize(("wanted", "most"), [(3, 3), (60, 60), (200, LARGEST_BATCH_ON_CPU)])
def test_no_more_records_are_scored_at_once_than_asked_for(wanted: int, most: int) -> None:
    scorer = Scorer(Registry(SHIPPED).find(None), kernel="torch", batch_size=wanted)
    network, sizes = scorer._network, []

    class Watched:
        def __call__(self, signals: np.ndarray, metadata: np.ndarray) -> np.ndarray:
            sizes.append(len(signals))
            return network(signals, metadata)

        def embed(self, signals: np.ndarray, metadata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            sizes.append(len(signals))
            return network.embed(signals, metadata)

    scorer._network = Watched()
    signals, metadata = np.zeros((201, 250, 12), np.float32), np.zeros((201, 2), np.float32)
    assert scorer.score(signals, metadata).shape == (201, 5)
    assert scorer.embed(signals[:7], metadata[:7])[1].shape == (7, 312)
    assert max(sizes) == most
