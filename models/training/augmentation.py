"""What is done to the signals of a batch before the network sees them in training."""

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.training.recipe import TrainingSettings


def augmented(
    signals: NDArray[np.float32], settings: TrainingSettings, rng: np.random.Generator, length: int
) -> NDArray[np.float32]:
    """(B, 1000, 12) -> (B, length, 12): cut at random, louder or softer, noisier, with silent leads."""
    batch, samples, leads = signals.shape
    starts = rng.integers(samples - length + 1, size=batch)
    cut = np.stack([signal[start : start + length] for signal, start in zip(signals, starts, strict=True)])
    cut *= rng.uniform(1 - settings.amplitude, 1 + settings.amplitude, (batch, 1, 1)).astype(np.float32)
    cut += settings.noise * rng.standard_normal(cut.shape, np.float32)
    cut *= rng.random((batch, 1, leads)) >= settings.lead_dropout
    return cut
