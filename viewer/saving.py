"""How a file comes to be: whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ecgbatch.settings import EcgbatchError


@contextmanager
def saved(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, which takes its place at the end; after an error nothing is left of it.

    Raises EcgbatchError when it cannot be written.
    """
    unfinished = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise EcgbatchError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
