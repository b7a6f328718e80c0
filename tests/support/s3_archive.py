"""Serves a folder as S3 does its buckets: objects, and lists of them, on the loopback interface."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from http_archive import serving


class _Bucket(BaseHTTPRequestHandler):
    """GetObject with a range, HeadObject, and ListObjectsV2 of one page."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, folder: Path, **options: Any) -> None:
        self.folder = folder
        super().__init__(*args, **options)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, _bucket, *key = unquote(url.path).split("/", 2)
        query = parse_qs(url.query, keep_blank_values=True)
        file = self.folder / "".join(key)
        if "list-type" in query:
            self._answer(200, self._listing(query["prefix"][0] if "prefix" in query else "").encode())
        elif key and key[0] and file.is_file():
            content = file.read_bytes()
            last = int(self.headers["Range"].partition("-")[2]) if "Range" in self.headers else len(content)
            self._answer(206 if "Range" in self.headers else 200, content[: last + 1])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _listing(self, prefix: str) -> str:
        below = sorted(path for path in self.folder.glob(f"{prefix}*"))
        objects = "".join(
            f"<Contents><Key>{escape(str(p.relative_to(self.folder)))}</Key><Size>{p.stat().st_size}</Size></Contents>"
            for p in below
            if p.is_file()
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(str(p.relative_to(self.folder)))}/</Prefix></CommonPrefixes>"
            for p in below
            if p.is_dir()
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{objects}{folders}</ListBucketResult>"

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Wed, 25 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: it would be among what the tests say."""


@contextmanager
def s3(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which the folder is any bucket."""
    with serving(partial(_Bucket, folder=folder)) as url:
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
