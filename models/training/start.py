"""The weights that a training begins with."""

import numpy as np

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.compiled import parameter_shapes
from ecgbatch.models.weights.model import Weights
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError

WIDENED = "classifier.0.weight"
"""Its last columns are those of the extremes."""


def mean_weights(registry: Registry, start: str, network: NetworkConfig) -> Weights:
    """Each weight as its mean over the models that `start` names, one or several, with spaces between them.

    Where the network sees extremes and a model does not, the classifier begins with zeros for them: it says the same.
    Raises EcgbatchError for models that are not of the network's sizes, or that tell classes of their own.
    """
    models = [registry.find(name) for name in start.split()]
    all_weights = []
    for model in models:
        if not model.tells_superclasses:
            raise EcgbatchError(f"{model} tells classes of its own: it goes on learning by `model tune`")
        weights = model.weights()
        if network.extremes and not model.config.extremes:
            weights[WIDENED] = np.pad(weights[WIDENED], [(0, 0), (0, network.features_dim - model.config.features_dim)])
        if {name: weight.shape for name, weight in weights.items()} != dict(parameter_shapes(network)):
            raise EcgbatchError(
                f"{model} is not of the sizes of the recipe's network, which cannot begin with its weights"
            )
        all_weights.append(weights)
    return {
        key: np.stack([weights[key] for weights in all_weights]).mean(axis=0, dtype=np.float64).astype(np.float32)
        for key in all_weights[0]
    }
