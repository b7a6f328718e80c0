"""What `ecgbatch model bench` found best on this host, kept for the workers to come."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from ecgbatch.settings import EcgbatchError


@dataclass(frozen=True)
class Suggestion:
    """How many worker processes to start, and how many records each is to score at once."""

    processes: int
    batch_size: int


def keep(model_dir: Path, fingerprint: str, suggested: dict[str, Suggestion]) -> Path:
    """Writes the suggestions for a model, by device and kernel, in place of what was kept for this host before.

    Raises EcgbatchError when the folder cannot be written.
    """
    path = _path(model_dir)
    content = {"fingerprint": fingerprint, "suggested": {k: asdict(s) for k, s in suggested.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise EcgbatchError(f"cannot write {path} ({error.strerror}): set ECGBATCH_MODEL_DIR to a folder") from None
    return path


def find(model_dir: Path, fingerprint: str, device: str, kernel: str) -> Suggestion | None:
    """What is kept for this model on this host; None if it was not measured."""
    try:
        content = json.loads(_path(model_dir).read_text())
        if content["fingerprint"] != fingerprint:
            return None
        return Suggestion(**content["suggested"][f"{device} {kernel}"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _path(model_dir: Path) -> Path:
    """In a folder of its own: the files in ECGBATCH_MODEL_DIR are models."""
    return model_dir / "bench" / f"{socket.gethostname()}.json"
