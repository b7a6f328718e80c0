"""`ecgbatch worker` with a model that takes no time and records that need no reading.

The queue and the database are then all that is left of a worker's work, through the real processes, messages and
transactions.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgbatch.models.scorer import USUAL_BATCH
from ecgbatch.records.leads import LEADS
from ecgbatch.records.quality import Quality
from ecgbatch.records.recording import Recording, Window
from ecgbatch.settings import Settings, load
from ecgbatch.worker.pipeline import Extent, Stages
from ecgbatch.worker.start import run_worker

WINDOWS = [Window(None, Recording(np.empty((0, len(LEADS))), "0" * 64, ()))]


class NoModel:
    """Stands for models.scorer.Scorer; every record has the same probabilities."""

    device = "cpu"
    batch_size = USUAL_BATCH["cpu", "compiled"]
    lead_sets = ()

    def metadata(self, age: float | None, sex: float | None) -> Any:
        return (60.0, 0.0), ()

    def clean(self, signals: Any) -> Any:
        return signals, [Quality(1.0, 0.0)] * len(signals)

    def score(self, cleaned: Any, metadata: Any) -> Any:
        return np.full((len(metadata), 5), 0.5, np.float32)

    def embed(self, cleaned: Any, metadata: Any) -> Any:
        return self.score(cleaned, metadata), np.zeros((len(metadata), 288), np.float32)

    def uncertain(self, probabilities: Any) -> Any:
        return ()


def read(settings: Settings, root: Path, extent: Extent, record: str) -> Sequence[Window]:
    return WINDOWS


def load_no_model(settings: Settings, fingerprint: str) -> NoModel:
    return NoModel()


if __name__ == "__main__":
    sys.exit(run_worker(load(), Stages(read=read, load=load_no_model)))
