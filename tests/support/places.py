"""Where things are that tests use."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TEST_DATA", REPOSITORY.parent / "shared"))
FAULTS = REPOSITORY / "tests/chaos/faults"
"""On PYTHONPATH, this folder makes worker processes slow, or crash: see its sitecustomize.py."""
