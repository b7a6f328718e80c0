"""A web server by https on this machine that answers as a test likes, well or in every way in which servers break."""

import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers a path as the test set it in `answers`, with 404 otherwise, and keeps the requests."""

    server: "Site"

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers))
        self.server.answers.get(self.path, status(404))(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class Site(ThreadingHTTPServer):
    """A web server on this machine."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"https://127.0.0.1:{self.server_port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.context.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave in the middle are what some tests are about."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[Site]:
    with Site(context) as site:
        threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}).start()
        try:
            yield site
        finally:
            site.shutdown()


def gives(body: bytes, **headers: str) -> Answer:
    return lambda handler: handler.reply(200, body, None, **headers)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(code, b"", None, **headers)


def waits(handler: "Handler") -> None:
    """Answers nothing until the client has left."""
    handler.rfile.read(1)


def stalls_after(body: bytes, length: int) -> Answer:
    """Sends the beginning, then nothing, until the client leaves."""

    def answer(handler: Handler) -> None:
        handler.reply(200, body, length)
        handler.rfile.read(1)

    return answer


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a certificate of our own and its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    names = "subjectAltName=IP:127.0.0.1,DNS:drive.google.com,DNS:drive.usercontent.google.com"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", "/CN=test", "-addext", names, "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(make, cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="session")
def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def site(context: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server whose certificate is believed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with serving(context) as site:
        yield site
