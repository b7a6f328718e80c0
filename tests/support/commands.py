"""Runs the command as a user does, and waits for what it does."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import redis

from ecgbatch.cli import main

LINE = (sys.executable, "-m", "ecgbatch")
HERE = {"status", "failures", "query", "export", "score", "plot", "explain", "report", "doctor"}
HERE |= {"enqueue", "cancel", "retry", "reconcile", "db upgrade"}
HERE |= {f"model {name}" for name in ("add", "list", "use", "evaluate", "compare", "export", "measure")}
"""Commands that tests run in their own process, where they take no second to start: they start no other."""
PATIENCE = 240
"""Seconds after which a test gives up waiting; on a busy machine everything may take twenty times as long."""


class Command:
    """Runs `ecgbatch` as a user does, in a folder and an environment of its own."""

    worker_script: Path | None = None
    """What is started instead of `ecgbatch worker`."""

    def __init__(self, folder: Path, line: Sequence[str] = LINE, **environment: str) -> None:
        self.folder = folder
        self.line = line
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ECGBATCH_")}
        # What is killed cannot clear up: what it leaves is to lie where pytest clears up.
        own = {"ECGBATCH_MODEL_DIR": str(folder / "models"), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.environment = kept | own | environment

    def __call__(
        self, *arguments: str | Path, status: int = 0, here: bool | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end; it must end with `status`, and never with a traceback.

        `here` says whether in the test's own process; else that is so for those of HERE.
        """
        words = list(map(str, arguments))
        if here is None:
            here = not HERE.isdisjoint((" ".join(words[:1]), " ".join(words[:2])))
        if here and self.line == LINE and "PYTHONPATH" not in self.environment:
            done = self._run_here(words)
        else:
            done = subprocess.run(
                self._line(arguments),
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert done.returncode == status, f"status {done.returncode}: {done.stdout}\n{done.stderr}"
        return done

    def _run_here(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        written = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in written)
        with (
            patch.dict(os.environ, self.environment, clear=True),
            chdir(self.folder),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = main(words)
        return subprocess.CompletedProcess(words, status, *(stream.getvalue().decode() for stream in written))

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

    def _line(self, arguments: tuple[str | Path, ...]) -> list[str]:
        if arguments[:1] == ("worker",) and self.worker_script is not None:
            return [*self.line[:-2], str(self.worker_script), *map(str, arguments[1:])]  # without -m ecgbatch
        return [*self.line, *map(str, arguments)]


@contextmanager
def running(process: "subprocess.Popen[str]", patience: float = PATIENCE) -> Iterator["subprocess.Popen[str]"]:
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


def free_port() -> int:
    """A port that the system picks: runs of the tests beside each other must not get the same server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody listens on a port of the loopback interface."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
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


@contextmanager
def workers(command: Command, processes: int = 2) -> Iterator["subprocess.Popen[str]"]:
    """Workers that are killed in the end, when they have done what they were for: to leave in order takes seconds."""
    with (command.folder / "worker.log").open("a") as log:
        started = command.start("worker", "--processes", str(processes), stdout=log, stderr=log)
        with running(started) as process:
            yield process
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def scored(command: Command) -> int:
    """How many predictions there are."""
    return int(command.rows("SELECT COUNT(*) AS n FROM predictions")[0]["n"])


def ends(command: Command) -> list[dict[str, object]]:
    """What each scored record came to, without what differs from run to run."""
    return command.rows(
        "SELECT path, norm, mi, sttc, cd, hyp, input_sha256, flags "
        "FROM predictions JOIN recordings ON id = recording_id ORDER BY path"
    )


def undisturbed(command: Command, archive: Path) -> list[dict[str, object]]:
    """What an undisturbed run of the same archive gives."""
    folder = command.folder / "undisturbed"
    folder.mkdir()
    alone = Command(folder)
    alone("run", archive)
    return ends(alone)


def queue(client: redis.Redis, priority: str = "normal") -> str:
    """The key of the only database's queue in a Redis server."""
    [key] = client.keys(f"ecgbatch.{'[0-9a-f]' * 16}.{priority}")
    assert isinstance(key, bytes)
    return key.decode()
