"""Reads small JSON files that somebody else may have written."""

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from ecgbatch.settings import EcgbatchError

LARGEST = 2**20
"""Bytes; a model's description has about two thousand."""


def read_json(path: Path) -> Any:
    """The content of a JSON file of at most 1 MiB.

    Raises FileNotFoundError for a file that is not there, and EcgbatchError for one that cannot be read, is larger, is
    no regular file or no JSON, nests deeper than can be read, or holds NaN or Infinity, which JSON does not have.
    """
    try:
        text = _content(path)
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise EcgbatchError(f"{path} is no JSON that can be read: it nests too deep") from None
    except ValueError as error:  # of JSON, of UTF-8, and of numbers with more digits than Python takes
        raise EcgbatchError(f"{path} is no JSON that can be read ({error})") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EcgbatchError(f"cannot read {path}: {error.strerror}") from None


def _content(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise EcgbatchError(f"{path} is no regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise EcgbatchError(f"{path} is larger than {LARGEST:,} bytes, as no description or recipe is")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
