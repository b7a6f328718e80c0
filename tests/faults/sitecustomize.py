"""Makes records whose names say so crash, hang or swallow memory when a worker process reads them.

Python imports this at its start where PYTHONPATH names this folder: real processes then meet real faults.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

import worker.reading

healthy_read = worker.reading.read


def read(root: Path, record: str) -> Any:
    """As the real one, but for records named after a fault."""
    if "crash" in record:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in record:
        time.sleep(3600)
    if "huge" in record:
        np.ones(2**30)
    if "raise" in record:
        raise RuntimeError("something nobody thought of")
    if "slow" in record:
        time.sleep(0.2)
    return healthy_read(root, record)


worker.reading.read = read
