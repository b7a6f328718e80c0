"""Where things are that tests use."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TEST_DATA", REPOSITORY.parent / "shared"))
FAULTY_WORKER = REPOSITORY / "tests/support/faulty_worker.py"
"""Starts workers whose records are slow, or crash."""
KILLED_TRAINING = REPOSITORY / "tests/support/killed_training.py"
