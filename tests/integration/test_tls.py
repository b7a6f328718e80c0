"""A Redis server over TLS: its certificate is asked for, unless the URL says otherwise."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, free_port
from tls import make_certificate, redis_over_tls


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost; its key lies beside it."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "DNS:localhost")


@pytest.fixture(scope="module")
def tls_port(certificate: Path) -> Iterator[int]:
    """The port of a Redis server that speaks TLS alone."""
    port = free_port()
    with redis_over_tls(certificate, port, "se@cr/et"):
        yield port


@pytest.mark.parametrize(
    ("host", "options", "reason"),
    [
        ("localhost", "", "self-signed certificate"),
        ("localhost", "?ssl_cert_reqs=required", "self-signed certificate"),
        ("127.0.0.1", "?ssl_ca_certs={certificate}", "IP address mismatch"),
        ("localhost", "?ssl_ca_certs={certificate}", None),
        ("127.0.0.1", "?ssl_cert_reqs=none", None),
    ],
)
def test_a_certificate_is_verified_unless_the_url_says_otherwise(
    command: Command, certificate: Path, tls_port: int, host: str, options: str, reason: str | None
) -> None:
    url = f"rediss://:se@cr/et@{host}:{tls_port}/0{options.format(certificate=certificate)}"
    command.environment["ECGBATCH_REDIS_URL"] = url
    if reason is None:
        assert "0 lost chunks" in command("reconcile").stdout
    else:
        said = command("reconcile", status=1).stderr
        assert reason in said
        assert "cr/et" not in said


def test_a_job_over_tls(command: Command, certificate: Path, tls_port: int, archive: Path) -> None:
    password = command.folder / "password"
    password.write_text("se@cr/et\n")
    command.environment |= {
        "ECGBATCH_REDIS_URL": f"rediss://localhost:{tls_port}/0?ssl_ca_certs={certificate}",
        "ECGBATCH_REDIS_PASSWORD_FILE": str(password),
    }
    done = command("run", archive)
    assert "cr/et" not in done.stdout + done.stderr
    assert len(command.rows("SELECT path FROM results")) == 64
