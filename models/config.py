"""What the network takes and gives, and the sizes that tell one network from another."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

LABELS = ("norm", "mi", "sttc", "cd", "hyp")

VARIANTS = ("stacked", "hierarchical")
CONV_WIDTH = 4
QKV_BLOCK = 4
METADATA_DIM = 2
METADATA_HIDDEN = 32
CLASSIFIER_HIDDEN = (256, 128)


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes of one parallel xLSTM.

    `blocks` counts the residual blocks of each branch in the stacked variant and the levels, of one block
    of each kind, in the hierarchical one. `patch` is how many samples one time step of the network takes in. Raises
    EcgbatchError for sizes that make no network.
    """

    variant: str = "stacked"
    embedding_dim: int = 128
    heads: int = 4
    blocks: int = 2
    patch: int = 1

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise EcgbatchError(f"variant must be one of {', '.join(VARIANTS)}, not {self.variant!r}")
        for name in ("embedding_dim", "heads", "blocks", "patch"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise EcgbatchError(f"{name} of a network must be a whole number above zero, not {value!r}")
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkConfig":
        """Raises EcgbatchError for a name that is no size of a network."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise EcgbatchError(f"{unknown[0]} is no size of a network; there are {', '.join(sorted(known))}")
        return cls(**values)


def _round_up(width: float, multiple: int = 64) -> int:
    return -int(-width // multiple) * multiple
