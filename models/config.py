"""What the network takes and gives, and the sizes that tell one network from another."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LABELS = ("norm", "mi", "sttc", "cd", "hyp")
MEANINGS = {
    "norm": "normal ECG",
    "mi": "myocardial infarction",
    "sttc": "ST/T change",
    "cd": "conduction disturbance",
    "hyp": "hypertrophy",
}
"""What the superclasses of PTB-XL are."""
MOST_CLASSES = 100
CLASS_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
TAKEN_NAMES = (
    *("id", "path", "age", "sex", "fold", "patient", "format", "device", "flags", "amplitude", "limb_residual"),
    *("input_sha256", "scored_at", "worker", "model", "version", "fingerprint", "stage", "reason", "detail"),
    *("failed_at", "embedding", "macro", "micro"),
)
"""What else tables of labels, figures and results have columns and rows of."""

VARIANTS = ("stacked", "hierarchical")
CONV_WIDTH = 4
QKV_BLOCK = 4
METADATA_DIM = 2
LARGEST_SIZE = 1024
"""Of any of a network's sizes: far beyond what learns, and little enough to be described and refused in no time."""
METADATA_HIDDEN = 32
CLASSIFIER_HIDDEN = (256, 128)
LAST_LAYER = "classifier.6"


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes of one parallel xLSTM.

    `blocks` counts the residual blocks of each branch in the stacked variant and the levels, of one block
    of each kind, in the hierarchical one. `patch` is how many samples one time step of the network takes in. `span` is
    of how many time steps the maximum is taken: of each span of a record, and then the mean; 0 for the maximum of all.
    `extremes` is of how many samples the classifier sees what each lead reaches as well: the largest and the smallest
    value, taken as the maximum over a span is; 0 for not at all. Raises EcgbatchError for sizes that make no network.
    """

    variant: str = "stacked"
    embedding_dim: int = 128
    heads: int = 4
    blocks: int = 2
    patch: int = 1
    span: int = 0
    extremes: int = 0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise EcgbatchError(f"the variant of a network is one of {', '.join(VARIANTS)}")
        for name in ("embedding_dim", "heads", "blocks", "patch"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= LARGEST_SIZE:
                raise EcgbatchError(f"{name} of a network must be a whole number, 1 to {LARGEST_SIZE}")
        for name in ("span", "extremes"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value <= LARGEST_SIZE:
                raise EcgbatchError(f"{name} of a network must be a whole number, 0 to {LARGEST_SIZE}")
        if self.embedding_dim % self.heads or self.inner_dim % self.heads:
            raise EcgbatchError(f"{self.heads} heads do not divide an embedding of {self.embedding_dim}")
        if SAMPLES % self.patch:
            raise EcgbatchError(f"patches of {self.patch} do not divide {SAMPLES} samples")

    @property
    def inputs(self) -> int:
        """Width of what one time step sees: all leads of a patch."""
        return self.patch * len(LEADS)

    @property
    def head_dim(self) -> int:
        """Width of one sLSTM head."""
        return self.embedding_dim // self.heads

    @property
    def inner_dim(self) -> int:
        """Width of the mLSTM cell: twice the embedding."""
        return _round_up(2 * self.embedding_dim)

    @property
    def ffn_dim(self) -> int:
        """Width of the gated feed-forward after an sLSTM cell: 1.3 times the embedding."""
        return _round_up(1.3 * self.embedding_dim)

    @property
    def features_dim(self) -> int:
        """Width of what the classifier is given: 2D + 32, and 24 more with extremes."""
        return 2 * self.embedding_dim + METADATA_HIDDEN + (2 * len(LEADS) if self.extremes else 0)

    def spans(self, steps: int) -> list[int]:
        """The lengths of the spans of a record of so many time steps. The last one has what is left over as well."""
        whole = max(1, steps // self.span) if self.span else 1
        return [self.span] * (whole - 1) + [steps - self.span * (whole - 1)]

    def as_dict(self) -> dict[str, Any]:
        """Without spans and extremes of 0: fingerprints of networks that have none are as before there were any."""
        return {name: value for name, value in asdict(self).items() if name not in ("span", "extremes") or value}

    @classmethod
    def from_dict(cls, values: Any) -> "NetworkConfig":
        """Raises EcgbatchError for a name that is no size of a network, and for a value that cannot be."""
        return cls(**checked_fields(cls, values, "a network"))


def check_classes(names: Sequence[str]) -> None:
    """Raises EcgbatchError unless these can be the classes of a model: each a name that a column can have."""
    if not 1 <= len(names) <= MOST_CLASSES:
        raise EcgbatchError(f"a model has 1 to {MOST_CLASSES} classes, not {len(names)}")
    for name in names:
        if not isinstance(name, str) or not CLASS_NAME.fullmatch(name):
            raise EcgbatchError(
                "the name of a class begins with a letter and is of small letters, digits and underscores, 63 at most, "
                f"not {_shown(name)}"
            )
        if name in TAKEN_NAMES or name.startswith("has_"):
            raise EcgbatchError(f"no class can be called {name}: that is another column's name")
    if len(set(names)) < len(names):
        raise EcgbatchError("two classes of a model have the same name")


def meaning_of(label: str) -> str:
    """What a superclass is, in words; a class of one's own is what it is called."""
    return MEANINGS.get(label, label)


def checked_fields(cls: type["DataclassInstance"], values: Any, what: str) -> dict[str, Any]:
    """`values` as they came from a file, once each is known to be a field of the dataclass `cls` and of its type.

    Checks whole numbers, finite numbers, texts, and true or false; fields of other types are left to the caller. Raises
    EcgbatchError,
    whose message says what the fields are `what` of.
    """
    if not isinstance(values, dict):
        raise EcgbatchError(f"{what} is described by names and values, not by {_shown(values)}")
    types = get_type_hints(cls)
    known = [field.name for field in fields(cls)]
    for name, value in values.items():
        if name not in known:
            raise EcgbatchError(f"{_shown(name)} is no setting of {what}; there are {', '.join(sorted(known))}")
        kind = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(types[name])
        if kind and not _is(value, types[name]):
            raise EcgbatchError(f"{name} of {what} must be {kind}, not {_shown(value)}")
    return values


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
    if (
        kind is int and isinstance(value, int) and abs(value) >= 2**63
    ):  # JSON has such numbers, and no library takes them
        return False
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _shown(value: Any) -> str:
    """A value in a message, whatever it is and however long."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) and not _huge(value) else ""
    return text if 0 < len(text) <= 40 else f"what was given, {type(value).__name__}"


def _huge(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > 10**30


def _round_up(width: float, multiple: int = 64) -> int:
    return -int(-width // multiple) * multiple
