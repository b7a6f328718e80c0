"""What a score hangs on: how each probability changes when a lead, or half a second of one, is silenced.

The method is occlusion: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (2014).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.preprocessing import normalized
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.suggestion import cores
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLING_RATE

PIECE_SECONDS = 0.5
PIECE = int(PIECE_SECONDS * SAMPLING_RATE)

IS = (
    "a change is what a probability does when the model gets silence (0 mV) for a lead, or half a second of it; "
    "below zero: that part speaks for the class"
)
IS_NOT = (
    "it is about this model, not about the heart: no cause, no proof, and no sum, for leads repeat each other; "
    "a part without a change may show the finding all the same"
)


@dataclass(frozen=True)
class Occlusion:
    """Probabilities as they are (K,), and what silence adds: of a lead (12, K), of a piece of it (12, P, K)."""

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    by_lead: NDArray[np.float32]
    by_piece: NDArray[np.float32]

    def strongest(self, label: str) -> list[tuple[float, float]]:
        """Of each lead, when the half second begins that changes a class most, in seconds, and by how much."""
        changes = self.by_piece[:, :, self.labels.index(label)]
        pieces = np.abs(changes).argmax(axis=1)
        return [(float(at * PIECE_SECONDS), float(change[at])) for at, change in zip(pieces, changes, strict=True)]


def occlude(scorer: Scorer, filtered: NDArray[np.float64], metadata: tuple[float, float]) -> Occlusion:
    """Silences each part of (T, 12) mV, filtered, in turn; the metadata are as `Scorer.metadata` gives them.

    Parts are silenced after the filters, which would smear an edge over their neighbours.
    """
    normalization = scorer.model.normalization
    whole = normalized(filtered, normalization)
    silence = normalized(np.zeros(()), normalization)
    pieces = ceil(len(whole) / PIECE)
    variants = np.repeat(whole[np.newaxis], 1 + len(LEADS) * (1 + pieces), axis=0)  # (1 + 12 + 12 P, T, 12)
    parts = iter(variants[1:])
    for lead in range(len(LEADS)):
        next(parts)[:, lead] = silence
    for lead in range(len(LEADS)):
        for piece in range(pieces):
            next(parts)[piece * PIECE : (piece + 1) * PIECE, lead] = silence
    probabilities = _scored(scorer, variants, np.array(metadata, np.float32))
    changes = probabilities[1:] - probabilities[0]
    by_lead, by_piece = np.split(changes, [len(LEADS)])
    labels = scorer.model.labels
    return Occlusion(labels, probabilities[0], by_lead, by_piece.reshape(len(LEADS), pieces, len(labels)))


def _scored(scorer: Scorer, variants: NDArray[np.float32], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (n, 5) of variants (n, T, 12) of one record; on a CPU each core takes its share of them."""

    def score(part: NDArray[np.float32]) -> NDArray[np.float32]:
        return scorer.score(part, np.tile(metadata, (len(part), 1)))

    shares = cores() if scorer.device == "cpu" else 1
    with ThreadPoolExecutor(shares) as threads:  # the kernels release the interpreter's lock
        return np.concatenate(list(threads.map(score, np.array_split(variants, shares))))
