r"""How the path of a record is written down: in the database, in messages, in results.

A path on disk is bytes without NUL; a path in a database is Unicode without NUL, and in PostgreSQL's index at most
2,700 bytes long. Nearly every path is both and is written as it is. The rest is escaped, and can be told exactly:

| on disk | written down |
|---|---|
| a byte that is not part of UTF-8 | `%80` to `%FF` |
| NUL, which only a listing can hold | `%00` |
| `:` before another `:` or at the end | `%3A`, since `FILE::ID` is the record ID in a file of many |
| `%` where it would look like one of these | `%25` |
| more than 2,500 bytes | the first 200 letters, then `%[3000 bytes, sha256 …]`; such a record cannot be read |
"""

import hashlib
import os
import re

from ecgbatch.records.recording import Reason, RecordError

LONGEST = 2500
"""Bytes of a path as it is written down: what fits into an index of PostgreSQL, and some to spare."""

_SHOWN = 200
_TO_ESCAPE = re.compile(r"[\0\udc80-\udcff]|:(?=:|$)|%(?=00|25|3A|\[|[89A-F][0-9A-F])")
_ESCAPE = re.compile(rb"%(00|25|3A|[89A-F][0-9A-F])")
_MEMBER = "::"
_TOO_LONG = re.compile(r"%\[\d+ bytes, sha256 [0-9a-f]{64}\]")


def write_down(path: str, member: str | None = None) -> str:
    """A path on disk, as `os` gives it, in the form that every database holds; `member` is its record's ID in it."""
    if not path.isascii():
        path = os.fsencode(path).decode("utf-8", "surrogateescape")
    written = _TO_ESCAPE.sub(_escaped, path)
    if member is not None:
        written += _MEMBER + _TO_ESCAPE.sub(_escaped, member)
    if len(written) * 4 > LONGEST and len(encoded := written.encode()) > LONGEST:
        digest = hashlib.sha256(encoded).hexdigest()
        return f"{written[:_SHOWN]}%[{len(encoded)} bytes, sha256 {digest}]"
    return written


def on_disk(written: str) -> tuple[str, str | None]:
    """The path that `write_down` was given, and the record's ID in it, None where the file holds one record.

    Raises RecordError (`unsafe_path`) for a path that was too long to be written down.
    """
    if "%[" in written and _TOO_LONG.search(written):
        raise RecordError(Reason.UNSAFE_PATH, f"the path has more than {LONGEST} bytes")
    path, separator, member = written.partition(_MEMBER)
    return os.fsdecode(_unescaped(path)), _unescaped(member).decode("utf-8", "surrogateescape") if separator else None


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"%{code - 0xDC00 if code > 0xFF else code:02X}"


def _unescaped(written: str) -> bytes:
    encoded = written.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), encoded) if "%" in written else encoded
