"""The compiled part of reading, where it was built: `reader` is None if there was no C++ compiler at install time."""

import importlib
from typing import Any

try:
    reader: Any = importlib.import_module("ecgbatch.records._reader")
except ImportError:
    reader = None


def available() -> bool:
    """Whether it was built when the package was installed."""
    return reader is not None
