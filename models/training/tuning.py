"""Fine-tuning: a model that goes on learning from labels of one's own."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from ecgbatch.models import preprocessing
from ecgbatch.models.config import LABELS, LAST_LAYER
from ecgbatch.models.evaluation.labels import LabelledRecord, Labels
from ecgbatch.models.evaluation.metrics import roc_auc
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.training.examples import Examples, Say, cleaned
from ecgbatch.models.training.recipe import VALIDATION_FOLD, TrainingSettings
from ecgbatch.models.weights.model import Model, Weights
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

ONE_IN = 5
"""Of as many patients, or records, one validates."""
RATES = {"whole": 1e-4, "frozen": 1e-3}
"""The highest learning rate: the features of a trained network are to move little."""


def settings_of(model: Model, classes: tuple[str, ...], frozen: bool, epochs: int) -> TrainingSettings:
    """How a model is tuned to tell some classes: all of it, or with `frozen` its classifier alone.

    Raises EcgbatchError for a model whose input is not normalised as in training.
    """
    usual = (preprocessing.Normalization(), preprocessing.MetadataFill())
    if (model.normalization, model.metadata_fill) != usual:
        raise EcgbatchError(f"{model} has a normalisation or a metadata_fill of its own: only the usual ones are tuned")
    return TrainingSettings(
        network=model.config,
        labels=classes,
        start=str(model),
        frozen=frozen,
        epochs=epochs,
        patience=epochs,
        learning_rate=RATES["frozen" if frozen else "whole"],
        crop=max(1, SAMPLES // 2 // model.config.patch) * model.config.patch,
        without_superclass=True,
        batch_size=16,
    )


def start_of(model: Model, classes: tuple[str, ...]) -> Weights:
    """The weights to begin with: the model's own, with a last layer of zeros if it tells other classes than these."""
    weights = model.weights()
    if model.labels == classes:
        return weights
    inputs = weights[f"{LAST_LAYER}.weight"].shape[1]
    weight, bias = np.zeros((len(classes), inputs), np.float32), np.zeros(len(classes), np.float32)
    return weights | {f"{LAST_LAYER}.weight": weight, f"{LAST_LAYER}.bias": bias}


def examples_of(
    archive: Path, labels: Labels, classes: tuple[str, ...], folder: Path, device: str, say: Say
) -> Examples:
    """The labelled records of an archive, of which one patient in five validates, or one record where none is named.

    Who validates hangs on the patient's, or the record's, name alone: more records change nothing of it. Records of no
    class at all train; they validate too, but where the classes are the superclasses. Raises EcgbatchError for labels
    that do not tell all of the classes or leave nothing to learn, and for a recording that cannot be read or is shorter
    than ten seconds.
    """
    if missing := [name for name in classes if name not in labels.classes]:
        raise EcgbatchError(
            f"the labels do not tell {', '.join(missing)}: each class needs a column of its name, or --columns "
            f"{missing[0]}=NAME; the classes of a new model are named by --classes"
        )
    records = [record for record in labels.records if fold_of(record) <= VALIDATION_FOLD]
    filled = [preprocessing.metadata(r.age, r.sex, preprocessing.MetadataFill()).values for r in records]
    folds = [fold_of(record) for record in records]
    metadata, answers, places = (
        torch.tensor(np.array(column, np.float32)).to(device)
        for column in (filled, [record.labels for record in records], folds)
    )
    for part, chosen in (("that train", places != VALIDATION_FOLD), ("that validate", places == VALIDATION_FOLD)):
        found = answers[chosen]
        if not len(found) or not bool(((found.amin(0) == 0) & (found.amax(0) == 1)).all()):
            raise EcgbatchError(f"of the {len(found):,} records {part} some must have each class, and some not")
    signals = torch.from_numpy(cleaned(archive, records, folder, say)).to(device)
    return Examples(signals, metadata, answers, statements=answers, folds=places, none_counts=classes != LABELS)


def macro_auc(model: Model, examples: Examples) -> float:
    """How a model does on the records that validate."""
    chosen = examples.validation.to(examples.signals.device)
    signals, metadata, labels = (
        part[chosen].cpu().numpy() for part in (examples.signals, examples.metadata, examples.labels)
    )
    probabilities = Scorer(model).score(signals, metadata)
    return float(np.mean([roc_auc(labels[:, at], probabilities[:, at]) for at in range(labels.shape[1])]))


def fold_of(record: LabelledRecord) -> int:
    """VALIDATION_FOLD for who validates, 1 for who trains; PTB-XL's own, of which those above 9 are left out."""
    if record.statements and record.fold is not None:
        return record.fold
    digest = hashlib.sha256((record.patient or record.path).encode()).digest()
    return VALIDATION_FOLD if int.from_bytes(digest[:8]) % ONE_IN == 0 else 1
