"""How a model is trained: the settings, and the files in `recipes` that hold those of the models that ship."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ecgbatch.models.config import LABELS, NetworkConfig, check_classes, checked_fields
from ecgbatch.models.json_files import read_json
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

RECIPES = Path(__file__).parent / "recipes"
TRAINING_FOLDS = range(1, 9)
VALIDATION_FOLD = 9


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    `labels` are the classes that it learns to tell: the superclasses, or what `model tune` is given.

    `start` is the model whose weights it begins with, NAME:VERSION, or the mean of whose weights, several with spaces
    between them; without one it begins with chance. With `frozen` only the classifier learns, and the features that it
    sees stay as they are; where nothing is done to the records either, those are computed once.

    What it learns from: folds 1 to 8 without the fold `hold_out` (0: all of them); with `without_superclass` also the
    records that have no superclass, as five zeros. `teachers` is the share of the teachers' answer in what the network
    is to answer, the rest is the label. `statements` is the weight of the loss of a second, linear classifier, which
    learns every statement of scp_statements.csv from the same features and is thrown away in the end: the finer
    question keeps the network from learning the answers to the coarse one by heart.

    What is done to a record: an epoch sees `crop` successive samples, wherever they begin. `amplitude` is the largest
    relative change of its amplitude, `noise` the standard deviation of what is added to normalised samples,
    `lead_dropout` the chance of a lead to be silent, `lead_sets` that of all leads but those of one of LEAD_SETS.
    `mixup` is the largest share that another record of the batch has in it, and in its answer.

    How: `average` is the decay, per step, of the running mean of the weights that is validated and kept. Training ends
    early after `patience` epochs that did not raise the macro AUC. Raises EcgbatchError for values that cannot be.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    labels: tuple[str, ...] = LABELS
    start: str = ""
    frozen: bool = False
    epochs: int = 12
    patience: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    crop: int = 250
    hold_out: int = 0
    without_superclass: bool = False
    teachers: float = 0.0
    statements: float = 0.0
    amplitude: float = 0.2
    noise: float = 0.05
    lead_dropout: float = 0.05
    lead_sets: float = 0.0
    mixup: float = 0.0
    average: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        check_classes(self.labels)
        if not self.network.patch <= self.crop <= SAMPLES or self.crop % self.network.patch:
            raise EcgbatchError(f"crop must be a multiple of the patch, up to {SAMPLES}, not {self.crop}")
        if self.hold_out not in (0, *TRAINING_FOLDS):
            raise EcgbatchError(f"hold_out must be a fold of 1 to 8, or 0 for none, not {self.hold_out}")
        if self.start and not self.start.split():
            raise EcgbatchError("start of a training must name a model, or be empty")
        if self.epochs < (0 if self.start else 1):
            raise EcgbatchError(f"epochs of a training must be above zero, not {self.epochs}, or 0 with a start")
        for name in ("patience", "batch_size"):
            if getattr(self, name) < 1:
                raise EcgbatchError(f"{name} of a training must be above zero, not {getattr(self, name)}")
        for name in ("dropout", "teachers", "lead_dropout", "lead_sets", "mixup", "average", "amplitude"):
            if not 0 <= getattr(self, name) <= 1:
                raise EcgbatchError(f"{name} of a training must be 0 to 1, not {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "statements", "noise", "seed"):
            if getattr(self, name) < 0:
                raise EcgbatchError(f"{name} of a training must not be below zero, not {getattr(self, name)}")

    @property
    def features_stay(self) -> bool:
        """Whether the classifier alone learns, and from records that nothing is done to: its features never change."""
        changes = (self.amplitude, self.noise, self.lead_dropout, self.lead_sets, self.mixup)
        return self.frozen and self.crop == SAMPLES and not any(changes)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"labels": list(self.labels), "network": self.network.as_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> "TrainingSettings":
        """Raises EcgbatchError for a name that is no setting of a training, and for a value that cannot be."""
        checked = checked_fields(cls, values, "a training")
        labels = checked.get("labels", LABELS)
        if not isinstance(labels, (list, tuple)):
            raise EcgbatchError("labels of a training must be a list of names")
        network = NetworkConfig.from_dict(checked.get("network", {}))
        return cls(**checked | {"network": network, "labels": tuple(labels)})


def load_recipe(recipe: str) -> TrainingSettings:
    """The settings in a JSON file, or in a recipe that ships, by its name. Raises EcgbatchError if there is none."""
    path = RECIPES / f"{recipe}.json"
    if not path.is_file():
        path = Path(recipe)
    try:
        settings = TrainingSettings.from_dict(read_json(path))
    except FileNotFoundError:
        there = ", ".join(sorted(path.stem for path in RECIPES.glob("*.json")))
        raise EcgbatchError(f"there is no recipe {recipe}: give a file, or one of {there}") from None
    except EcgbatchError as error:
        raise EcgbatchError(f"{recipe} is no recipe of a training: {error}") from None
    if settings.labels != LABELS:
        raise EcgbatchError(
            f"{recipe} has labels: classes of one's own are learned by `model tune`, not by `model train`"
        )
    return settings
