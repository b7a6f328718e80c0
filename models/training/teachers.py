"""Teachers: networks that each have not seen one fold, and so can tell what its labels miss.

Of eight teachers, each trained without another of folds 1 to 8, every record has one that never saw it. What that one
says of it is not learned by heart: it is softer than the label where the label is doubtful. A network that learns from
several such sets gets the mean of what they say. Each record is asked about whole, with all leads; the one who learns
sees crops, noise and silent leads. (Distillation: Hinton, Vinyals & Dean 2015, arXiv:1503.02531.)
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.metrics import roc_auc
from ecgbatch.models.training.examples import Examples, Say
from ecgbatch.models.training.loop import Training, answers
from ecgbatch.models.training.recipe import TRAINING_FOLDS, VALIDATION_FOLD, TrainingSettings
from ecgbatch.models.training.stacking import corrected
from ecgbatch.models.training.state import kept_settings
from ecgbatch.models.training.step import Learned
from ecgbatch.settings import EcgbatchError


def train_teachers(settings: TrainingSettings, folder: Path, examples: Examples, say: Say) -> list[Training]:
    """Trains a teacher without each of folds 1 to 8, in a folder of its own: on a GPU all at once, else in turn."""
    trainings = [
        Training(replace(settings, hold_out=fold, seed=settings.seed + fold), folder / f"without-{fold}", examples)
        for fold in TRAINING_FOLDS
    ]
    run_all(trainings, say)
    return trainings


def run_all(trainings: Sequence[Training], say: Say) -> None:
    """Runs trainings to their ends: on a GPU all at once, a thread each, else in turn."""

    def run(training: Training) -> None:
        training.run(lambda text: say(f"{training.folder.name}: {text}"))

    if trainings[0].device.type != "cuda":
        for training in trainings:
            run(training)
        return
    torch.cuda.synchronize()
    for training in trainings:
        training.begin()
    with ThreadPoolExecutor(len(trainings)) as threads:
        list(threads.map(run, trainings))


def taught_by(teachers: Sequence[Path], examples: Examples, folder: Path, say: Say, extremes: int = 0) -> Tensor:
    """What the teachers in some folders say of each record, (R, 5 + S): the mean of those that have not seen it.

    With `extremes`, of the network that is to learn from it, it is corrected by them: see `stacking`.
    Kept in `taught.npy` in the folder of the training that learns from it, which goes on without the teachers. Says
    the macro AUC of all of them together on fold 9, which none has seen. Raises EcgbatchError for a folder without a
    teacher for each fold, or with one that has not ended.
    """
    path = folder / "taught.npy"
    if not path.exists():
        said = _asked(teachers, examples)
        if extremes:
            said = corrected(said, examples, extremes)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, said.cpu().numpy())
    said = torch.from_numpy(np.load(path)).to(examples.labels.device)
    if len(said) != len(examples.labels):
        raise EcgbatchError(f"{path} is of other records than those in the archive: train in a new folder")
    chosen = examples.validation.to(said.device)
    labels, found = (part[chosen, : len(LABELS)].cpu().numpy() for part in (examples.labels, said))
    aucs = [float(roc_auc(labels[:, at], found[:, at])) for at in range(len(LABELS))]
    who = "the teachers together, corrected" if extremes else "the teachers together"
    say(f"{who}: macro AUC {np.mean(aucs):.4f} on fold {VALIDATION_FOLD}")
    return said


def _asked(teachers: Sequence[Path], examples: Examples) -> Tensor:
    said = examples.labels.new_zeros(len(examples.labels), len(LABELS) + examples.statements.shape[1])
    for folder in teachers:
        for fold in TRAINING_FOLDS:
            teacher = _teacher(folder / f"without-{fold}", examples)
            for asked, of_how_many in ((fold, 1), (VALIDATION_FOLD, len(TRAINING_FOLDS))):
                chosen = examples.of_fold(asked)
                said[chosen.to(said.device)] += answers(teacher, examples, chosen) / (of_how_many * len(teachers))
    return said


def _teacher(folder: Path, examples: Examples) -> Learned:
    settings = kept_settings(folder)
    teacher = Training(settings, folder, examples)
    if not teacher.ended:
        raise EcgbatchError(f"the training in {folder} has not ended: train the teachers first")
    teacher.average.load_state_dict(teacher.best[2])
    return teacher.average
