"""Makes records whose names say so crash, hang or swallow memory when a worker process reads them.

Python imports this at its start where PYTHONPATH names this folder: real processes then meet real faults.
FAULTS_SLOW makes every record take that many seconds; FAULTS_COUNT names a file that gets a byte for
each record whose scoring begins.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

import ecgbatch.records.reading
import ecgbatch.worker.pipeline

healthy_read = ecgbatch.records.reading.read
healthy_score = ecgbatch.worker.pipeline._score
count = os.environ.get("FAULTS_COUNT")
slow = float(os.environ.get("FAULTS_SLOW", "0"))


def read(root: Path, record: str, **options: Any) -> Any:
    """As the real one, but for records named after a fault."""
    if "crash" in record:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in record:
        time.sleep(3600)
    if "huge" in record:
        np.ones(2**30)
    if "raise" in record:
        raise RuntimeError("something nobody thought of")
    return healthy_read(root, record, **options)


def score(scorer: Any, batch: Any) -> Any:
    """As the real one, but slower, and counted as it begins: what is lost half done counts as work too."""
    if count:
        with open(count, "ab", buffering=0) as file:
            file.write(b"." * len(batch.rows))
    time.sleep(slow * len(batch.rows))
    return healthy_score(scorer, batch)


ecgbatch.worker.pipeline.read = read
ecgbatch.worker.pipeline._score = score
