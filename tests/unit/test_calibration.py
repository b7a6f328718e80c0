"""Calibration: probabilities that mean what they say, in an order that stays."""

import numpy as np
import torch

from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.evaluation.calibration import calibrate
from ecgbatch.models.evaluation.metrics import expected_calibration_error
from ecgbatch.models.network import ParallelXLSTM


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


def test_what_was_too_sure_is_found_and_mended() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((6000, len(LABELS)))
    labels = (rng.random(logits.shape) < sigmoid(0.6 * logits - 0.7)).astype(np.float32)
    found = calibrate(labels, logits)
    np.testing.assert_allclose(found.scale, 0.6, atol=0.06)
    np.testing.assert_allclose(found.shift, -0.7, atol=0.1)
    for at, error in enumerate(found.error):
        before = float(expected_calibration_error(labels[:, at], sigmoid(logits[:, at])))
        assert error < 0.03 < 0.08 < before


def test_few_records_do_not_drive_it_far_nor_turn_the_order_round() -> None:
    logits = np.linspace(-1, 1, 16)[:, None] * np.ones(len(LABELS))
    labels = (logits < 0).astype(np.float32)
    found = calibrate(labels, logits)
    assert (found.scale > 0).all() and (found.scale < 2).all()
    assert (np.diff(found(logits), axis=0) > 0).all()


def test_folded_into_the_weights_it_is_what_the_network_says() -> None:
    torch.manual_seed(0)
    config = NetworkConfig("hierarchical", 16, 1, 1, patch=10)
    network = ParallelXLSTM(config).eval()
    signal, metadata = torch.randn(40, 500, 12), torch.tensor([[60.0, 1.0]]).expand(40, 2)
    with torch.inference_mode():
        logits = network.logits(signal, metadata).numpy().astype(np.float64)
        found = calibrate((logits > np.median(logits, 0)).astype(np.float32), logits)
        weights = found.folded({key: value.numpy() for key, value in network.state_dict().items()})
        network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        np.testing.assert_allclose(network(signal, metadata), found(logits), atol=1e-6)
