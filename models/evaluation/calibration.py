"""Probabilities that mean what they say: a scale and a shift of each class's logit.

Platt 1999, Probabilistic outputs for support vector machines, with his smoothed targets. As the network's last layer is
linear, both go into its weights, and scoring costs nothing more. The order of the records, and so every AUC, stays as
it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import LAST_LAYER
from ecgbatch.models.evaluation.metrics import expected_calibration_error
from ecgbatch.models.weights.model import Weights

PARTS = 5
STEPS = 50

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """For each class: the scale and the shift of its logit, and the expected calibration error with them.

    The error is that of records which had no part in the fit.
    """

    scale: Array
    shift: Array
    error: Array

    def __call__(self, logits: Array) -> Array:
        """(R, K) logits -> probabilities."""
        calibrated: Array = 1 / (1 + np.exp(-(self.scale * logits + self.shift)))
        return calibrated

    def folded(self, weights: Weights) -> Weights:
        """Weights of a network whose probabilities are calibrated."""
        scaled = {
            f"{LAST_LAYER}.weight": (self.scale[:, None] * weights[f"{LAST_LAYER}.weight"]).astype(np.float32),
            f"{LAST_LAYER}.bias": (self.scale * weights[f"{LAST_LAYER}.bias"] + self.shift).astype(np.float32),
        }
        return {**weights, **scaled}

    def as_dict(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        columns = zip(labels, self.scale, self.shift, self.error, strict=True)
        return {
            name: {"scale": float(scale), "shift": float(shift), "error": float(error)}
            for name, scale, shift, error in columns
        }


def calibrate(labels: NDArray[np.float32], logits: Array) -> Calibration:
    """Fitted on (R, K) labels and logits; its error by cross-fitting: each fifth by what the others gave."""
    scale, shift = _fits(labels, logits)
    part = np.arange(len(labels)) % PARTS
    probabilities = np.empty_like(logits)
    for number in range(PARTS):
        inside = part == number
        of_others = _fits(labels[~inside], logits[~inside])
        probabilities[inside] = Calibration(*of_others, error=np.empty(0))(logits[inside])
    columns = zip(labels.T, probabilities.T, strict=True)
    return Calibration(scale, shift, np.array([expected_calibration_error(*column) for column in columns]))


def _fits(labels: NDArray[np.float32], logits: Array) -> tuple[Array, Array]:
    fits = np.array([_fit(*column) for column in zip(labels.T, logits.T, strict=True)])
    return fits[:, 0], fits[:, 1]


def _fit(labels: NDArray[np.float32], logits: Array) -> Array:
    """(R,) each -> the scale and the shift with the least cross entropy.

    The scale is fitted as a logarithm, and held to 1 as by one more record: it stays above zero, and few records that
    happen to lie apart cannot drive it far.
    """
    positives = labels.sum()
    targets = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    log_scale, shift = 0.0, 0.0
    for _ in range(STEPS):
        scaled = np.exp(log_scale) * logits
        probability = 1 / (1 + np.exp(-(scaled + shift)))
        by = np.column_stack([scaled, np.ones(len(logits))])  # the derivatives of a logit
        slope = by.T @ (probability - targets) + [log_scale, 0.0]
        curvature = (by * (probability * (1 - probability))[:, None]).T @ by + np.diag([1.0, 1e-6])
        step = np.linalg.solve(curvature, slope)
        log_scale, shift = np.array([log_scale, shift]) - step / max(1.0, float(np.abs(step).max()))
    return np.array([np.exp(log_scale), shift])
