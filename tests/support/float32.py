"""How far float32 may be from float64: a bound that follows from the network and its input, not from a machine.

Each weight and each sample is moved up or down, at random, by half a unit in the last place of float32, and the
network is computed in float64: by how much the probabilities move says what it makes of one rounding. On 24 pairs of
networks and signals AVX-512, AVX2, the baseline and torch, in chunks and as whole sequences, were off by at most 4
times the largest of such moves; ROOM leaves 4 times that to others.
"""

from dataclasses import dataclass

import golden
import numpy as np
import torch
from numpy.typing import NDArray

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.network import ParallelXLSTM

ROOM = 16
MOVED = 40  # probabilities at least: of a few, the largest move may be small by chance
HALF_A_UNIT = 2.0**-24


@dataclass(frozen=True)
class InFloat64:
    """Probabilities (B, K) in float64, and how far float32 may be from them."""

    probabilities: NDArray[np.float64]
    bound: float

    def assert_given(self, found: NDArray[np.float32], gate: float = 0) -> None:
        """`found` is of the same records, or of the first of them.

        `gate` is the size of gates that are far from 0: a cell takes their exponentials, which half a unit in the last
        place of such a gate, at each step, changes by that much.
        """
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found, self.probabilities[: len(found)], atol=self.bound + ROOM * HALF_A_UNIT * gate, rtol=0
        )


def in_float64(
    config: NetworkConfig, weights: golden.Weights, signal: NDArray[np.float32], metadata: NDArray[np.float32]
) -> InFloat64:
    """The network, (B, T, 12) filtered and normalised, (B, 2)."""
    network = ParallelXLSTM(config, classes=len(weights["classifier.6.bias"])).double().eval()

    def probabilities(move: bool) -> NDArray[np.float64]:
        def tensor(values: NDArray[np.float32]) -> torch.Tensor:
            exact = values.astype(np.float64)
            return torch.from_numpy(exact * (1 + HALF_A_UNIT * rng.choice([-1, 1], exact.shape)) if move else exact)

        network.load_state_dict({key: tensor(value) for key, value in weights.items()})
        with torch.inference_mode():
            given: NDArray[np.float64] = network(tensor(signal), torch.from_numpy(metadata).double()).numpy()
            return given

    rng = np.random.default_rng(0)
    exact = probabilities(move=False)
    moves = [np.abs(probabilities(move=True) - exact).max() for _ in range(max(2, MOVED // exact.size))]
    return InFloat64(exact, ROOM * float(max(*moves, HALF_A_UNIT)))


def assert_cleaned(cleaned: NDArray[np.float32], expected: NDArray[np.float32], signals: NDArray[np.float64]) -> None:
    """What two ways of cleaning give, each filtering in float64 to 1e-10 of the largest sample, then rounding twice."""
    assert cleaned.dtype == np.float32
    np.testing.assert_allclose(cleaned, expected, rtol=4 * HALF_A_UNIT, atol=1e-9 * np.abs(signals).max())
