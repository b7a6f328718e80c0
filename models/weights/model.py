"""One model as it lies on disk: NAME-VERSION.safetensors (the weights) and NAME-VERSION.json (what they are)."""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import LABELS, NetworkConfig, check_classes, checked_fields
from ecgbatch.models.json_files import read_json
from ecgbatch.models.kernels.compiled import parameter_shapes
from ecgbatch.models.preprocessing import PREPROCESSING, MetadataFill, Normalization
from ecgbatch.records.leads import LEAD_SETS
from ecgbatch.settings import EcgbatchError

Weights = dict[str, NDArray[np.float32]]

LARGEST = 2**28  # bytes of a model's weights; those that ship have 2.2 million
FINGERPRINTED = ("config", "preprocessing", "normalization", "labels", "metadata_fill")


@dataclass(frozen=True)
class Model:
    """One model; its weights stay on disk until `weights` is called.

    `description` is the content of its JSON file: name, version, fingerprint, created_at, config, preprocessing,
    normalization (mV), labels, metadata_fill, thresholds, and training: how `model train` made it, or null. What
    `model measure --declare` found may be there too: lead_sets, lengths and uncertain.
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
    def labels(self) -> tuple[str, ...]:
        """The classes that it tells, in the order of its probabilities: the superclasses, or some of one's own."""
        return tuple(self.description["labels"])

    @property
    def tells_superclasses(self) -> bool:
        return self.labels == LABELS

    @property
    def normalization(self) -> Normalization:
        return Normalization(**checked_fields(Normalization, self.description["normalization"], "a normalization"))

    @property
    def metadata_fill(self) -> MetadataFill:
        return MetadataFill(**checked_fields(MetadataFill, self.description["metadata_fill"], "a metadata_fill"))

    @property
    def thresholds(self) -> dict[str, float]:
        """Per class, from which probability on it counts as found."""
        return dict(self.description["thresholds"])

    @property
    def lead_sets(self) -> dict[str, float]:
        """The sets of fewer than twelve leads (`LEAD_SETS`) that it is declared for, and its macro AUC by each."""
        return dict(self.description.get("lead_sets", {}))

    @property
    def uncertain(self) -> dict[str, tuple[float, float]]:
        """Per class, between which probabilities, both included, neither answer is ruled out."""
        return {name: (low, high) for name, (low, high) in self.description.get("uncertain", {}).items()}

    @property
    def weights_path(self) -> Path:
        return self.folder / f"{self.name}-{self.version}.safetensors"

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def weights(self) -> Weights:
        """The weights by state_dict key. Raises EcgbatchError when the files are not as they were when added."""
        path = self.weights_path
        weights = _load(path)
        if fingerprint_of(self.description, weights) != self.fingerprint:
            raise EcgbatchError(f"{path} or its .json was changed since it was added: add the model again")
        shapes = dict(parameter_shapes(self.config, len(self.labels)))
        if {key: value.shape for key, value in weights.items()} != shapes:
            raise EcgbatchError(f"{path} is not of the network that its .json describes: add the model again")
        if not all(value.dtype == np.float32 and np.isfinite(value).all() for value in weights.values()):
            raise EcgbatchError(f"{path} holds values that are no finite float32 numbers: add the model again")
        return weights


def read_model(path: Path) -> Model:
    """The model that a JSON file describes. Raises EcgbatchError, one line, for a file that describes none."""
    try:
        description = read_json(path)
        model = _checked(description, path.parent)
        known = description["preprocessing"] == PREPROCESSING
    except FileNotFoundError:
        raise EcgbatchError(f"there is no file {path}") from None
    except (EcgbatchError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, EcgbatchError) else f"what it says of {error} makes no sense"
        raise EcgbatchError(f"{path} is no description of a model ({reason}): remove it") from None
    if path.stem != f"{model.name}-{model.version}":
        raise EcgbatchError(f"{path} describes {str(model)[:200]!r}: give it back its name, or remove it")
    if not known:
        raise EcgbatchError(f"{path} asks for preprocessing that this ecgbatch does not know: update ecgbatch")
    return model


def _checked(description: Any, folder: Path) -> Model:
    """The model of a description in which everything that is used is of the kind that it should be."""
    if not isinstance(description, dict):
        raise EcgbatchError("it has no names and values")
    for key in ("name", "version", "fingerprint", "created_at"):
        if not isinstance(description[key], str):
            raise EcgbatchError(f"its {key} is no text")
    model = Model(description, folder)
    _ = model.config, model.normalization, model.metadata_fill
    thresholds, labels = description["thresholds"], description["labels"]
    if not isinstance(labels, list):
        raise EcgbatchError("its labels are no list of names")
    check_classes(labels)
    if not isinstance(thresholds, dict) or set(thresholds) != set(labels):
        raise EcgbatchError(f"its thresholds are not of {', '.join(labels)}")
    for name, value in thresholds.items():
        if not _is_share(value):
            raise EcgbatchError(f"its threshold of {name} is not from 0 to 1")
    _check_declared(description)
    if not isinstance(description["training"], (dict, type(None))):
        raise EcgbatchError("its training is no description")
    return model


def _check_declared(description: dict[str, Any]) -> None:
    """Raises EcgbatchError for lead sets, lengths or limits of uncertainty that are not what they should be."""
    lead_sets, lengths, uncertain = (description.get(key, {}) for key in ("lead_sets", "lengths", "uncertain"))
    if not isinstance(lead_sets, dict) or not set(lead_sets) <= set(LEAD_SETS):
        raise EcgbatchError(f"its lead_sets are not of {', '.join(LEAD_SETS)}")
    if not isinstance(lengths, dict) or not all(map(_is_share, (*lead_sets.values(), *lengths.values()))):
        raise EcgbatchError("its lead_sets and lengths are not figures from 0 to 1")
    if not isinstance(uncertain, dict) or not set(uncertain) <= set(description["labels"]):
        raise EcgbatchError(f"it is uncertain of other than {', '.join(description['labels'])}")
    for limits in uncertain.values():
        if not isinstance(limits, list) or len(limits) != 2 or not all(map(_is_share, limits)):
            raise EcgbatchError("it is uncertain between limits that are not two numbers from 0 to 1")


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _load(path: Path) -> Weights:
    import safetensors
    from safetensors.numpy import load

    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                raise EcgbatchError(f"cannot read the weights {path}: it is no file of at most {LARGEST:,} bytes")
            return load(file.read(status.st_size))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise EcgbatchError(f"cannot read the weights {path} ({error}): add the model again") from None


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
