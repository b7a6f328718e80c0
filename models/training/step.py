"""One step of a training: a batch, its loss, and what it changes in the weights."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels.cuda import WholeSequence, mlstm_in_chunks
from ecgbatch.models.kernels.triton_scan import fastest_scan
from ecgbatch.models.network import ParallelXLSTM
from ecgbatch.models.training.augmentation import augmented
from ecgbatch.models.training.examples import Examples
from ecgbatch.models.training.recipe import TrainingSettings

GRADIENT_NORM = 1.0
EAGER_STEPS = 3  # before a GPU's graph is captured: libraries choose and reserve in the first ones


class Learned(nn.Module):
    """The network, and beside it the classifier of the statements, which only the training has."""

    def __init__(
        self, config: NetworkConfig, classes: int, statements: int, dropout: float, device: torch.device
    ) -> None:
        super().__init__()
        if device.type == "cuda":
            scan = fastest_scan(config, device, gradient=True)
            self.network: ParallelXLSTM = WholeSequence(config, scan, mlstm_in_chunks, dropout, classes)
        else:
            self.network = ParallelXLSTM(config, dropout, classes)
        self.statements = nn.Linear(config.features_dim, statements)
        self.to(device)

    def forward(self, signal: Tensor, metadata: Tensor) -> Tensor:
        """As `ParallelXLSTM.logits`, and behind them those of the statements: (B, K + S)."""
        return self.classified(self.network.features(signal, metadata))

    def classified(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, K + S), as `forward`."""
        return torch.cat([self.network.classifier(features), self.statements(features)], dim=1)


class Step:
    """Changes the weights of `learned` and their running mean `average`, a batch at a time.

    On a GPU all of it is one CUDA graph: hundreds of small pieces of work are launched as one. What differs from step
    to step stands in tensors that the graph reads. `answers` (R, K + S) is what the network is to say, from 0 to 1;
    `features` (R, F) what the classifier is given, where that never changes.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        learned: Learned,
        examples: Examples,
        answers: Tensor,
        features: Tensor | None = None,
    ) -> None:
        self.settings, self.learned, self.examples, self.answers = settings, learned, examples, answers
        self.features = features
        self.average = copy.deepcopy(learned).requires_grad_(False).eval()
        if settings.frozen:
            learned.network.requires_grad_(False).classifier.requires_grad_(True)
        device = answers.device
        self.rate = torch.tensor(settings.learning_rate, device=device)
        self.share = torch.ones((), device=device)
        """Of the newest weights in their running mean."""
        self.loss = torch.zeros((), device=device)
        """Of the classes, summed over the steps since somebody set it to zero."""
        self.optimizer = torch.optim.AdamW(
            _decayed(learned, settings.weight_decay), lr=self.rate, fused=True, capturable=device.type == "cuda"
        )
        self._chosen = torch.empty(0)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager = EAGER_STEPS if device.type == "cuda" else -1

    def __call__(self, chosen: Tensor, rate: float, share: float, seed: int) -> None:
        """Learns from the records at `chosen` (B,), B the same in all steps; what is random follows from the seed."""
        torch.manual_seed(seed)
        self.rate.fill_(rate)
        self.share.fill_(share)
        if len(self._chosen) != len(chosen):
            self._chosen = chosen.clone()
        self._chosen.copy_(chosen)
        if self._graph is not None:
            self._graph.replay()
            return
        if self._eager:
            self._eager -= 1
            self._update()
            return
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            self._update()
        self._graph.replay()

    def load(self, learned: dict[str, Tensor], average: dict[str, Tensor], optimizer: dict[str, object]) -> None:
        """Goes on from a state that was kept."""
        self.learned.load_state_dict(learned)
        self.average.load_state_dict(average)
        self.optimizer.load_state_dict(optimizer)
        for group in self.optimizer.param_groups:
            group |= {"lr": self.rate, "capturable": self.rate.device.type == "cuda"}

    def _seen(self) -> tuple[Tensor, Tensor]:
        """What the classifier is given of the chosen records, (B, F), and what it is to say of them, (B, K + S)."""
        settings, chosen = self.settings, self._chosen
        if self.features is not None:
            return self.features[chosen], self.answers[chosen]
        signal = augmented(self.examples.signals, chosen, settings)
        metadata, answers = self.examples.metadata[chosen], self.answers[chosen]
        if settings.mixup:
            share = settings.mixup * torch.rand(len(chosen), 1, device=answers.device)
            signal = torch.lerp(signal, signal.roll(1, 0), share.unsqueeze(2))
            metadata, answers = (torch.lerp(x, x.roll(1, 0), share) for x in (metadata, answers))
        return self.learned.network.features(signal, metadata), answers

    def _update(self) -> None:
        self.learned.train()
        features, answers = self._seen()
        logits, classes = self.learned.classified(features), len(self.settings.labels)
        loss, beside = (
            F.binary_cross_entropy_with_logits(logits[:, part], answers[:, part])
            for part in (slice(classes), slice(classes, None))
        )
        self.optimizer.zero_grad()
        (loss + self.settings.statements * beside).backward()
        nn.utils.clip_grad_norm_(self.learned.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        with torch.no_grad():
            self.loss += loss.detach()
            for mean, newest in zip(self.average.parameters(), self.learned.parameters(), strict=True):
                mean.lerp_(newest, self.share)


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of products decay; biases, norms and other vectors do not."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [p for p in learning if p.ndim > 1]
    vectors = [p for p in learning if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
