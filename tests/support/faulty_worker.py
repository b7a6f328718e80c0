"""`ecgbatch worker` with stages that make records crash, hang or swallow memory, and scoring slow.

Records named after a fault meet it when they are read. FAULTS_SLOW makes every record take that many seconds;
FAULTS_COUNT names a file that gets a byte for each record whose scoring begins, FAULTS_GPUS one that gets what each
process sees of the GPUs.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ecgbatch.records.recording import Window
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.settings import load as settings_from_environment
from ecgbatch.worker.pipeline import Extent, Scorer, Stages, load_scorer, read_record
from ecgbatch.worker.start import run_worker


def read(settings: Settings, root: Path, extent: Extent, record: str) -> Sequence[Window]:
    """As the real one, but for records named after a fault."""
    if "crash" in record:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in record:
        time.sleep(3600)
    if "huge" in record:
        np.ones(2**30)
    if "raise" in record:
        raise RuntimeError("something nobody thought of")
    return read_record(settings, root, extent, record)


class SlowScorer:
    """As the real one, but slower, and counted as it begins: what is lost half done counts as work too."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)

    def score(self, cleaned: Any, metadata: Any) -> Any:
        self._begin(metadata)
        return self.scorer.score(cleaned, metadata)

    def embed(self, cleaned: Any, metadata: Any) -> Any:
        self._begin(metadata)
        return self.scorer.embed(cleaned, metadata)

    def _begin(self, metadata: Any) -> None:
        if count := os.environ.get("FAULTS_COUNT"):
            with open(count, "ab", buffering=0) as file:
                file.write(b"." * len(metadata))
        time.sleep(float(os.environ.get("FAULTS_SLOW", "0")) * len(metadata))


def load(settings: Settings, fingerprint: str) -> Any:
    if seen := os.environ.get("FAULTS_GPUS"):
        with open(seen, "a") as file:
            file.write(f"{os.environ['CUDA_VISIBLE_DEVICES']}\n")
        settings = replace(settings, device="cpu")
    return SlowScorer(load_scorer(settings, fingerprint))


STAGES = Stages(read=read, load=load)


@click.command()
@click.option("--processes", type=int)
def main(processes: int | None) -> None:
    """The options that tests give."""
    try:
        settings = settings_from_environment()
        sys.exit(run_worker(replace(settings, processes=processes or settings.processes), STAGES))
    except EcgbatchError as error:
        sys.exit(f"ecgbatch: {error}")


if __name__ == "__main__":
    main()
