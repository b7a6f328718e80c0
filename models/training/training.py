"""Trains the parallel xLSTM on an archive that is laid out as PTB-XL: folds 1 to 8 train it, fold 9 chooses.

Everything of one training lies in one folder: `settings.json`, the cleaned recordings, `epochs.csv` with a row for
each epoch, and `last.pt`, from which a stopped training goes on. Every batch, its augmentation and its dropout
follow from the seed and the number of the step, so that a stop changes nothing.
"""

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models import preprocessing
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.evaluation.labels import LabelledRecord, labelled_records
from ecgbatch.models.evaluation.metrics import best_threshold, roc_auc
from ecgbatch.models.kernels import compiled
from ecgbatch.models.network import ParallelXLSTM
from ecgbatch.models.scorer import Network, choose_kernel, keep_freed_memory, torch_network
from ecgbatch.models.training.recordings import read_recording
from ecgbatch.models.weights import registry
from ecgbatch.models.weights.registry import Model, Weights
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

VALIDATION_FOLD = 9
SAVE_SECONDS = 60
READ_AT_ONCE = 256
GRADIENT_NORM = 1.0
WARM_UP = 0.15  # share of the steps in which the learning rate rises
RECIPES = Path(__file__).parent / "recipes"
COLUMNS = ("epoch", "loss", "validation_loss", "macro_auc", *(f"auc_{label}" for label in LABELS), "seconds", "device")

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained; `models/recipes` holds those of the models that ship.

    An epoch sees `crop` successive samples of each record, wherever they begin; the last `whole_epochs` see all.
    `statements` is the weight of the loss of a second, linear classifier, which learns every statement of
    scp_statements.csv from the same features and is thrown away in the end: the finer question keeps the network from
    learning the answers to the coarse one by heart. `amplitude` is the largest relative change of a record's
    amplitude, `noise` the standard deviation of what is added to normalised samples, `lead_dropout` the chance of a
    lead to be silent. `average` is the decay, per step, of the running mean of the weights that is validated and kept.
    Training ends early after `patience` epochs that did not raise the macro AUC. Raises EcgbatchError for values that
    cannot be.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    epochs: int = 12
    whole_epochs: int = 2
    patience: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    crop: int = 250
    statements: float = 0.0
    amplitude: float = 0.2
    noise: float = 0.05
    lead_dropout: float = 0.05
    average: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.network.patch <= self.crop <= SAMPLES or self.crop % self.network.patch:
            raise EcgbatchError(f"crop must be a multiple of the patch, up to {SAMPLES}, not {self.crop}")
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise EcgbatchError(f"{name} of a training must be above zero, not {getattr(self, name)}")
        if not 0 <= self.whole_epochs <= self.epochs:
            raise EcgbatchError(f"whole_epochs must be 0 to {self.epochs}, not {self.whole_epochs}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingSettings":
        """Raises EcgbatchError for a name that is no setting of a training."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise EcgbatchError(f"{unknown[0]} is no setting of a training; there are {', '.join(sorted(known))}")
        return cls(**values | {"network": NetworkConfig.from_dict(values.get("network", {}))})


@dataclass(frozen=True)
class Examples:
    """Records ready to train on: (R, 1000, 12) cleaned, (R, 2) age and sex, (R, 5) and (R, 71) 0 or 1, all float32."""

    signals: NDArray[np.float32]
    metadata: NDArray[np.float32]
    labels: NDArray[np.float32]
    statements: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.signals)


def load_recipe(recipe: str) -> TrainingSettings:
    """The settings in a JSON file, or in a recipe that ships, by its name. Raises EcgbatchError if there is none."""
    path = RECIPES / f"{recipe}.json"
    if not path.exists():
        path = Path(recipe)
    try:
        return TrainingSettings.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        there = ", ".join(sorted(path.stem for path in RECIPES.glob("*.json")))
        raise EcgbatchError(f"there is no recipe {recipe}: give a file, or one of {there}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EcgbatchError(f"{path} is no recipe of a training ({error})") from None


def prepare(archive: Path, folder: Path, say: Say) -> tuple[Examples, Examples]:
    """The examples to train on and those to validate on, read and cleaned once and kept in the folder.

    Raises EcgbatchError when a recording cannot be read or is not twelve leads of ten seconds at 100 Hz, or when
    the labels leave nothing to learn.
    """
    records = [r for r in labelled_records(archive / "ptbxl_database.csv") if r.fold <= VALIDATION_FOLD]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cleaned.npy"
    if not path.exists():
        _clean_all(archive, records, path, say)
    signals = np.load(path, mmap_mode="r")
    if signals.shape != (len(records), SAMPLES, len(LEADS)):
        raise EcgbatchError(f"{path} is of other records than those in {archive}: train in a new folder")
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


def _clean_all(archive: Path, records: list[LabelledRecord], path: Path, say: Say) -> None:
    partial = path.with_suffix(".partial.npy")
    shape = (len(records), SAMPLES, len(LEADS))
    cleaned = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(records), READ_AT_ONCE):
        signals = np.stack([read_recording(archive / r.path) for r in records[start : start + READ_AT_ONCE]])
        cleaned[start : start + READ_AT_ONCE] = preprocessing.clean(signals, preprocessing.Normalization())
        say(f"read {min(start + READ_AT_ONCE, len(records))} of {len(records)} records")
    cleaned.flush()
    os.replace(partial, path)


class Training:
    """A training in its folder, new or gone on with.

    Raises EcgbatchError when the folder holds a training with other settings.
    """

    def __init__(self, settings: TrainingSettings, folder: Path, train: Examples, validation: Examples, device: str):
        self.settings, self.folder, self.device = settings, folder, device
        self.train, self.validation = train, validation
        torch.set_float32_matmul_precision("medium")  # products of bfloat16 where the hardware has them
        torch.manual_seed(settings.seed)
        self.network = ParallelXLSTM(settings.network, settings.dropout).to(device)
        self.statements = nn.Linear(self.network.features_dim, train.statements.shape[1]).to(device)
        self.learned = nn.ModuleList([self.network, self.statements])
        self.average = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_decayed(self.learned, settings.weight_decay), lr=settings.learning_rate)
        self.step = 0
        self.seconds = 0.0
        self.loss = 0.0
        self.best: tuple[int, float, dict[str, Tensor], dict[str, float]] = (0, -math.inf, {}, {})
        self._keep_settings()
        self._restore()

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.settings.batch_size)

    @property
    def ended(self) -> bool:
        epoch = self.step // self.steps_per_epoch
        return epoch >= self.settings.epochs or epoch - self.best[0] >= self.settings.patience

    def run(self, say: Say) -> None:
        """Trains to the end, from where it is. Safe to stop at any time."""
        keep_freed_memory()
        while not self.ended:
            self._run_epoch(say)

    def keep(self, name: str, version: str) -> Model:
        """The best epoch's weights, with their thresholds, as a model in ECGBATCH_MODEL_DIR."""
        epoch, macro_auc, weights, thresholds = self.best
        config, normalization = self.settings.network, preprocessing.Normalization()
        training = {"settings": asdict(self.settings), "epoch": epoch, "validation_macro_auc": macro_auc}
        return registry.add(
            name, version, config, _arrays(weights), normalization, thresholds=thresholds, training=training
        )

    def _run_epoch(self, say: Say) -> None:
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.train))
        saved = said = began = time.monotonic()
        for number in range(first, self.steps_per_epoch):
            chosen = np.sort(order[number * self.settings.batch_size :][: self.settings.batch_size])
            loss = self._update(chosen, whole=epoch >= self.settings.epochs - self.settings.whole_epochs)
            self.loss += (loss - self.loss) / (number + 1)
            self.step += 1
            now = time.monotonic()
            self.seconds += now - began
            began = now
            if now - said > 10:
                share = (number + 1) / self.steps_per_epoch
                say(f"epoch {epoch + 1} of {self.settings.epochs}: {share:.0%}, loss {self.loss:.4f}")
                said = now
            if now - saved > SAVE_SECONDS:
                self._save()
                saved = now
        self._end_epoch(epoch + 1, say)

    def _update(self, chosen: NDArray[np.int64], whole: bool) -> float:
        settings = self.settings
        rng = np.random.default_rng((settings.seed, 1, self.step))
        torch.manual_seed(int(rng.integers(2**62)))
        signals = augmented(self.train.signals[chosen], settings, rng, SAMPLES if whole else settings.crop)
        self.network.train()
        rate = settings.learning_rate * one_cycle(self.step / (self.steps_per_epoch * settings.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        known = (part[chosen] for part in (self.train.metadata, self.train.labels, self.train.statements))
        signal, metadata, labels, statements = (torch.from_numpy(part).to(self.device) for part in (signals, *known))
        features = self.network.features(signal, metadata)
        loss = F.binary_cross_entropy_with_logits(self.network.classifier(features), labels)
        beside = F.binary_cross_entropy_with_logits(self.statements(features), statements)
        if not torch.isfinite(loss):
            raise EcgbatchError(f"the training diverged in step {self.step}: start again with a lower learning_rate")
        self.optimizer.zero_grad()
        (loss + settings.statements * beside).backward()
        nn.utils.clip_grad_norm_(self.learned.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        decay = min(settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return loss.item()

    def _end_epoch(self, epoch: int, say: Say) -> None:
        probabilities = self._validate()
        labels = self.validation.labels
        aucs = [float(roc_auc(labels[:, at], probabilities[:, at])) for at in range(len(LABELS))]
        macro = float(np.mean(aucs))
        clipped = probabilities.clip(1e-7, 1 - 1e-7)
        validation_loss = -np.mean(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))
        if macro > self.best[1]:
            thresholds = {name: best_threshold(labels[:, i], probabilities[:, i]) for i, name in enumerate(LABELS)}
            self.best = (epoch, macro, {key: value.clone() for key, value in self.average.items()}, thresholds)
        row = [epoch, self.loss, validation_loss, macro, *aucs, self.seconds, self.device]
        self._log([f"{cell:.5f}" if isinstance(cell, float) else str(cell) for cell in row])
        say(f"epoch {epoch} of {self.settings.epochs}: loss {self.loss:.4f}, macro AUC {macro:.4f} on fold 9")
        self.loss = self.seconds = 0.0
        self._save()

    def _validate(self) -> NDArray[np.float32]:
        config, weights = self.settings.network, _arrays(self.average)
        network: Network
        if choose_kernel(config, self.device, "auto") == "compiled":
            network = compiled.CompiledNetwork(weights, config)
        else:
            network = torch_network(weights, config, self.device)
        return np.concatenate(list(_scored(network, self.validation)))

    def _log(self, row: list[str]) -> None:
        """Adds an epoch's row, once, even when the stop came between the row and `last.pt`."""
        path = self.folder / "epochs.csv"
        rows = list(csv.reader(path.open(newline=""))) if path.exists() else [list(COLUMNS)]
        rows = [rows[0], *(old for old in rows[1:] if int(old[0]) < int(row[0])), row]
        with path.with_suffix(".new").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        os.replace(path.with_suffix(".new"), path)

    def _keep_settings(self) -> None:
        path = self.folder / "settings.json"
        text = json.dumps(asdict(self.settings), indent=2) + "\n"
        if path.exists() and json.loads(path.read_text()) != json.loads(text):
            raise EcgbatchError(f"{self.folder} holds a training with other settings: train in a new folder")
        path.write_text(text)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            "best": self.best,
            "learned": self.learned.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.folder / "last.partial.pt"
        torch.save(state, partial)
        os.replace(partial, self.folder / "last.pt")

    def _restore(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step, self.seconds, self.loss, self.best = (state[key] for key in ("step", "seconds", "loss", "best"))
        self.learned.load_state_dict(state["learned"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


def augmented(
    signals: NDArray[np.float32], settings: TrainingSettings, rng: np.random.Generator, length: int
) -> NDArray[np.float32]:
    """(B, 1000, 12) -> (B, length, 12): cut at random, louder or softer, noisier, with silent leads."""
    batch, samples, leads = signals.shape
    starts = rng.integers(samples - length + 1, size=batch)
    cut = np.stack([signal[start : start + length] for signal, start in zip(signals, starts, strict=True)])
    cut *= rng.uniform(1 - settings.amplitude, 1 + settings.amplitude, (batch, 1, 1)).astype(np.float32)
    cut += settings.noise * rng.standard_normal(cut.shape, np.float32)
    cut *= rng.random((batch, 1, leads)) >= settings.lead_dropout
    return cut


def one_cycle(progress: float) -> float:
    """The learning rate's share of its height at a progress of 0 to 1: up and down along half cosines."""
    if progress < WARM_UP:
        return 0.5 - 0.5 * math.cos(math.pi * (progress / WARM_UP) * 0.98 + 0.02 * math.pi)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of products decay; biases, norms and other vectors do not."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _scored(network: Network, examples: Examples) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(examples), 32):
        yield network(examples.signals[start : start + 32], examples.metadata[start : start + 32])


def _arrays(weights: dict[str, Tensor]) -> Weights:
    return {key: value.cpu().numpy() for key, value in weights.items()}
