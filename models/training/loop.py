"""Trains the parallel xLSTM on an archive that is laid out as PTB-XL: folds 1 to 8 train it, fold 9 chooses.

Everything of one training lies in one folder, from which a stopped training goes on: see `state`. Every batch, its
augmentation and its dropout follow from the seed and the number of the step, so that a stop changes nothing.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models import preprocessing
from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.metrics import best_threshold, roc_auc
from ecgbatch.models.kernels import compiled
from ecgbatch.models.kernels.plain_torch import TorchNetwork
from ecgbatch.models.memory import keep_freed_memory
from ecgbatch.models.network import ParallelXLSTM
from ecgbatch.models.scorer import Network, choose_kernel
from ecgbatch.models.training import state
from ecgbatch.models.training.augmentation import augmented
from ecgbatch.models.training.examples import Examples, Say
from ecgbatch.models.training.recipe import TrainingSettings
from ecgbatch.models.weights.model import Model, Weights
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

SAVE_SECONDS = 60
GRADIENT_NORM = 1.0
WARM_UP = 0.15  # share of the steps in which the learning rate rises
COLUMNS = ("epoch", "loss", "validation_loss", "macro_auc", *(f"auc_{label}" for label in LABELS), "seconds", "device")


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
        self.epochs: list[list[str]] = []
        self.best: tuple[int, float, dict[str, Tensor], dict[str, float]] = (0, -math.inf, {}, {})
        state.keep_settings(folder, settings)
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

    def keep(self, registry: Registry, name: str, version: str) -> Model:
        """The best epoch's weights, with their thresholds, as a model of the registry."""
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
        self.epochs.append([f"{cell:.5f}" if isinstance(cell, float) else str(cell) for cell in row])
        loss, self.loss, self.seconds = self.loss, 0.0, 0.0
        self._save()
        state.write_epochs(self.folder, COLUMNS, self.epochs)
        say(f"epoch {epoch} of {self.settings.epochs}: loss {loss:.4f}, macro AUC {macro:.4f} on fold 9")

    def _validate(self) -> NDArray[np.float32]:
        config, weights = self.settings.network, _arrays(self.average)
        network: Network
        if choose_kernel(config, self.device, "auto") == "compiled":
            network = compiled.CompiledNetwork(weights, config)
        else:
            network = TorchNetwork(weights, config, self.device)
        return np.concatenate(list(_scored(network, self.validation)))

    def _save(self) -> None:
        state.save(
            self.folder,
            {
                "step": self.step,
                "seconds": self.seconds,
                "loss": self.loss,
                "epochs": self.epochs,
                "best": self.best,
                "learned": self.learned.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _restore(self) -> None:
        kept = state.restore(self.folder, self.device)
        if kept is None:
            return
        try:
            self.step, self.seconds, self.loss = kept["step"], kept["seconds"], kept["loss"]
            self.epochs, self.best, self.average = kept["epochs"], kept["best"], kept["average"]
            self.learned.load_state_dict(kept["learned"])
            self.optimizer.load_state_dict(kept["optimizer"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise state.damaged(self.folder) from None
        state.write_epochs(self.folder, COLUMNS, self.epochs)


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
