"""Where checkpoints come from: a web address, a repository on Hugging Face, a file on Google Drive; all by https."""

import os
import re
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

from ecgbatch.settings import EcgbatchError

HUGGING_FACE = re.compile(r"hf:([A-Za-z0-9_-][\w.-]*/[A-Za-z0-9_-][\w.-]*)/(.+?)(?:@([^@]+))?", re.ASCII)
DRIVE = re.compile(r"gdrive:([A-Za-z0-9_-]+)")
WEB = re.compile(r"https://.+")
DRIVE_ADDRESS = "https://drive.google.com/uc?id={}&export=download"

SILENCE = 30.0
"""Seconds without a byte after which a server is given up."""
LARGEST_PAGE = 2**20


def open_source(source: str) -> HTTPResponse:
    """The response that carries the file at `source`.

    Raises EcgbatchError for what is no source and what its server does not give, and the errors of urllib.
    """
    if match := HUGGING_FACE.fullmatch(source):
        return _from_hugging_face(match[1], match[2], match[3] or "main")
    if match := DRIVE.fullmatch(source):
        return _from_drive(match[1])
    if WEB.fullmatch(source):
        return _open(source)
    raise EcgbatchError("a source is hf:OWNER/REPO/FILE[@REVISION], gdrive:ID, or an https:// address")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a server to other addresses as long as they are https; a token goes no further than its own server."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise EcgbatchError(f"the server sends on to {newurl[:100]}, which is not https: refused")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request is not None and token and urlsplit(newurl).netloc == urlsplit(req.full_url).netloc:
            request.add_unredirected_header("Authorization", token)
        return request


def _open(address: str, token: str | None = None) -> HTTPResponse:
    if urlsplit(address).scheme != "https":
        raise EcgbatchError(f"{address} is not https: refused")
    request = urllib.request.Request(address, headers={"User-Agent": "ecgbatch"})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return cast(HTTPResponse, urllib.request.build_opener(_HttpsOnly).open(request, timeout=SILENCE))


def _from_hugging_face(repository: str, file: str, revision: str) -> HTTPResponse:
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    address = f"{hub}/{repository}/resolve/{quote(revision, safe='')}/{quote(file)}"
    try:
        return _open(address, _hugging_face_token())
    except urllib.error.HTTPError as error:
        reasons = {
            "GatedRepo": f"{repository} is gated: ask for access on its page, then set HF_TOKEN",
            "RepoNotFound": f"there is no repository {repository}, or it is private: set HF_TOKEN then",
            "RevisionNotFound": f"{repository} has no revision {revision}",
            "EntryNotFound": f"{repository} has no file {file} in its revision {revision}",
        }
        if reason := reasons.get(error.headers.get("X-Error-Code", "")):
            raise EcgbatchError(reason) from None
        raise


def _hugging_face_token() -> str | None:
    """HF_TOKEN, or what `hf auth login` keeps in HF_HOME."""
    if token := os.environ.get("HF_TOKEN", "").strip():
        return token
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    try:
        return (Path(home).expanduser() / "token").read_text().strip() or None
    except (OSError, ValueError):
        return None


def _from_drive(file_id: str) -> HTTPResponse:
    """Small files come at once, large ones after a page that asks whether one wants them unscanned."""
    refused = EcgbatchError(
        "Google Drive does not hand it out: check the id, and that it is shared with anyone who has the link"
    )
    address = DRIVE_ADDRESS.format(file_id)
    for _ in range(2):
        try:
            response = _open(address)
        except urllib.error.HTTPError as error:
            raise (refused if error.code in (401, 403, 404) else error) from None
        if response.headers.get_content_type() != "text/html":
            return response
        with response:
            form = _Form(response.url)
            form.feed(response.read(LARGEST_PAGE).decode("utf-8", "replace"))
        if form.address is None:
            break
        address = form.address
    raise refused


class _Form(HTMLParser):
    """The form `download-form` of a page: the address that its button leads to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._page, self._action, self._fields = page, "", dict[str, str]()
        self._within = False

    @property
    def address(self) -> str | None:
        """None for a page without such a form."""
        return urljoin(self._page, f"{self._action}?{urlencode(self._fields)}") if self._action else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == "download-form":
            self._within, self._action = True, values.get("action") or ""
        elif tag == "input" and self._within and (name := values.get("name")):
            self._fields[name] = values.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        self._within = self._within and tag != "form"
