"""Libraries that only some formats need, imported when such a file is met."""

import importlib
import struct
import zlib
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


# Named one by one: celery's soft time limit derives from Exception and must pass.
_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def reading_with(name: str, *errors: type[Exception]) -> Iterator[None]:
    """What a library raises over a damaged file, its own `errors` too, becomes a RecordError that quotes no content."""
    try:
        yield
    except _ERRORS + errors as error:
        detail = f"the file is damaged, or not as {name} knows the format ({type(error).__name__})"
        raise RecordError(Reason.UNREADABLE_SIGNAL, detail) from error
