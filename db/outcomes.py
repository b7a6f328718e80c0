"""What came of a record: a prediction or a failure, on its way from the pipeline to the database."""

from dataclasses import dataclass
from typing import Any, TypeAlias

Probabilities: TypeAlias = tuple[float, ...]
"""Of the model's classes in its order, each by itself between 0 and 1."""

LABEL_COLUMNS = ("norm", "mi", "sttc", "cd", "hyp")
"""The superclasses, which most models tell."""
NOT_TOLD = (None,) * len(LABEL_COLUMNS)


def as_shown(name: str) -> str:
    """The name of a class as people read it: superclasses are written in capitals."""
    return name.upper() if name in LABEL_COLUMNS else name


@dataclass(frozen=True, slots=True)
class Window:
    """The probabilities of one window of a record; `start_s` is where it begins, in seconds."""

    start_s: float
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Prediction:
    """A record that was scored.

    `flags` are separated by commas; amplitude in mV and limb_residual as in `records.quality`. `format`, `device`,
    `age` and `sex` are what the file itself tells: they fill `recordings` where nothing is known yet. `windows` are
    there when each window of a longer record was scored; `probabilities` are then their mean. `features`, where they
    are to be kept: what the network's classifier was given, as bytes of little-endian float16.
    """

    recording_id: int
    probabilities: Probabilities
    input_sha256: str
    flags: str
    amplitude: float | None = None
    limb_residual: float | None = None
    format: str | None = None
    device: str | None = None
    age: float | None = None
    sex: int | None = None
    windows: tuple[Window, ...] = ()
    features: bytes | None = None

    def row(self, tells_superclasses: bool) -> dict[str, Any]:
        """The row of `predictions`, without job, model, worker and time."""
        norm, mi, sttc, cd, hyp = self.probabilities if tells_superclasses else NOT_TOLD
        return {
            "recording_id": self.recording_id,
            "norm": norm,
            "mi": mi,
            "sttc": sttc,
            "cd": cd,
            "hyp": hyp,
            "input_sha256": self.input_sha256,
            "flags": self.flags,
            "amplitude": self.amplitude,
            "limb_residual": self.limb_residual,
        }

    def class_rows(self) -> list[dict[str, Any]]:
        """The rows of `class_probabilities`, without the model, by one that tells classes of its own."""
        return [
            {"recording_id": self.recording_id, "position": position, "probability": probability}
            for position, probability in enumerate(self.probabilities)
        ]

    def recording_row(self) -> dict[str, Any]:
        """What the file told, for the row of `recordings`."""
        return {
            "id": self.recording_id,
            "format": self.format,
            "device": self.device,
            "age": self.age,
            "sex": self.sex,
        }

    def window_rows(self) -> list[dict[str, Any]]:
        """The rows of `windows`, without the model."""
        return [
            {"recording_id": self.recording_id, "start_s": window.start_s}
            | dict(zip(LABEL_COLUMNS, window.probabilities, strict=True))
            for window in self.windows
        ]


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that could not be scored: where, why, a line of detail, and how often it was tried."""

    recording_id: int
    stage: str
    reason: str
    detail: str
    attempts: int

    def row(self) -> dict[str, Any]:
        """The row of `failures`, without job and time."""
        return {
            "recording_id": self.recording_id,
            "stage": self.stage,
            "reason": self.reason,
            "detail": self.detail,
            "attempts": self.attempts,
        }
