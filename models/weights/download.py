"""Gets checkpoints from Hugging Face, Google Drive or any web address.

A source is hf:OWNER/REPO/FILE[@REVISION], gdrive:ID, or an https:// address. Whatever a server sends, only the file
that has the expected SHA-256 is used. All addresses are https, also those that a server sends on to, and a download
ends after DEADLINE seconds, however little comes at a time.
"""

import hashlib
import signal
import sys
import tempfile
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import BinaryIO

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.weights.checkpoint import read_checkpoint
from ecgbatch.models.weights.model import Weights
from ecgbatch.models.weights.sources import open_source
from ecgbatch.models.weights.torch_file import LARGEST
from ecgbatch.settings import EcgbatchError

SHA256_DIGITS = frozenset("0123456789abcdef")
DEADLINE = 1800
"""Seconds that a download may take from its first connection to its last byte."""
PIECE = 2**16
SHOWN_EVERY = 0.1
"""Seconds between two states of the progress line."""


def download(source: str, sha256: str) -> tuple[NetworkConfig, Weights]:
    """What `read_checkpoint` finds in the file at `source`, whose SHA-256 must be `sha256` (64 hex digits).

    The file itself is not kept. Raises EcgbatchError when the source makes no sense, the file cannot be had whole,
    has another digest, or is no checkpoint.
    """
    expected = sha256.lower()
    if len(expected) != 64 or set(expected) - SHA256_DIGITS:
        raise EcgbatchError(f"--sha256 takes 64 hex digits, as sha256sum prints them, not {sha256!r}")
    with _temporary_folder() as folder:
        path = Path(folder) / "downloaded.ckpt"
        found = fetch(source, path)
        if found != expected:
            raise EcgbatchError(f"{source} has the SHA-256 {found}, not {expected}: nothing is kept")
        try:
            return read_checkpoint(path)
        except EcgbatchError as error:
            raise EcgbatchError(str(error).replace(str(path), source)) from None


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="ecgbatch-")
    except OSError as error:
        raise EcgbatchError(f"there is no folder for temporary files ({error.strerror}): set TMPDIR") from None


def fetch(source: str, path: Path) -> str:
    """Writes the file at `source` to `path` and returns its SHA-256; each error is one line that names the source."""
    try:
        with _deadline(DEADLINE), path.open("wb") as file, open_source(source) as response:
            return _receive(response, file)
    except urllib.error.HTTPError as error:
        raise _cannot_get(source, f"the server answers {error.code} {error.reason}; check the address") from None
    except IncompleteRead:
        raise _cannot_get(source, "the transfer broke off; try again") from None
    except (EcgbatchError, OSError, HTTPException, ValueError) as error:
        raise _cannot_get(source, str(getattr(error, "reason", error)) or type(error).__name__) from None


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Ends what is done within it after so many seconds, wherever it waits; only in a process's main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise EcgbatchError(f"it was not here after {seconds:g} seconds; try again with a better connection")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _cannot_get(source: str, reason: str) -> EcgbatchError:
    return EcgbatchError(" ".join(f"cannot get {source}: {reason}".split())[:500])


def _receive(response: HTTPResponse, file: BinaryIO) -> str:
    """Writes what comes and returns its SHA-256. Raises EcgbatchError for a web page, too much or too little."""
    if response.headers.get_content_type() == "text/html":
        raise EcgbatchError("there is a web page, not a file: give the address behind its download button")
    total, received, digest = response.length, 0, hashlib.sha256()
    _check_size(total or 0)
    with _progress_line(total) as show:
        while piece := response.read(PIECE):
            received += len(piece)
            _check_size(received)
            file.write(piece)
            digest.update(piece)
            show(received)
    if total is not None and received < total:
        raise EcgbatchError(f"the transfer broke off after {received:,} of {total:,} bytes; try again")
    return digest.hexdigest()


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise EcgbatchError(f"it is larger than {LARGEST / 2**30:g} GiB, as no checkpoint is: check the source")


@contextmanager
def _progress_line(total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how many bytes are here, of how many that were announced; taken away at the end."""
    of_total = f" of {total / 1e6:.1f}" if total else ""
    shown_at = 0.0

    def show(received: int) -> None:
        nonlocal shown_at
        if sys.stderr.isatty() and time.monotonic() - shown_at > SHOWN_EVERY:
            print(f"\r\x1b[K{received / 1e6:.1f}{of_total} MB", end="", file=sys.stderr, flush=True)
            shown_at = time.monotonic()

    try:
        yield show
    finally:
        if shown_at:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
