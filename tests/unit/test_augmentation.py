"""What a batch of a training looks like before the network sees it."""

from collections import Counter

import numpy as np
import pytest
import torch

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.training.augmentation import augmented
from ecgbatch.models.training.recipe import TrainingSettings
from ecgbatch.records.leads import LEAD_SETS, LEADS


def test_a_batch_is_cut_and_made_louder_noisier_and_poorer_of_leads() -> None:
    signals = torch.arange(1, 1001.0)[None, :, None] * torch.ones(5, 1, 12)
    chosen, nothing = torch.tensor([4, 0, 2, 2]), {"amplitude": 0, "noise": 0, "lead_dropout": 0}

    def cut(**how: float) -> np.ndarray:
        torch.manual_seed(0)
        return augmented(signals, chosen, TrainingSettings(**nothing | how)).numpy()  # type: ignore[arg-type]

    crops = cut(crop=250)
    assert crops.shape == (4, 250, 12)
    assert (np.diff(crops, axis=1) == 1).all()
    assert len(set(crops[:, 0, 0])) == 4
    whole = signals[chosen].numpy()
    np.testing.assert_array_equal(cut(crop=1000), whole)

    factors = cut(crop=1000, amplitude=0.2, lead_dropout=0.5) / whole
    assert np.ptp(factors, axis=1).max() < 1e-6, "all the time"
    heard = factors[:, 0]
    assert 0 < (heard == 0).sum() < heard.size
    for record in heard:
        assert np.ptp(record[record > 0]) < 1e-6, "all leads of a record alike"
        assert 0.8 <= max(record) <= 1.2

    assert (cut(crop=1000, noise=0.05) - whole).std() == pytest.approx(0.05, rel=0.02)


def test_lead_sets_are_heard_alone() -> None:
    torch.manual_seed(0)
    how = TrainingSettings(amplitude=0, noise=0, lead_dropout=0, lead_sets=0.5, crop=10, network=NetworkConfig(patch=1))
    cut = augmented(torch.ones(1, 1000, 12), torch.zeros(400, dtype=torch.int64), how)
    heard = Counter("".join("x" if lead else "." for lead in record) for record in cut[:, 0].tolist())
    sets = {"".join("x" if lead in leads else "." for lead in LEADS) for leads in LEAD_SETS.values()}
    assert set(heard) == sets | {"x" * 12}
    assert 150 < heard["x" * 12] < 250
