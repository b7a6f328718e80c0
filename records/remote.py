"""An archive behind `https://` or `s3://`: its files are fetched when they are asked for, and never kept on disk."""

import io
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from ecgbatch.records.recording import Reason, RecordError
from ecgbatch.settings import EcgbatchError

LARGEST_FETCHED = 64 << 20
"""Bytes of a file."""
AT_ONCE = 128
"""Files that are fetched at the same time: a round trip of 50 ms then costs 0.4 ms a file."""
TRIES = 3

_URL = re.compile(r"(https?|s3):/+(.+)")
_KEPT = 4


def url_of(root: Path | str) -> str | None:
    """The URL of an archive that is not on this machine, None of one that is; Path has made one slash of two."""
    match = _URL.fullmatch(str(root))
    return f"{match[1]}://{match[2].rstrip('/')}" if match else None


class ListedEntry(NamedTuple):
    """An entry of a folder (`places.Entry`) that is on no disk, in a zip file or behind a URL: it is never a link."""

    name: str
    folder: bool

    def is_dir(self) -> bool:
        return self.folder

    def is_symlink(self) -> bool:
        return False


class Remote:
    """A folder of an HTTP server or of S3 (`places.Place`)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._fetched = threading.local()

    @property
    def _system(self) -> Any:
        return _system(urlsplit(self._url).scheme, os.getpid())

    def check(self) -> None:
        if "@" in urlsplit(self._url).netloc:
            raise EcgbatchError("a password must not be in a URL: put it into ~/.netrc")
        try:
            there = self._system.exists(self._full("")) or self.exists("RECORDS")
        except Exception as error:  # whatever the client library raises
            raise EcgbatchError(f"there is no archive at {self._url} ({_cause(error)})") from error
        if not there:
            raise EcgbatchError(f"there is no archive at {self._url}: nothing is served there")

    def open(self, path: str) -> tuple[io.BytesIO, int]:
        content = self._fetch(path)
        if content is None:
            raise FileNotFoundError(2, "not served")
        return io.BytesIO(content), len(content)

    def exists(self, path: str) -> bool:
        """The file is kept for the call of `open` that mostly follows."""
        return self._fetch(path) is not None

    def is_folder(self, path: str) -> bool:
        """As it is written, since to ask costs as much as to list it."""
        return path == "" or path.endswith("/")

    def entries(self, folder: str) -> Iterator[ListedEntry]:
        start = self._full(folder).rstrip("/") + "/"
        try:
            found = self._system.ls(start, detail=True)
        except Exception as error:
            raise OSError(5, _cause(error)) from error
        for item in found:
            name, is_folder = str(item["name"]).rstrip("/"), item["type"] == "directory"
            below = name.removeprefix(start) if name.startswith(start) else name.removeprefix(_bare(start))
            if below and "/" not in below:
                yield ListedEntry(unquote(below) if self._url.startswith("http") else below, is_folder)

    def may_enter(self, path: str) -> bool:
        return True

    def identity(self, folder: str) -> Hashable:
        return folder.strip("/")

    def _full(self, path: str) -> str:
        return f"{self._url}/{quote(path, errors='surrogateescape') if self._url.startswith('http') else path}"

    def _fetch(self, path: str) -> bytes | None:
        """A file's content, None if there is none; the last few are kept, since a header is asked for and then read."""
        kept: OrderedDict[str, bytes | None] = self._fetched.__dict__.setdefault("kept", OrderedDict())
        if path not in kept:
            kept[path] = self._fetch_anew(path)
            if len(kept) > _KEPT:
                kept.popitem(last=False)
        return kept[path]

    def _fetch_anew(self, path: str) -> bytes | None:
        for attempt in range(1, TRIES + 1):
            try:
                content: bytes = self._system.cat_file(self._full(path), start=0, end=LARGEST_FETCHED + 1)
                break
            except FileNotFoundError:
                return None
            except Exception as error:
                if attempt == TRIES:
                    raise OSError(5, f"it cannot be fetched ({_cause(error)})") from error
                time.sleep(0.2 * attempt)
        if len(content) > LARGEST_FETCHED:
            raise RecordError(Reason.TOO_LARGE, f"more than {LARGEST_FETCHED} bytes to fetch")
        return content


def _bare(url: str) -> str:
    """S3's own names have no scheme."""
    return url.partition("://")[2]


def _cause(error: Exception) -> str:
    return type(error).__name__ if not str(error) else str(error).splitlines()[0][:200]


@lru_cache(maxsize=4)
def _system(scheme: str, _process: int) -> Any:
    """The client of this process."""
    try:
        import fsspec
        from aiohttp import ClientTimeout

        if scheme == "s3":
            return fsspec.filesystem("s3", use_listings_cache=False)
        client = {"trust_env": True, "timeout": ClientTimeout(total=60)}
        return fsspec.filesystem(scheme, encoded=True, client_kwargs=client, use_listings_cache=False)
    except ImportError as error:
        raise EcgbatchError("archives behind a URL need: pip install 'ecgbatch[remote]'") from error
