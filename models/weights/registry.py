"""The models there are: pairs of NAME-VERSION.safetensors (the weights) and NAME-VERSION.json (what they are).

Those that ship lie in the package's folder `weights`, those that `ecgbatch model add` brought in lie in
ECGBATCH_MODEL_DIR. Nothing here imports torch.
"""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.preprocessing import PREPROCESSING, MetadataFill, Normalization
from ecgbatch.settings import EcgbatchError, load

Weights = dict[str, NDArray[np.float32]]

SHIPPED = Path(__file__).parent / "shipped"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+]*")
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
    def shipped(self) -> bool:
        return self.folder == SHIPPED

    @property
    def weights_path(self) -> Path:
        return self.folder / f"{self.name}-{self.version}.safetensors"

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


def available() -> list[Model]:
    """All models, the newest last. Raises EcgbatchError for a broken one."""
    folders = dict.fromkeys((SHIPPED, load().model_dir))
    models = [_read(path) for folder in folders for path in sorted(folder.glob("*.json"))]
    return sorted(models, key=lambda model: model.description["created_at"])


def find(wanted: str | None) -> Model:
    """The model "NAME:VERSION", the newest of "NAME", or the newest of all. Raises EcgbatchError if there is none."""
    models = available()
    if wanted is None:
        matching = models
    else:
        name, _, version = wanted.partition(":")
        matching = [m for m in models if m.name == name and version in ("", m.version)]
    if not matching:
        there = ", ".join(f"{m.name}:{m.version}" for m in models) or "none"
        raise EcgbatchError(f"there is no model {wanted or 'at all'}; there are: {there}")
    return matching[-1]


def by_fingerprint(fingerprint: str) -> Model:
    """The model with this fingerprint. Raises EcgbatchError if it is not on this machine."""
    for model in available():
        if model.fingerprint == fingerprint:
            return model
    raise EcgbatchError(
        f"the model with the fingerprint {fingerprint[:12]} is not here: run `ecgbatch model add` on this machine too, "
        "or let ECGBATCH_MODEL_DIR be a folder that all machines see"
    )


def add(
    name: str,
    version: str,
    config: NetworkConfig,
    weights: Weights,
    normalization: Normalization,
    *,
    metadata_fill: MetadataFill | None = None,
    thresholds: dict[str, float] | None = None,
    training: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> Model:
    """Keeps a model, by default in ECGBATCH_MODEL_DIR; to add the same one again changes nothing.

    `metadata_fill` defaults to the means over the training folds of PTB-XL, `thresholds` to 0.5 each; `training` says
    how the weights were made. Raises EcgbatchError for a name or version that makes no file name, one that another
    model has, or a folder that cannot be written.
    """
    description: dict[str, Any] = {
        "name": name,
        "version": version,
        "fingerprint": "",
        "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "config": config.as_dict(),
        "preprocessing": PREPROCESSING,
        "normalization": normalization.as_dict(),
        "labels": list(LABELS),
        "metadata_fill": (metadata_fill or MetadataFill()).as_dict(),
        "thresholds": thresholds or dict.fromkeys(LABELS, 0.5),
        "training": training,
    }
    description["fingerprint"] = fingerprint_of(description, weights)
    for model in available():
        if (model.name, model.version, model.fingerprint) == (name, version, description["fingerprint"]):
            return model
    check_free(name, version)
    model = Model(description, folder or load().model_dir)
    _write(model, weights)
    return model


def check_free(name: str, version: str) -> None:
    """Raises EcgbatchError when a model cannot have this name and version, or another has them."""
    _check_name(name, version)
    if any((model.name, model.version) == (name, version) for model in available()):
        raise EcgbatchError(f"there is another model {name}:{version} already: give this one a new version")


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


def _check_name(name: str, version: str) -> None:
    if not NAME.fullmatch(name):
        raise EcgbatchError(f"a model's name is of letters, digits, dots, dashes and underscores, not {name!r}")
    if not VERSION.fullmatch(version):
        raise EcgbatchError(f"a model's version is of letters, digits, dots, plus and underscores, not {version!r}")


def _read(path: Path) -> Model:
    try:
        model = Model(json.loads(path.read_text()), path.parent)
        _ = model.fingerprint, model.config, model.normalization, model.metadata_fill, model.thresholds
        complete = path.stem == f"{model.name}-{model.version}" and isinstance(model.description["created_at"], str)
        known = model.description["preprocessing"] == PREPROCESSING and model.description["labels"] == list(LABELS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EcgbatchError(f"{path} is no description of a model ({error!r}): remove it") from None
    if not complete:
        raise EcgbatchError(f"{path} describes {model.name}-{model.version}: give it back its name, or remove it")
    if not known:
        raise EcgbatchError(
            f"{path} asks for preprocessing or labels that this ecgbatch does not know: update ecgbatch"
        )
    return model


def _write(model: Model, weights: Weights) -> None:
    """The description comes last: without it the weights are not seen."""
    from safetensors.numpy import save

    contiguous = {key: np.ascontiguousarray(weights[key]) for key in sorted(weights)}
    try:
        model.folder.mkdir(parents=True, exist_ok=True)
        _replace(model.weights_path, save(contiguous))
        _replace(model.weights_path.with_suffix(".json"), (json.dumps(model.description, indent=2) + "\n").encode())
    except OSError as error:
        raise EcgbatchError(f"cannot write to {model.folder} ({error.strerror}): set ECGBATCH_MODEL_DIR") from None


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
