"""Libraries that only some formats need, imported when such a file is met."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ecgbatch.records.recording import Reason, RecordError


def library(module: str, distribution: str) -> ModuleType:
    """The module; raises RecordError that says what to install where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        detail = f"this format needs {distribution}: pip install 'ecgbatch[formats]'"
        raise RecordError(Reason.MISSING_LIBRARY, detail) from error


@contextmanager
def reading_with(name: str) -> Iterator[None]:
    """Whatever a library raises over a damaged file becomes a RecordError; its message might quote the file."""
    try:
        yield
    except (RecordError, MemoryError):
        raise
    except Exception as error:
        detail = f"the file is damaged, or not as {name} knows the format ({type(error).__name__})"
        raise RecordError(Reason.UNREADABLE_SIGNAL, detail) from error
