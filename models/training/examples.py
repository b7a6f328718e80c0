"""The examples of a training: labelled records, read and cleaned once and kept in the training's folder."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgbatch.models import preprocessing
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.ptbxl import labelled_records
from ecgbatch.models.signals import read_signal
from ecgbatch.models.training.recipe import VALIDATION_FOLD, TrainingSettings
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

READ_AT_ONCE = 256

Say = Callable[[str], None]


@dataclass(frozen=True)
class Examples:
    """The R records of folds 1 to 9 on one device, float32, and the fold of each.

    Signals (R, 1000, 12) cleaned, metadata (R, 2) age in years and sex, labels (R, K) and statements (R, S) 0 or 1: of
    PTB-XL the 5 superclasses and 71 statements. With `none_counts` records that have no label validate too.
    """

    signals: Tensor
    metadata: Tensor
    labels: Tensor
    statements: Tensor
    folds: Tensor
    none_counts: bool = False

    def training(self, settings: TrainingSettings) -> Tensor:
        """The numbers of the records that are learned from, on the CPU."""
        taken = (self.folds != VALIDATION_FOLD) & (self.folds != settings.hold_out)
        if not settings.without_superclass:
            taken = taken & self._with_superclass
        return _numbers(taken)

    @property
    def validation(self) -> Tensor:
        """The numbers of the records that choose, on the CPU: those of fold 9, as a rule with a superclass."""
        chosen = self.folds == VALIDATION_FOLD
        return _numbers(chosen if self.none_counts else chosen & self._with_superclass)

    def of_fold(self, fold: int) -> Tensor:
        """The numbers of all records of a fold, on the CPU."""
        return _numbers(self.folds == fold)

    @property
    def _with_superclass(self) -> Tensor:
        return self.labels.any(1)


def prepare(archive: Path, folder: Path, device: str, say: Say) -> Examples:
    """The examples in an archive that is laid out as PTB-XL; their signals are kept in `cleaned.npy` in the folder.

    Raises EcgbatchError when a recording cannot be read or is shorter than ten seconds, or when the labels leave
    nothing to learn.
    """
    table = archive / "ptbxl_database.csv"
    records = [r for r in labelled_records(table, superclass_only=False) if r.fold is not None and r.fold <= 9]
    signals = torch.from_numpy(cleaned(archive, records, folder, say)).to(device)
    filled = [preprocessing.metadata(r.age, r.sex, preprocessing.MetadataFill()).values for r in records]
    columns = (filled, [r.labels for r in records], [r.statements for r in records], [r.fold for r in records])
    metadata, labels, statements, folds = (torch.tensor(np.array(c, np.float32)).to(device) for c in columns)
    examples = Examples(signals, metadata, labels, statements, folds)
    for chosen in (examples.training(TrainingSettings()), examples.validation):
        found = labels[chosen.to(device)]
        if not len(found) or not bool(((found.amin(0) == 0) & (found.amax(0) == 1)).all()):
            raise EcgbatchError(
                f"{archive} needs records with and without each superclass, in folds 1 to 8 and in fold 9"
            )
    return examples


def _numbers(taken: Tensor) -> Tensor:
    return taken.nonzero().squeeze(1).cpu()


def cleaned(archive: Path, records: list[LabelledRecord], folder: Path, say: Say) -> NDArray[np.float32]:
    """(R, 1000, 12): what an earlier call kept in the folder, or else read and cleaned now."""
    path = folder / "cleaned.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _clean_all(archive, records, path, say)
        signals: NDArray[np.float32] = np.load(path, mmap_mode="c")  # what torch takes: a copy for whoever writes
    except OSError as error:
        raise EcgbatchError(f"cannot write or read {path} ({error.strerror})") from None
    except (ValueError, EOFError):
        raise EcgbatchError(f"{path} is damaged: remove it, and the recordings are read again") from None
    if signals.shape != (len(records), SAMPLES, len(LEADS)) or signals.dtype != np.float32:
        raise EcgbatchError(f"{path} is of other records than those in {archive}: train in a new folder")
    return signals


def _clean_all(archive: Path, records: list[LabelledRecord], path: Path, say: Say) -> None:
    partial = path.with_suffix(".partial.npy")
    shape = (len(records), SAMPLES, len(LEADS))
    kept = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(records), READ_AT_ONCE):
        signals = np.stack([read_signal(archive, r.path) for r in records[start : start + READ_AT_ONCE]])
        kept[start : start + READ_AT_ONCE] = preprocessing.clean(signals, preprocessing.Normalization())
        say(f"read {min(start + READ_AT_ONCE, len(records))} of {len(records)} records")
    kept.flush()
    os.replace(partial, path)
