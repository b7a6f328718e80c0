"""Trains the parallel xLSTM on an archive that is laid out as PTB-XL: folds 1 to 8 train it, fold 9 chooses.

Everything of one training lies in one folder, from which a stopped training goes on: see `state`. Every batch, its
augmentation and its dropout follow from the seed and the number of the step, so that a stop changes nothing.
"""

import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgbatch.models import preprocessing
from ecgbatch.models.evaluation.calibration import calibrate
from ecgbatch.models.evaluation.metrics import best_threshold, roc_auc
from ecgbatch.models.kernels import compiled
from ecgbatch.models.memory import keep_freed_memory
from ecgbatch.models.scorer import choose_kernel
from ecgbatch.models.training import state
from ecgbatch.models.training.examples import Examples, Say
from ecgbatch.models.training.recipe import TrainingSettings
from ecgbatch.models.training.step import EAGER_STEPS, Learned, Step
from ecgbatch.models.weights.model import Model, Weights
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError

SAVE_SECONDS = 60
WARM_UP = 0.15  # share of the steps in which the learning rate rises
SCORED_AT_ONCE = {"cpu": 32, "cuda": 256}

Best = tuple[int, float, dict[str, Tensor]]
"""The epoch, its macro AUC on fold 9, and the running mean of what is learned."""


class Training:
    """A training in its folder, new or gone on with.

    `taught` (R, K + S) is what the teachers say of each record, `start` the weights to begin with, which are also kept
    unless an epoch is better. Raises EcgbatchError when the folder holds a training with other settings.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        folder: Path,
        examples: Examples,
        taught: Tensor | None = None,
        start: Weights | None = None,
    ) -> None:
        if (settings.teachers > 0) != (taught is not None):
            raise EcgbatchError("a recipe with teachers needs --teachers, and no other takes them")
        self.settings, self.folder, self.examples = settings, folder, examples
        self.device = examples.signals.device
        torch.set_float32_matmul_precision("medium")  # products of bfloat16 where the hardware has them
        torch.manual_seed(settings.seed)
        answers = torch.cat([examples.labels, examples.statements], dim=1)
        if taught is not None:
            answers = torch.lerp(answers, taught, settings.teachers)
        outputs = examples.labels.shape[1], examples.statements.shape[1]
        learned = Learned(settings.network, *outputs, settings.dropout, self.device)
        if start is not None:
            learned.network.load_state_dict({key: torch.from_numpy(value) for key, value in start.items()})
        features = self._features(learned) if settings.features_stay else None
        self._step = Step(settings, learned, examples, answers, features)
        self._stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.records = examples.training(settings)
        self.batch = min(settings.batch_size, len(self.records))
        self.step = 0
        self.seconds = 0.0
        self.epochs: list[list[str]] = []
        self.best: Best = (0, -math.inf, {})
        state.keep_settings(folder, settings)
        if not self._restored() and start is not None:
            self.best = (0, float(np.mean(self._aucs(self._answers(self.average)))), self._copied())

    @property
    def average(self) -> Learned:
        """The running mean of what is learned."""
        return self._step.average

    @property
    def steps_per_epoch(self) -> int:
        """Of whole batches; the records left over in one epoch are others in the next."""
        return len(self.records) // self.batch

    @property
    def _columns(self) -> tuple[str, ...]:
        """Of epochs.csv."""
        aucs = (f"auc_{label}" for label in self.settings.labels)
        return ("epoch", "loss", "validation_loss", "macro_auc", *aucs, "seconds", "device")

    @property
    def ended(self) -> bool:
        epoch = self.step // self.steps_per_epoch
        return epoch >= self.settings.epochs or epoch - self.best[0] >= self.settings.patience

    def run(self, say: Say) -> None:
        """Trains to the end, from where it is. Safe to stop at any time."""
        keep_freed_memory()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            while not self.ended:
                self._run_epoch(say)

    def begin(self) -> None:
        """The first steps, after which a GPU's graph stands: it must be captured while no other training runs."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        with torch.cuda.stream(self._stream):
            for _, chosen in islice(self._batches(epoch, first), EAGER_STEPS + 1):
                self._learn(chosen)
            torch.cuda.current_stream().synchronize()

    def keep(self, registry: Registry, name: str, version: str) -> Model:
        """The best epoch's weights, calibrated on fold 9, with their thresholds, as a model of the registry."""
        epoch, macro_auc, weights = self.best
        self.average.load_state_dict(weights)
        labels, logits = self._labels(), _logits(self._answers(self.average))
        calibration = calibrate(labels, logits)
        probabilities = calibration(logits)
        thresholds = {
            name: best_threshold(labels[:, i], probabilities[:, i]) for i, name in enumerate(self.settings.labels)
        }
        training = {"settings": self.settings.as_dict(), "epoch": epoch, "validation_macro_auc": macro_auc}
        return registry.add(
            name,
            version,
            self.settings.network,
            calibration.folded(_arrays(self.average.network.state_dict())),
            preprocessing.Normalization(),
            thresholds=thresholds,
            training=training | {"calibration": calibration.as_dict(self.settings.labels)},
            labels=self.settings.labels,
        )

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[int, Tensor]]:
        """The number of each step of an epoch from its `first`, and the records that it learns from."""
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.records))
        shuffled = self.records[torch.from_numpy(order)].to(self.device)
        for number in range(first, self.steps_per_epoch):
            yield number, shuffled[number * self.batch :][: self.batch]

    def _learn(self, chosen: Tensor) -> None:
        rate = self.settings.learning_rate * one_cycle(self.step / (self.steps_per_epoch * self.settings.epochs))
        rng = np.random.default_rng((self.settings.seed, 1, self.step))
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        self._step(chosen, rate, 1 - decay, int(rng.integers(2**62)))
        self.step += 1

    def _run_epoch(self, say: Say) -> None:
        epoch, first = divmod(self.step, self.steps_per_epoch)
        saved = said = began = time.monotonic()
        for number, chosen in self._batches(epoch, first):
            self._learn(chosen)
            now = time.monotonic()
            self.seconds += now - began
            began = now
            if now - said > 10:
                say(f"epoch {epoch + 1} of {self.settings.epochs}: {(number + 1) / self.steps_per_epoch:.0%}")
                said = now
            if now - saved > SAVE_SECONDS:
                self._save()
                saved = now
        self._end_epoch(epoch + 1, say)

    def _end_epoch(self, epoch: int, say: Say) -> None:
        loss = self._step.loss.item() / self.steps_per_epoch
        if not math.isfinite(loss):
            raise EcgbatchError(f"the training diverged in epoch {epoch}: start again with a lower learning_rate")
        probabilities, labels = self._answers(self.average), self._labels()
        aucs = self._aucs(probabilities)
        macro = float(np.mean(aucs))
        clipped = probabilities.clip(1e-7, 1 - 1e-7)
        validation_loss = -np.mean(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))
        if macro > self.best[1]:
            self.best = (epoch, macro, self._copied())
        row = [epoch, loss, validation_loss, macro, *aucs, self.seconds, str(self.device)]
        self.epochs.append([f"{cell:.5f}" if isinstance(cell, float) else str(cell) for cell in row])
        self._step.loss.zero_()
        self.seconds = 0.0
        self._save()
        state.write_epochs(self.folder, self._columns, self.epochs)
        say(f"epoch {epoch} of {self.settings.epochs}: loss {loss:.4f}, macro AUC {macro:.4f} in validation")

    def _copied(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.average.state_dict().items()}

    def _aucs(self, probabilities: NDArray[np.float32]) -> list[float]:
        """Of each class on fold 9."""
        labels = self._labels()
        return [float(roc_auc(labels[:, at], probabilities[:, at])) for at in range(labels.shape[1])]

    def _labels(self) -> NDArray[np.float32]:
        return self.examples.labels[self.examples.validation.to(self.device)].cpu().numpy()

    def _answers(self, learned: Learned) -> NDArray[np.float32]:
        """What the network says of the records of fold 9: (V, K) probabilities."""
        chosen, features = self.examples.validation, self._step.features
        if features is not None:
            learned.eval()
            with torch.inference_mode():
                return torch.sigmoid(learned.network.classifier(features[chosen.to(self.device)])).cpu().numpy()
        if not self._compiled:
            return answers(learned, self.examples, chosen)[:, : len(self.settings.labels)].cpu().numpy()
        network = compiled.CompiledNetwork(_arrays(learned.network.state_dict()), self.settings.network)
        return np.concatenate([network(*inputs) for inputs in self._parts(chosen)])

    def _features(self, learned: Learned) -> Tensor:
        """What the classifier is given of every record, (R, F)."""
        everything = torch.arange(len(self.examples.labels))
        if self._compiled:
            network = compiled.CompiledNetwork(_arrays(learned.network.state_dict()), self.settings.network)
            return torch.from_numpy(np.concatenate([network.embed(*inputs)[1] for inputs in self._parts(everything)]))
        learned.eval()
        with torch.inference_mode():
            parts = everything.to(self.device).split(SCORED_AT_ONCE[self.device.type])
            given = [learned.network.features(self.examples.signals[p], self.examples.metadata[p]) for p in parts]
        return torch.cat(given).clone()

    @property
    def _compiled(self) -> bool:
        """Whether it is the compiled kernel that is asked, while torch learns."""
        return choose_kernel(self.settings.network, self.device.type, "auto") == "compiled"

    def _parts(self, chosen: Tensor) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Signals and metadata of the chosen records, on the CPU, as many at once as suit its caches."""
        for part in chosen.split(SCORED_AT_ONCE["cpu"]):
            yield self.examples.signals[part].numpy(), self.examples.metadata[part].numpy()

    def _save(self) -> None:
        state.save(
            self.folder,
            {
                "step": self.step,
                "seconds": self.seconds,
                "loss": self._step.loss,
                "epochs": self.epochs,
                "best": self.best,
                "learned": self._step.learned.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self._step.optimizer.state_dict(),
            },
        )

    def _restored(self) -> bool:
        """Goes on from what the folder keeps, if it keeps a state."""
        kept = state.restore(self.folder, str(self.device))
        if kept is None:
            return False
        try:
            self.step, self.seconds, self.epochs, self.best = (kept[k] for k in ("step", "seconds", "epochs", "best"))
            self._step.loss.copy_(kept["loss"])
            self._step.load(kept["learned"], kept["average"], kept["optimizer"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise state.damaged(self.folder) from None
        state.write_epochs(self.folder, self._columns, self.epochs)
        return True


def one_cycle(progress: float) -> float:
    """The learning rate's share of its height at a progress of 0 to 1: up and down along half cosines."""
    if progress < WARM_UP:
        return 0.5 - 0.5 * math.cos(math.pi * (progress / WARM_UP) * 0.98 + 0.02 * math.pi)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))


def answers(learned: Learned, examples: Examples, chosen: Tensor) -> Tensor:
    """What is said of the records at `chosen` (V,): probabilities of classes and statements, (V, K + S)."""
    device = examples.signals.device
    learned.eval()
    with torch.inference_mode():
        parts = [
            torch.sigmoid(learned(examples.signals[part], examples.metadata[part]))
            for part in chosen.to(device).split(SCORED_AT_ONCE[device.type])
        ]
    return torch.cat(parts)


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = probabilities.astype(np.float64).clip(1e-9, 1 - 1e-9)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def _arrays(weights: dict[str, Tensor]) -> Weights:
    return {key: value.cpu().numpy() for key, value in weights.items()}
