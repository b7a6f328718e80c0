"""What a training keeps in its folder: `settings.json`, `last.pt`, and `epochs.csv`, a row for each epoch.

`last.pt` is the only truth: it gets its name whole or not at all, and `epochs.csv` is written from what it holds, after
it and again when the training goes on. So a training that is killed at any moment goes on from its last saved step,
and no epoch is logged that would be trained again.
"""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from ecgbatch.models.json_files import read_json
from ecgbatch.models.training.recipe import TrainingSettings
from ecgbatch.settings import EcgbatchError

State = dict[str, Any]


def keep_settings(folder: Path, settings: TrainingSettings) -> None:
    """Writes `settings.json`. Raises EcgbatchError when the folder holds a training with other settings."""
    path, content = folder / "settings.json", json.dumps(settings.as_dict(), indent=2) + "\n"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, lambda file: file.write(content.encode()))
    elif kept_settings(folder) != settings:
        raise EcgbatchError(f"{folder} holds a training with other settings: train in a new folder")


def kept_settings(folder: Path) -> TrainingSettings:
    """What `keep_settings` wrote. Raises EcgbatchError when the folder holds no training."""
    try:
        return TrainingSettings.from_dict(read_json(folder / "settings.json"))
    except FileNotFoundError:
        raise EcgbatchError(f"{folder} holds no training") from None


def save(folder: Path, state: State) -> None:
    """Writes `last.pt`."""
    _replace(folder / "last.pt", lambda file: torch.save(state, file))


def restore(folder: Path, device: str) -> State | None:
    """What `save` wrote last; None for a new training. Raises EcgbatchError for a file that is damaged."""
    path = folder / "last.pt"
    try:
        state: State = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError):
        raise damaged(folder) from None
    return state


def damaged(folder: Path) -> EcgbatchError:
    """The error of a training whose `last.pt` is not what `save` writes."""
    return EcgbatchError(f"{folder / 'last.pt'} is damaged: remove it to train from the beginning")


def write_epochs(folder: Path, columns: tuple[str, ...], epochs: list[list[str]]) -> None:
    """Writes `epochs.csv`."""
    text = "".join(f"{','.join(row)}\n" for row in (columns, *epochs))
    _replace(folder / "epochs.csv", lambda file: file.write(text.encode()))


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file under another name, sees it on the disk, and only then gives it its own."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise EcgbatchError(f"cannot write {path} ({error.strerror})") from None
