"""Serves a folder over HTTP on the loopback interface, as slowly as a network would."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Slow(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, seconds: float, **options: Any) -> None:
        self.seconds = seconds
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        time.sleep(self.seconds)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing: it would be among what the tests say."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


@contextmanager
def served(folder: Path, seconds: float = 0.0) -> Iterator[str]:
    """The URL of the folder; each file takes `seconds` to come."""
    with serving(partial(_Slow, directory=str(folder), seconds=seconds)) as url:
        yield url


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server that answers by this handler."""
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
