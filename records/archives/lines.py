"""Reads text files line by line, in bounded memory whatever they hold."""

from collections.abc import Iterator
from pathlib import Path

from ecgbatch.settings import EcgbatchError

LONGEST_LINE = 1 << 20
"""Bytes: a longer line is no line of a list."""


def lines(file: Path) -> Iterator[str]:
    """The lines of a text file without their ends; bytes that are not UTF-8 become what `os.fsencode` turns back.

    Opens the file at the first line. Raises EcgbatchError, with the line's number, for what is no text file.
    """
    number = 0
    try:
        with file.open("rb") as content:
            while line := content.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise EcgbatchError(f"line {number} of {file} has more than {LONGEST_LINE:,} bytes: it is no list")
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                yield text.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise EcgbatchError(f"cannot read {file}: {error.strerror}") from error
