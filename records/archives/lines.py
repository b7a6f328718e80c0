"""Reads text files line by line, in bounded memory whatever they hold."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from ecgbatch.records.recording import RecordError
from ecgbatch.settings import EcgbatchError

LONGEST_LINE = 1 << 20
"""Bytes: a longer line is no line of a list."""


class TextFile(NamedTuple):
    """A text file by the name that messages give it; `open` raises OSError or RecordError."""

    name: str
    open: Callable[[], BinaryIO]


def lines(file: TextFile) -> Iterator[str]:
    """The lines of a text file without their ends; bytes that are not UTF-8 become what `os.fsencode` turns back.

    Opens the file at the first line. Raises EcgbatchError, with the line's number, for what is no text file.
    """
    number = 0
    try:
        with file.open() as content:
            while line := content.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise EcgbatchError(
                        f"line {number} of {file.name} has more than {LONGEST_LINE:,} bytes: it is no list"
                    )
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                yield text.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise EcgbatchError(f"cannot read {file.name}: {error.strerror}") from error
    except RecordError as error:
        raise EcgbatchError(f"cannot read {file.name}: {error.detail}") from error
