"""The models there are on this machine: those that ship, in the folder `shipped`, and those that were added.

Nothing here imports torch.
"""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.preprocessing import PREPROCESSING, MetadataFill, Normalization
from ecgbatch.models.weights.model import Model, Weights, fingerprint_of, read_model
from ecgbatch.settings import EcgbatchError

SHIPPED = Path(__file__).parent / "shipped"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+]*")
CHOICE = "default"
"""The file in the registry's folder that names the model chosen by `model use`."""


class Registry:
    """The models that ship and those in one folder, the setting `model_dir`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def available(self) -> list[Model]:
        """All models, the newest last. Raises EcgbatchError for a broken one."""
        folders = dict.fromkeys((SHIPPED, self.folder))
        models = [read_model(path) for folder in folders for path in sorted(folder.glob("*.json"))]
        return sorted(models, key=lambda model: model.description["created_at"])

    def find(self, wanted: str | None) -> Model:
        """The model "NAME:VERSION", the newest of "NAME", or the default. Raises EcgbatchError if there is none."""
        return self.default() if wanted is None else self._named(wanted)

    def default(self) -> Model:
        """The model that `use` chose; before that, the newest that ships. Raises EcgbatchError if there is none."""
        if (chosen := self._chosen()) is not None:
            return self._named(chosen)
        shipped = [model for model in self.available() if model.folder == SHIPPED]
        if not shipped:
            raise EcgbatchError("no model is the default: choose one with `ecgbatch model use NAME:VERSION`")
        return shipped[-1]

    def use(self, wanted: str) -> Model:
        """Makes "NAME:VERSION", or the newest of "NAME", the default from now on."""
        model = self._named(wanted)
        _write(self.folder / CHOICE, f"{model}\n".encode())
        return model

    def by_fingerprint(self, fingerprint: str) -> Model:
        """The model with this fingerprint. Raises EcgbatchError if it is not on this machine."""
        for model in self.available():
            if model.fingerprint == fingerprint:
                return model
        raise EcgbatchError(
            f"the model with the fingerprint {fingerprint[:12]} is not here: run `ecgbatch model add` on this machine "
            "too, or let ECGBATCH_MODEL_DIR be a folder that all machines see"
        )

    def add(
        self,
        name: str,
        version: str,
        config: NetworkConfig,
        weights: Weights,
        normalization: Normalization,
        *,
        metadata_fill: MetadataFill | None = None,
        thresholds: dict[str, float] | None = None,
        labels: Sequence[str] = LABELS,
        training: dict[str, Any] | None = None,
    ) -> Model:
        """Keeps a model in the registry's folder; to add the same one again changes nothing.

        `metadata_fill` defaults to the means over the training folds of PTB-XL, `thresholds` to 0.5 each; `training`
        says how the weights were made, `labels` which classes they tell. Raises EcgbatchError for a name or version
        that makes no file name, one that another model has, or a folder that cannot be written.
        """
        description: dict[str, Any] = {
            "name": name,
            "version": version,
            "fingerprint": "",
            "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "config": config.as_dict(),
            "preprocessing": PREPROCESSING,
            "normalization": normalization.as_dict(),
            "labels": list(labels),
            "metadata_fill": (metadata_fill or MetadataFill()).as_dict(),
            "thresholds": thresholds or dict.fromkeys(labels, 0.5),
            "training": training,
        }
        description["fingerprint"] = fingerprint_of(description, weights)
        for model in self.available():
            if (model.name, model.version, model.fingerprint) == (name, version, description["fingerprint"]):
                return model
        self.check_free(name, version)
        model = Model(description, self.folder)
        _keep(model, weights)
        return model

    def declare(self, model: Model, **found: Any) -> Model:
        """Writes what was found of a model into its description: lead_sets, lengths, uncertain.

        The fingerprint stays: it covers what the probabilities depend on. Raises EcgbatchError for a folder that cannot
        be written.
        """
        path = model.weights_path.with_suffix(".json")
        _write_description(path, model.description | found)
        return read_model(path)

    def check_free(self, name: str, version: str) -> None:
        """Raises EcgbatchError when a model cannot have this name and version, or another has them."""
        check_name(name, version)
        if any((model.name, model.version) == (name, version) for model in self.available()):
            raise EcgbatchError(f"there is another model {name}:{version} already: give this one a new version")

    def _named(self, wanted: str) -> Model:
        models = self.available()
        name, _, version = wanted.partition(":")
        matching = [model for model in models if model.name == name and version in ("", model.version)]
        if not matching:
            there = ", ".join(map(str, models)) or "none"
            raise EcgbatchError(f"there is no model {wanted}; there are: {there}")
        return matching[-1]

    def _chosen(self) -> str | None:
        path = self.folder / CHOICE
        try:
            with path.open("rb") as file:
                chosen = file.read(1000).decode().strip()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise EcgbatchError(
                f"cannot read {path} ({error}): choose with `ecgbatch model use NAME:VERSION`"
            ) from None
        return chosen


def check_name(name: str, version: str) -> None:
    """Raises EcgbatchError for a name or version that makes no file name."""
    if not NAME.fullmatch(name):
        raise EcgbatchError(f"a model's name is of letters, digits, dots, dashes and underscores, not {name!r}")
    if not VERSION.fullmatch(version):
        raise EcgbatchError(f"a model's version is of letters, digits, dots, plus and underscores, not {version!r}")


def _keep(model: Model, weights: Weights) -> None:
    """The description comes last: without it the weights are not seen."""
    from safetensors.numpy import save

    contiguous = {key: np.ascontiguousarray(weights[key]) for key in sorted(weights)}
    _write(model.weights_path, save(contiguous))
    _write_description(model.weights_path.with_suffix(".json"), model.description)


def _write_description(path: Path, description: dict[str, Any]) -> None:
    _write(path, (json.dumps(description, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
    except OSError as error:
        raise EcgbatchError(f"cannot write to {path.parent} ({error.strerror}): set ECGBATCH_MODEL_DIR") from None


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
