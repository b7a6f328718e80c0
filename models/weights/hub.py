"""A model in a folder as model hubs have it: config.json, its description, and model.safetensors, its weights."""

import shutil
import tempfile
from pathlib import Path

from ecgbatch.models.json_files import read_json
from ecgbatch.models.weights.download import fetch
from ecgbatch.models.weights.model import Model, read_model
from ecgbatch.models.weights.registry import check_name
from ecgbatch.settings import EcgbatchError

HUB = "hf:"
DESCRIPTION, WEIGHTS = "config.json", "model.safetensors"


def write_folder(model: Model, folder: Path) -> None:
    """Writes the model into a folder that is not there yet. Raises EcgbatchError."""
    model.weights()  # which says so if they are not what they were
    try:
        folder.mkdir(parents=True)
        shutil.copyfile(model.weights_path, folder / WEIGHTS)
        shutil.copyfile(model.weights_path.with_suffix(".json"), folder / DESCRIPTION)
    except OSError as error:
        raise EcgbatchError(f"cannot make the folder {folder} ({error.strerror}): name one that is not there") from None


def load_folder(folder: Path, into: Path) -> Model:
    """The model in a folder, copied into the folder `into`. Raises EcgbatchError for one that holds no model."""
    try:
        description = read_json(folder / DESCRIPTION)
        name, version = str(description["name"]), str(description["version"])
        check_name(name, version)
        shutil.copyfile(folder / DESCRIPTION, into / f"{name}-{version}.json")
        shutil.copyfile(folder / WEIGHTS, into / f"{name}-{version}.safetensors")
    except OSError as error:
        raise EcgbatchError(f"{folder} holds no {DESCRIPTION} and {WEIGHTS} ({error.strerror})") from None
    except (KeyError, TypeError):
        raise EcgbatchError(f"{folder / DESCRIPTION} is no description of a model of ecgbatch") from None
    return read_model(into / f"{name}-{version}.json")


def load_repository(source: str, into: Path) -> Model:
    """The model in the repository `hf:OWNER/REPO[@REVISION]`, kept in the folder `into`.

    Nothing in it is run. What a name stands for may change; a REVISION that is a commit's hash stays what it is.
    Raises EcgbatchError when the source makes no sense or cannot be had whole, or is no model.
    """
    repository, _, revision = source.removeprefix(HUB).partition("@")
    with tempfile.TemporaryDirectory(prefix="ecgbatch-") as name:
        for file in (DESCRIPTION, WEIGHTS):
            fetch(f"{HUB}{repository}/{file}{f'@{revision}' if revision else ''}", Path(name) / file)
        try:
            return load_folder(Path(name), into)
        except EcgbatchError as error:
            raise EcgbatchError(str(error).replace(name, source)) from None
