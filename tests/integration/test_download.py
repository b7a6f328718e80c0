"""model download: real transfers by https from servers on this machine, good ones and every way in which they break."""

import contextlib
import hashlib
import io
import json
import os
import pty
import select
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import golden
import numpy as np
import pytest
from commands import PATIENCE, Command, running, wait_until
from https_site import Answer, Handler, Site, gives, serving, stalls_after, status, waits

from ecgbatch.cli import main
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.weights import download, sources

SMALL = NetworkConfig("stacked", 16, 2, 1)
TOKEN = "hf_of_this_test"


@pytest.fixture
def checkpoint(tmp_path: Path) -> bytes:
    """A file as Lightning writes it."""
    return golden.write_checkpoint(tmp_path / "trained.ckpt", golden.golden_weights(SMALL)).read_bytes()


@pytest.fixture
def command(tmp_path: Path, site: Site) -> Command:
    """The command in a folder of its own, also for temporary files, and with `site` as the Hugging Face hub."""
    (tmp_path / "temporary").mkdir()
    return Command(
        tmp_path,
        TMPDIR=str(tmp_path / "temporary"),
        HF_ENDPOINT=site.url,
        HF_HOME=str(tmp_path / "hf"),
        HF_TOKEN="",
        HOME=str(tmp_path / "home"),
        no_proxy="127.0.0.1",
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def line(source: str, digest: str) -> list[str]:
    return ["model", "download", source, "--sha256", digest, "--name", "got", "--version", "1"]


def refusal(command: Command, source: str, digest: str = "0" * 64) -> str:
    """The one line that a download which cannot be made ends with, in this process; nothing may be left of it."""
    output, said = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, command.environment, clear=True),
        mock.patch.object(tempfile, "tempdir", None),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(said),
    ):
        assert main(line(source, digest)) == 1
    assert output.getvalue() == ""
    assert said.getvalue().startswith("ecgbatch: ")
    assert said.getvalue().count("\n") == 1
    assert nothing_is_left(command)
    return said.getvalue()


def nothing_is_left(command: Command) -> bool:
    return not list(command.folder.glob("temporary/ecgbatch-*")) and not (command.folder / "models").exists()


def assert_got(command: Command, checkpoint: bytes, source: str) -> None:
    """The model is there as `model add` would have made it, and no other file of the download."""
    said = command(*line(source, sha256(checkpoint))).stdout
    command("model", "add", command.folder / "trained.ckpt", "--name", "by-hand", "--version", "1")
    *_, got, by_hand = json.loads(command("model", "list", "--json").stdout)
    assert (got["name"], got["fingerprint"]) == ("got", by_hand["fingerprint"])
    assert got["fingerprint"][:12] in said
    kept = sorted(path.name for path in (command.folder / "models").glob("got*"))
    assert kept == ["got-1.json", "got-1.safetensors"]
    assert not list(command.folder.glob("temporary/ecgbatch-*"))


def test_a_checkpoint_from_an_address(command: Command, site: Site, checkpoint: bytes) -> None:
    site.answers["/a.ckpt"] = status(302, Location="/elsewhere/b.ckpt")
    site.answers["/elsewhere/b.ckpt"] = gives(checkpoint)
    assert_got(command, checkpoint, f"{site.url}/a.ckpt")
    again = command(*line(f"{site.url}/a.ckpt", sha256(checkpoint).upper()))
    assert "got:1" in again.stdout
    assert again.stderr == ""  # no progress where it is no terminal


def test_the_normalisation_of_the_training_goes_with_it(command: Command, site: Site, checkpoint: bytes) -> None:
    site.answers["/a.ckpt"] = gives(checkpoint)
    np.savez(command.folder / "n.npz", global_mean=0.5, global_std=2.0)
    command(*line(f"{site.url}/a.ckpt", sha256(checkpoint)), "--normalization", "n.npz")
    found = json.loads((command.folder / "models/got-1.json").read_text())
    assert found["normalization"] == {"mean": 0.5, "std": 2.0}


def test_another_file_than_was_asked_for(command: Command, site: Site, checkpoint: bytes) -> None:
    site.answers["/a.ckpt"] = gives(checkpoint)
    said = refusal(command, f"{site.url}/a.ckpt", "ab" * 32)
    assert "ab" * 32 in said
    assert sha256(checkpoint) in said


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "g" * 64, "", "sha256:" + "0" * 64])
def test_what_is_no_digest(command: Command, site: Site, digest: str) -> None:
    assert "64 hex digits" in refusal(command, f"{site.url}/a.ckpt", digest)
    assert not site.requests


def test_the_digest_is_demanded(command: Command) -> None:
    arguments = ["model", "download", "gdrive:1", "--name", "got", "--version", "1"]
    assert "--sha256" in command(*arguments, status=2).stderr


@pytest.mark.parametrize(
    "source", ["a.ckpt", "file:///etc/passwd", "hf:repository/a.ckpt", "gdrive:a/b", "ftp://a/b", "http://a/b"]
)
def test_what_is_no_source(command: Command, source: str) -> None:
    said = refusal(command, source)
    assert source in said
    assert "gdrive:ID" in said


@pytest.mark.parametrize("address", ["https://[", "https://a b/", "https://127.0.0.1:x/", "https://ü ö/\n"])
def test_what_is_no_address(command: Command, address: str) -> None:
    assert "cannot get https://" in refusal(command, address)


def test_a_file_that_is_no_checkpoint(command: Command, site: Site) -> None:
    site.answers["/a.ckpt"] = gives(b"PK, but not quite")
    said = refusal(command, f"{site.url}/a.ckpt", sha256(b"PK, but not quite"))
    assert f"{site.url}/a.ckpt is no checkpoint" in said
    assert str(command.folder) not in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(404), "404 Not Found"),
        (status(503), "503 Service Unavailable"),
        (status(302, Location="/a.ckpt"), "infinite loop"),
        (status(302, Location="file:///etc/passwd"), "not allowed"),
        (status(302, Location="ftp://127.0.0.1/a.ckpt"), "not https"),
        (status(302, Location="http://127.0.0.1/a.ckpt"), "not https"),
        (lambda handler: handler.reply(200, b"all there is", 1000), "12 of 1,000 bytes"),
        (lambda handler: handler.reply(200, b"", 3 * 2**30), "larger than 1 GiB"),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
            "broke off",
        ),
        (lambda handler: handler.wfile.write(b"220 this is no web server\r\n"), "220"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "without response"),
        (gives(b"<html>", Content_Type="text/html; charset=utf-8"), "web page"),
    ],
    ids=[
        "404",
        "503",
        "loop",
        "to file",
        "to ftp",
        "to http",
        "truncated",
        "huge",
        "truncated chunk",
        "no http",
        "hangs up",
        "page",
    ],
)
def test_servers_that_do_not_give_the_file(command: Command, site: Site, answer: Answer, said: str) -> None:
    site.answers["/a.ckpt"] = answer
    error = refusal(command, f"{site.url}/a.ckpt")
    assert said in error
    assert f"{site.url}/a.ckpt" in error


def test_servers_that_are_not_there(command: Command) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "refused" in refusal(command, f"https://127.0.0.1:{unused.getsockname()[1]}/a.ckpt")


@pytest.mark.parametrize("begins", [True, False])
def test_a_server_that_falls_silent(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    begins: bool,
) -> None:
    """In this process, for thirty seconds of silence are long."""
    monkeypatch.setattr(sources, "SILENCE", 0.3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    site.answers["/a.ckpt"] = stalls_after(b"some", 1000) if begins else waits
    started = time.monotonic()
    assert main(line(f"{site.url}/a.ckpt", "0" * 64)) == 1
    assert time.monotonic() - started < 30
    assert "timed out" in capsys.readouterr().err
    assert not list(tmp_path.glob("ecgbatch-*"))


@pytest.mark.parametrize("within", ["the body", "the headers"])
def test_a_server_that_sends_a_byte_now_and_then(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], within: str
) -> None:
    """Never silent for long, and never done: the whole download has an end."""
    left = threading.Event()

    def drips(handler: Handler) -> None:
        if within == "the body":
            handler.reply(200, b"", 1000)
        with contextlib.suppress(OSError):
            while not left.wait(0.05):
                handler.wfile.write(b"x")

    monkeypatch.setattr(download, "DEADLINE", 1)
    site.answers["/a.ckpt"] = drips
    try:
        assert main(line(f"{site.url}/a.ckpt", "0" * 64)) == 1
    finally:
        left.set()
    assert "was not here after 1 seconds" in capsys.readouterr().err


def test_a_certificate_that_nobody_knows(command: Command, site: Site) -> None:
    del command.environment["SSL_CERT_FILE"]
    assert "certificate verify failed" in refusal(command, f"{site.url}/a.ckpt")
    assert not site.requests


def test_a_file_without_a_length_that_does_not_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def for_ever(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(2**16))

    monkeypatch.setattr(download, "LARGEST", 2**20)
    site.answers["/a.ckpt"] = for_ever
    assert main(line(f"{site.url}/a.ckpt", "0" * 64)) == 1
    assert "larger than" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_nothing_is_left(command: Command, site: Site, number: signal.Signals) -> None:
    site.answers["/a.ckpt"] = stalls_after(bytes(2**20), 2**21)
    with running(command.start(*line(f"{site.url}/a.ckpt", "0" * 64), stderr=subprocess.PIPE)) as started:
        wait_until(lambda: bool(list(command.folder.glob("temporary/ecgbatch-*/*"))))
        started.send_signal(number)
        _, said = started.communicate(timeout=PATIENCE)
    assert (started.returncode, said.strip()) == (130, "ecgbatch: interrupted")
    assert nothing_is_left(command)


def test_a_disk_that_is_full(command: Command, site: Site) -> None:
    """A limit on the size of files stands for it."""
    site.answers["/a.ckpt"] = gives(bytes(2**21))
    shell = [
        "bash",
        "-c",
        'ulimit -f 1024; exec "$@"',
        "bash",
        *command._line(tuple(line(f"{site.url}/a.ckpt", "0" * 64))),
    ]
    done = subprocess.run(shell, cwd=command.folder, env=command.environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert nothing_is_left(command)


def test_a_terminal_shows_how_far_it_is(command: Command, site: Site) -> None:
    site.answers["/a.ckpt"] = stalls_after(bytes(2**20), 2**21)
    terminal, its_end = pty.openpty()
    with running(command.start(*line(f"{site.url}/a.ckpt", "0" * 64), stderr=its_end)):
        seen = b""
        while b" of 2.1 MB" not in seen:
            assert select.select([terminal], [], [], 30)[0]
            seen += os.read(terminal, 1000)
    os.close(its_end)
    os.close(terminal)


@pytest.fixture
def store(context: ssl.SSLContext) -> Iterator[Site]:
    """Where the hub keeps large files: another server than its own."""
    with serving(context) as store:
        yield store


@pytest.mark.parametrize("revision", ["", "@refs/pr/1"])
def test_a_checkpoint_from_hugging_face(
    command: Command, site: Site, store: Site, checkpoint: bytes, revision: str
) -> None:
    path = f"/owner/name/resolve/{(revision or '@main')[1:].replace('/', '%2F')}/weights/best%20one.ckpt"
    headers = {"ETag": '"1"', "X-Repo-Commit": "c" * 40, "X-Linked-Size": str(len(checkpoint))}
    site.answers[path] = status(302, Location=f"{store.url}/large?signed=1", **headers)
    store.answers["/large?signed=1"] = gives(checkpoint)
    command.environment["HF_TOKEN"] = TOKEN
    assert_got(command, checkpoint, f"hf:owner/name/weights/best one.ckpt{revision}")
    [(_, _, asked)] = site.requests
    assert asked["authorization"] == f"Bearer {TOKEN}"
    assert [method for method, _, _ in store.requests] == ["GET"]
    assert TOKEN not in str(store.requests)  # the token is for the hub alone


def test_a_file_that_the_hub_itself_hands_out_gets_the_token(command: Command, site: Site, checkpoint: bytes) -> None:
    site.answers["/owner/name/resolve/main/a.ckpt"] = status(307, Location="/api/cache/a.ckpt")
    site.answers["/api/cache/a.ckpt"] = gives(checkpoint, ETag='"1"', X_Repo_Commit="c" * 40)
    command.environment["HF_TOKEN"] = TOKEN
    assert_got(command, checkpoint, "hf:owner/name/a.ckpt")
    method, path, headers = site.requests[-1]
    assert (method, path, headers["authorization"]) == ("GET", "/api/cache/a.ckpt", f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (404, "EntryNotFound", "no file a.ckpt"),
        (404, "RevisionNotFound", "no revision v2"),
        (401, "RepoNotFound", "no repository owner/name"),
        (403, "GatedRepo", "is gated"),
        (500, "", "500"),
    ],
)
def test_what_hugging_face_does_not_give(command: Command, site: Site, code: int, error: str, said: str) -> None:
    site.answers["/owner/name/resolve/v2/a.ckpt"] = status(code, X_Error_Code=error)
    assert said in refusal(command, "hf:owner/name/a.ckpt@v2")


def test_hugging_face_out_of_reach(command: Command) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        command.environment["HF_ENDPOINT"] = f"https://127.0.0.1:{unused.getsockname()[1]}"
        assert "refused" in refusal(command, "hf:owner/name/a.ckpt")
    assert "a source is" in refusal(command, "hf:..owner/name/a.ckpt")


@pytest.fixture
def drive(site: Site, context: ssl.SSLContext, command: Command) -> Iterator[Site]:
    """Google Drive: the command's proxy for https, which lets `site` answer."""

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError), context.wrap_socket(self.connection, server_side=True) as connection:
                Handler(connection, (self.path, 443), site)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}).start()
        command.environment["https_proxy"] = f"http://127.0.0.1:{proxy.server_port}"
        yield site
        proxy.shutdown()


DRIVE_PATH = "/uc?id=1a-B_c&export=download"
FORM = (
    b'<html><body><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    b'<input type="hidden" name="id" value="1a-B_c"><input type="hidden" name="confirm" value="t"></form></body></html>'
)
ATTACHED = {"Content_Type": "application/octet-stream", "Content_Disposition": 'attachment; filename="x.ckpt"'}


def test_a_checkpoint_from_google_drive(command: Command, drive: Site, checkpoint: bytes) -> None:
    drive.answers[DRIVE_PATH] = gives(checkpoint, **ATTACHED)
    assert_got(command, checkpoint, "gdrive:1a-B_c")
    assert not (command.folder / "home").exists()  # no cookies are kept


def test_a_large_file_from_google_drive_is_confirmed(command: Command, drive: Site, checkpoint: bytes) -> None:
    drive.answers[DRIVE_PATH] = gives(FORM, Content_Type="text/html")
    drive.answers["/download?id=1a-B_c&confirm=t"] = gives(checkpoint, **ATTACHED)
    assert_got(command, checkpoint, "gdrive:1a-B_c")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (gives(b"<html>Sign in</html>", Content_Type="text/html"), "shared with anyone"),
        (lambda handler: handler.reply(404, b"<html>Not found</html>", Content_Type="text/html"), "shared with anyone"),
        (lambda handler: handler.reply(200, b"all there is", 1000, **ATTACHED), "12 of 1,000 bytes"),
        (lambda handler: handler.reply(200, bytes(2**20), 3 * 2**30, **ATTACHED), "larger than 1 GiB"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "cannot get gdrive:1a-B_c"),
        (lambda handler: handler.reply(429, b"", **ATTACHED), "429"),
    ],
    ids=["not shared", "404", "truncated", "huge", "hangs up", "429"],
)
def test_what_google_drive_does_not_give(command: Command, drive: Site, answer: Answer, said: str) -> None:
    drive.answers[DRIVE_PATH] = answer
    assert said in refusal(command, "gdrive:1a-B_c")
