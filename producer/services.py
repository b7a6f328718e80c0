"""The worker that `run` starts for one job and stops at its end."""

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import IO, NoReturn

from billiard.util import set_pdeathsig

from ecgbatch.db import dispatch
from ecgbatch.db.engine import Database
from ecgbatch.db.terms import ChunkState
from ecgbatch.printing import print_note
from ecgbatch.settings import EcgbatchError, Settings, variable

GRACE_SECONDS = 60
"""How long the workers may take to finish their chunks at the end."""


@contextmanager
def workers(settings: Settings, database: Database, forked: bool) -> Iterator["Workers"]:
    """Worker processes under these settings; in the end they finish the chunks that they have, and leave.

    `forked`: this process has one thread and may be forked: the worker then begins with all that is imported here.
    """
    with tempfile.NamedTemporaryFile("w+", prefix="ecgbatch-worker-", suffix=".log") as logfile:
        started = Workers(_fork(settings, database, logfile, forked and sys.platform == "linux"), Path(logfile.name))
        try:
            yield started
        finally:
            if _idle(database):
                started.kill()
            else:
                started.stop()


def _fork(settings: Settings, database: Database, logfile: IO[str], forked: bool) -> int:
    """Starts a worker, which logs into a file; returns its process."""
    if forked:
        database.engine.dispose()  # SQLite's connections must not go into a fork
        get_temp_dir()  # which the worker takes, and this process, which is not killed, removes at its end
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # with threads: the fork becomes another program
        pid = os.fork()
    if pid == 0:
        _become_worker(settings, logfile.fileno(), forked)
    return pid


def _become_worker(settings: Settings, logfile: int, forked: bool) -> NoReturn:
    """Ends with the worker's exit status."""
    status = 1
    try:
        os.setsid()  # Ctrl-C is for `run`, which then stops the workers in order
        with suppress(OSError):  # a system that knows no such thing
            set_pdeathsig(signal.SIGTERM)  # and if `run` is killed, they leave too
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for file, number in ((os.open(os.devnull, os.O_RDONLY), 0), (logfile, 1), (logfile, 2)):
            os.dup2(file, number)
        if not forked:
            command = [sys.executable, "-P", "-m", "ecgbatch", "worker"]
            os.execve(command[0], command, environment(settings))
        from ecgbatch.worker.start import run_worker

        # Processes that are spawned later need not import the script that was started.
        sys.modules["__main__"].__spec__ = find_spec("ecgbatch.__main__")
        status = run_worker(settings)
    except EcgbatchError as error:
        print_note(f"ecgbatch: {error}")
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(status)  # what is to be done at the end of `run` is not for this process


def _idle(database: Database) -> bool:
    """Whether no worker has a chunk; not if the database does not say."""
    try:
        with database.read() as connection:
            return not dispatch.any_chunk(connection, ChunkState.RUNNING)
    except EcgbatchError:
        return False


class Workers:
    """A running `ecgbatch worker`, a child of this process, and what it logs."""

    def __init__(self, pid: int, logfile: Path) -> None:
        self.pid = pid
        self.logfile = logfile
        self._status: int | None = None

    def check(self) -> None:
        """Raises EcgbatchError, with the reason from its log, when the worker has ended."""
        if (status := self._poll()) is not None:
            lines = self.logfile.read_text(errors="replace").strip().splitlines() or ["they logged nothing"]
            errors = [line for line in lines if " CRITICAL " in line or line.startswith("ecgbatch: ")]
            why = (errors or lines)[-1].split(" CRITICAL ")[-1].removeprefix("ecgbatch: ")
            raise EcgbatchError(f"the workers ended (status {status}): {why}")

    def stop(self) -> None:
        """Lets them finish what they have begun, for as long as GRACE_SECONDS, then kills them all."""
        give_up = time.monotonic() + GRACE_SECONDS
        try:
            if self._poll() is None:
                os.kill(self.pid, signal.SIGTERM)
            while self._poll() is None and time.monotonic() < give_up:
                time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        if self._poll() is None:
            self.kill()

    def kill(self) -> None:
        """Ends them all at once. To leave in order takes three seconds, which are for those that have a chunk."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._poll() is None:
            os.kill(self.pid, signal.SIGKILL)  # it may not lead its group yet
            os.waitpid(self.pid, 0)

    def _poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


def environment(settings: Settings) -> dict[str, str]:
    """The environment of another process, which loads these settings from it and no others."""
    values = {variable(name): value for name, value in vars(settings).items()}
    ours = {key: str(value) for key, value in values.items() if value is not None}
    return {key: value for key, value in os.environ.items() if key not in values} | ours
