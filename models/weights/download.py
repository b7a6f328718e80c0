"""Gets checkpoints from Hugging Face, Google Drive or any web address, and believes nothing but their SHA-256.

A source is hf:OWNER/REPO/FILE[@REVISION], gdrive:ID, or an http:// or https:// address.
"""

import hashlib
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.weights.checkpoint import Weights, read_checkpoint
from ecgbatch.settings import EcgbatchError

HUGGING_FACE = re.compile(r"hf:([^/@]+/[^/@]+)/(.+?)(?:@([^@]+))?")
DRIVE = re.compile(r"gdrive:([A-Za-z0-9_-]+)")
WEB = re.compile(r"https?://.+")
SHA256 = re.compile(r"[0-9a-f]{64}")

LARGEST = 2**30
"""Bytes; the published checkpoints are of 2 to 7 MB."""
SILENCE = 30.0
"""Seconds without a byte after which a server is given up."""
PIECE = 2**16
SHOWN_EVERY = 0.1
"""Seconds between two states of the progress line."""


def download(source: str, sha256: str) -> tuple[NetworkConfig, Weights]:
    """What `read_checkpoint` finds in the file at `source`, whose SHA-256 must be `sha256` (64 hex digits).

    The file itself is not kept. Raises EcgbatchError when the source makes no sense, the file cannot be had whole,
    has another digest, or is no checkpoint.
    """
    if not SHA256.fullmatch(sha256.lower()):
        raise EcgbatchError(f"--sha256 takes 64 hex digits, as sha256sum prints them, not {sha256!r}")
    with _temporary_folder() as folder:
        path = Path(folder) / "downloaded.ckpt"
        found = _fetch(source, path)
        if found != sha256.lower():
            raise EcgbatchError(f"{source} has the SHA-256 {found}, not {sha256.lower()}: nothing is kept")
        try:
            return read_checkpoint(path)
        except EcgbatchError as error:
            raise EcgbatchError(str(error).replace(str(path), source)) from None


class _Arriving:
    """A file on its way: where it goes, its digest, and, on a terminal, a line that says how much of it is here."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self._shown_at = 0.0

    def progress(self, received: int, total: int | None) -> None:
        """Called with the bytes that are here and those that were announced. Raises EcgbatchError for too many."""
        if max(received, total or 0) > LARGEST:
            raise EcgbatchError(f"it is larger than {LARGEST / 2**30:g} GiB, as no checkpoint is: check the source")
        if sys.stderr.isatty() and time.monotonic() - self._shown_at > SHOWN_EVERY:
            of_total = f" of {total / 1e6:.1f}" if total else ""
            print(f"\r\x1b[K{received / 1e6:.1f}{of_total} MB", end="", file=sys.stderr, flush=True)
            self._shown_at = time.monotonic()

    def end(self) -> None:
        """Takes the progress line away."""
        if self._shown_at:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="ecgbatch-")
    except OSError as error:
        raise EcgbatchError(f"there is no folder for temporary files ({error.strerror}): set TMPDIR") from None


def _fetch(source: str, path: Path) -> str:
    """Writes the file at `source` to `path` and returns its SHA-256; each error is one line that names the source."""
    try:
        with path.open("wb") as file:
            arriving = _Arriving(file)
            try:
                _get(source, arriving)
            finally:
                arriving.end()
    except urllib.error.HTTPError as error:
        raise _cannot_get(source, f"the server answers {error.code} {error.reason}; check the address") from None
    except IncompleteRead:
        raise _cannot_get(source, "the transfer broke off; try again") from None
    except (EcgbatchError, OSError, HTTPException, ValueError) as error:
        raise _cannot_get(source, str(getattr(error, "reason", error)) or type(error).__name__) from None
    return arriving.digest.hexdigest()


def _cannot_get(source: str, reason: str) -> EcgbatchError:
    return EcgbatchError(" ".join(f"cannot get {source}: {reason}".split()))


def _get(source: str, arriving: _Arriving) -> None:
    if hugging_face := HUGGING_FACE.fullmatch(source):
        _get_from_hugging_face(arriving, *hugging_face.groups())
    elif drive := DRIVE.fullmatch(source):
        _get_from_drive(arriving, drive[1])
    elif WEB.fullmatch(source):
        _get_from_web(arriving, urllib.request.Request(source))
    else:
        raise EcgbatchError("a source is hf:OWNER/REPO/FILE[@REVISION], gdrive:ID, or an http(s):// address")


def _get_from_web(arriving: _Arriving, request: urllib.request.Request) -> None:
    request.add_header("User-Agent", "ecgbatch")
    with urllib.request.urlopen(request, timeout=SILENCE) as response:
        if response.headers.get_content_type() == "text/html":
            raise EcgbatchError("there is a web page, not a file: give the address behind its download button")
        total, received = response.length, 0
        arriving.progress(received, total)
        while piece := response.read(PIECE):
            arriving.file.write(piece)
            arriving.digest.update(piece)
            received += len(piece)
            arriving.progress(received, total)
    if total is not None and received < total:
        raise EcgbatchError(f"the transfer broke off after {received:,} of {total:,} bytes; try again")


def _get_from_hugging_face(arriving: _Arriving, repository: str, file: str, revision: str | None = None) -> None:
    """Asks the hub where the file lies and who may have it; the file itself comes as from any other address."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise _missing("huggingface_hub") from None
    address = hub.hf_hub_url(repository, file, revision=revision)
    try:
        location = hub.get_hf_file_metadata(address, timeout=SILENCE).location
    except errors.GatedRepoError:
        raise EcgbatchError(f"{repository} is gated: ask for access on its page, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise EcgbatchError(f"there is no repository {repository}, or it is private: set HF_TOKEN then") from None
    except errors.RevisionNotFoundError:
        raise EcgbatchError(f"{repository} has no revision {revision}") from None
    except errors.EntryNotFoundError:
        raise EcgbatchError(f"{repository} has no file {file} in its revision {revision or 'main'}") from None
    except Exception as error:  # those of the HTTP library, another one in each generation of huggingface_hub
        raise EcgbatchError(str(error) or type(error).__name__) from None
    request = urllib.request.Request(location)
    token = hub.get_token()
    if token and urlsplit(location).netloc == urlsplit(address).netloc:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    _get_from_web(arriving, request)


def _get_from_drive(arriving: _Arriving, file_id: str) -> None:
    try:
        import gdown
    except ImportError:
        raise _missing("gdown") from None
    try:
        gdown.download(
            id=file_id,
            output=arriving.file,
            quiet=True,
            use_cookies=False,
            progress=arriving.progress,
            hasher=arriving.digest,
            timeout=SILENCE,
        )
    except gdown.exceptions.FileURLRetrievalError:
        raise EcgbatchError(
            "Google Drive does not hand it out: check the id, and that it is shared with anyone who has the link"
        ) from None
    except EcgbatchError:
        raise
    except Exception as error:  # it reads pages that are made for people, and stumbles when they are others
        raise EcgbatchError(f"{error} ({type(error).__name__})") from None


def _missing(package: str) -> EcgbatchError:
    return EcgbatchError(f"this needs {package}: pip install {package}, or ecgbatch with the extra `download`")
