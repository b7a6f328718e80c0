"""docker-compose.yml through a whole job: each service's real command, user, environment, secrets and health check."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import compose
import pytest
from commands import wait_until
from machines import machine, missing
from places import REPOSITORY

from ecgbatch.records.synthetic import write_archive


@pytest.fixture
def services(tmp_path: Path) -> Iterator[compose.Services]:
    """The services of the file, with passwords and an archive."""
    if reason := missing(*compose.TOOLS):
        pytest.skip(reason)
    write_archive(tmp_path / "archive")
    subprocess.run([REPOSITORY / "deploy/make-passwords", tmp_path / "secrets"], check=True, capture_output=True)
    with machine("compose") as here:
        yield compose.Services(tmp_path, {"ARCHIVE": str(tmp_path / "archive"), "PROCESSES": "2"}, here)


def test_a_whole_job(services: compose.Services) -> None:
    services.run("passwords")
    with ExitStack() as stack:
        for name in ("redis", "postgresql"):
            stack.enter_context(services.running(name))
        for name in ("redis", "postgresql"):
            wait_until(lambda name=name: services.healthy(name))  # type: ignore[misc]
        for _ in range(2):  # the second time there is nothing to upgrade
            services.run("schema")
        started = {name: stack.enter_context(services.running(name)) for name in ("worker", "flower", "metrics")}
        services.run("ecgbatch", "enqueue", "/archive")
        services.run("ecgbatch", "status", "--watch")
        for name in started:
            wait_until(lambda name=name: services.healthy(name))  # type: ignore[misc]
        found = services.run("ecgbatch", "query", "--json", "--sql", "SELECT COUNT(*) AS n FROM results")
        assert '"n": 64' in found
        started["worker"].send_signal(signal.SIGTERM)
        assert started["worker"].wait(60) == 0
