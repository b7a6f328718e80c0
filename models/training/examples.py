"""The examples of a training: labelled records, read and cleaned once and kept in the training's folder."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models import preprocessing
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.ptbxl import labelled_records
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import SAMPLES, RecordError
from ecgbatch.settings import EcgbatchError

VALIDATION_FOLD = 9
READ_AT_ONCE = 256

Say = Callable[[str], None]


@dataclass(frozen=True)
class Examples:
    """Records ready to train on: (R, 1000, 12) cleaned, (R, 2) age and sex, (R, 5) and (R, 71) 0 or 1, all float32."""

    signals: NDArray[np.float32]
    metadata: NDArray[np.float32]
    labels: NDArray[np.float32]
    statements: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.signals)


def prepare(archive: Path, folder: Path, say: Say) -> tuple[Examples, Examples]:
    """The examples to train on, of folds 1 to 8, and those to validate on, of fold 9.

    Raises EcgbatchError when a recording cannot be read or is shorter than ten seconds, or when the labels leave
    nothing to learn.
    """
    records = [
        r for r in labelled_records(archive / "ptbxl_database.csv") if r.fold is not None and r.fold <= VALIDATION_FOLD
    ]
    signals = _cleaned(archive, records, folder, say)
    filled = [preprocessing.metadata(r.age, r.sex, preprocessing.MetadataFill()).values for r in records]
    parts = [
        np.array(part, np.float32) for part in (filled, [r.labels for r in records], [r.statements for r in records])
    ]
    validate = np.array([r.fold == VALIDATION_FOLD for r in records])
    train, validation = (Examples(*(part[chosen] for part in (signals, *parts))) for chosen in (~validate, validate))
    for labels in (train.labels, validation.labels):
        if not len(labels) or not np.all((labels.min(0) == 0) & (labels.max(0) == 1)):
            raise EcgbatchError(
                f"{archive} needs records with and without each superclass, in folds 1 to 8 and in fold 9"
            )
    return train, validation


def _cleaned(archive: Path, records: list[LabelledRecord], folder: Path, say: Say) -> NDArray[np.float32]:
    """(R, 1000, 12): what an earlier call kept in the folder, or else read and cleaned now."""
    path = folder / "cleaned.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _clean_all(archive, records, path, say)
        signals: NDArray[np.float32] = np.load(path, mmap_mode="r")
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
    cleaned = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(records), READ_AT_ONCE):
        signals = np.stack([read_signal(archive, r.path) for r in records[start : start + READ_AT_ONCE]])
        cleaned[start : start + READ_AT_ONCE] = preprocessing.clean(signals, preprocessing.Normalization())
        say(f"read {min(start + READ_AT_ONCE, len(records))} of {len(records)} records")
    cleaned.flush()
    os.replace(partial, path)


def read_signal(archive: Path, record: str) -> NDArray[np.float64]:
    """(1000, 12) in mV at 100 Hz. Raises EcgbatchError for a record that cannot be read or is shorter."""
    try:
        signal = read(archive, record).signal
    except RecordError as error:
        raise EcgbatchError(f"cannot read {archive / record} ({error}): mend it, or take it out of the table") from None
    if len(signal) != SAMPLES:
        raise EcgbatchError(f"{archive / record} is shorter than ten seconds: take it out of the table")
    return signal
