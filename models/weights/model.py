"""One model as it lies on disk: NAME-VERSION.safetensors (the weights) and NAME-VERSION.json (what they are)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.preprocessing import MetadataFill, Normalization
from ecgbatch.settings import EcgbatchError

Weights = dict[str, NDArray[np.float32]]

FINGERPRINTED = ("config", "preprocessing", "normalization", "labels", "metadata_fill")


@dataclass(frozen=True)
class Model:
    """One model; its weights stay on disk until `weights` is called.

    `description` is the content of its JSON file: name, version, fingerprint, created_at, config, preprocessing,
    normalization (mV), labels, metadata_fill, thresholds, and training: how `model train` made it, or null.
    """

    description: dict[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return str(self.description["name"])

    @property
    def version(self) -> str:
        return str(self.description["version"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that the probabilities depend on: see `fingerprint_of`."""
        return str(self.description["fingerprint"])

    @property
    def config(self) -> NetworkConfig:
        return NetworkConfig.from_dict(self.description["config"])

    @property
    def normalization(self) -> Normalization:
        return Normalization(**self.description["normalization"])

    @property
    def metadata_fill(self) -> MetadataFill:
        return MetadataFill(**self.description["metadata_fill"])

    @property
    def thresholds(self) -> dict[str, float]:
        """Per superclass, from which probability on it counts as found."""
        return dict(self.description["thresholds"])

    @property
    def weights_path(self) -> Path:
        return self.folder / f"{self.name}-{self.version}.safetensors"

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def weights(self) -> Weights:
        """The weights by state_dict key. Raises EcgbatchError when the files are not as they were when added."""
        import safetensors
        from safetensors.numpy import load_file

        try:
            weights = load_file(self.weights_path)
        except (OSError, safetensors.SafetensorError) as error:
            raise EcgbatchError(f"cannot read the weights {self.weights_path} ({error}): add the model again") from None
        if fingerprint_of(self.description, weights) != self.fingerprint:
            raise EcgbatchError(f"{self.weights_path} or its .json was changed since it was added: add the model again")
        return weights


def fingerprint_of(description: dict[str, Any], weights: Weights) -> str:
    """SHA-256, in hex, of configuration, preprocessing, normalisation, labels, metadata fill and weights."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        array = np.ascontiguousarray(weights[key])
        digest.update(_canonical_json([key, list(array.shape), array.dtype.str]))
        digest.update(array.data)
    parts = {key: description[key] for key in FINGERPRINTED}
    return hashlib.sha256(_canonical_json(parts | {"weights": digest.hexdigest()})).hexdigest()


def _canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
