"""Starts a worker: its processes, the search for lost work beside them, and its end."""

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from billiard import active_children
from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready, worker_shutting_down
from celery.worker.control import Panel

from ecgbatch import urls
from ecgbatch.db import workers
from ecgbatch.db.engine import Database, NotAllowed
from ecgbatch.db.identity import identity_of
from ecgbatch.db.migrate import NewerSchema, open_database, refuse_newer_schema
from ecgbatch.db.terms import Priority
from ecgbatch.db.workers import Worker
from ecgbatch.models import suggestion
from ecgbatch.models.scorer import choose_kernel
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker import tasks
from ecgbatch.worker.app import REDIS_ERRORS, connected_app
from ecgbatch.worker.logs import say, set_up_logs
from ecgbatch.worker.machine import Name, cores, gpus
from ecgbatch.worker.pipeline import Stages, flags_to_refuse
from ecgbatch.worker.pool import ForkedAtFirst
from ecgbatch.worker.queue import reconcile

log = logging.getLogger(__name__)

MISSED_ROUNDS = 4
"""After so many silent rounds of its search for lost work a worker counts as gone."""


LOOKING_ON = {"active", "active_queues", "clock", "ping", "query_task", "registered", "report", "stats"}
LOOKING_ON |= {"reserved", "revoked", "scheduled"}
"""What a worker answers by remote control. Celery knows more, which would stop it, change it or show its settings."""


class _LookingOn(dict[str, Any]):
    """The commands of remote control; whatever else is asked, Flower now and then does, is refused without a word."""

    def __missing__(self, command: str) -> Callable[..., dict[str, str]]:
        return lambda _state, /, **_: {"error": f"ecgbatch's workers have no {command!r}"}


def run_worker(settings: Settings, stages: Stages | None = None) -> int:
    """Starts worker processes and returns their exit status when they have been told to stop.

    `stages` are what a record goes through. Processes are spawned, except the first ones of the compiled kernel on
    Linux: what `stages` refers to must be found by import, or in the script that was started, which each process then
    imports.
    """
    for variable in [variable for variable in os.environ if variable.startswith("CELERY_")]:
        del os.environ[variable]  # whatever they are for, it is not this worker
    os.environ["PYTHONSAFEPATH"] = "1"  # its processes import nothing from the folder that the user stands in
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # in its processes: each is one line of work
    set_up_logs(settings.log_format)
    warnings.simplefilter("ignore", SecurityWarning)  # it is about pickle as root, and nothing here takes pickle
    stages = stages or Stages()
    flags_to_refuse(settings)
    database = open_database(settings.database_url)
    model = Registry(settings.model_dir).find(settings.model)
    name = Name(identity_of(database))
    app = connected_app(settings, database, ecgbatch_stages=stages, ecgbatch_worker=name.text)
    kernel = choose_kernel(model.config, settings.device, settings.kernel)
    processes = settings.processes or _suggested_processes(settings, model, kernel)
    about = Worker(name.text, processes, settings.device, kernel, f"{model.name}:{model.version}")
    Panel.data = _LookingOn({command: Panel.data[command] for command in LOOKING_ON})
    forked = kernel == "compiled" and sys.platform == "linux"
    if forked:
        tasks.resident[model.fingerprint] = stages.load(settings, model.fingerprint)
    gc.freeze()  # what is there by now stays, and celery looks through everything before it starts a process
    worker = app.Worker(
        concurrency=processes,
        pool=ForkedAtFirst if forked else "prefork",
        hostname=name.text,
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        task_events=True,
    )
    os.environ.pop("_MP_FORK_LOGLEVEL_", None)  # with it each process would begin with a line of another form
    life = _Life(app, settings, database, about)
    life.heed_processes_that_cannot_start()
    for event, handler in (
        (worker_ready, life.begin),
        (worker_shutting_down, life.finish_chunks_and_leave),
    ):
        event.connect(handler, weak=False)
    database.engine.dispose()  # SQLite's connections must not go into a fork
    worker.start()
    life.end()
    return int(life.cannot_go_on or worker.exitcode or 0)


def _suggested_processes(settings: Settings, model: Model, kernel: str) -> int:
    """What `ecgbatch model bench` found best on this machine; else one per core, or one per GPU."""
    if suggested := suggestion.find(settings.model_dir, model.fingerprint, settings.device, kernel):
        return suggested.processes
    return cores() if settings.device == "cpu" else max(1, len(gpus()))


@dataclass
class _Life:
    """What the worker does beside its processes, from its start to its end."""

    app: Celery
    settings: Settings
    database: Database
    about: Worker
    cannot_go_on: bool = False
    leaving: threading.Event = field(default_factory=threading.Event)

    def heed_processes_that_cannot_start(self) -> None:
        """The worker leaves when one of its processes says that it cannot score."""

        def leave(*_: object) -> None:
            # Others say so too, up to the end of the interpreter, which gives up its handlers before it is gone.
            signal.signal(tasks.CANNOT_START, signal.SIG_IGN)
            self._leave()

        signal.signal(tasks.CANNOT_START, leave)

    def _leave(self) -> None:
        self.cannot_go_on = True
        os.kill(os.getpid(), signal.SIGTERM)

    def begin(self, **_: object) -> None:
        """Says what this worker is, and looks for lost work at once and then now and then, in a thread of its own."""
        where = {"redis": urls.without_secrets(self.settings.redis_url or ""), "database": str(self.database)}
        queues = {"queues": " ".join(Priority), "version": version("ecgbatch")}
        say(log, "worker ready", **asdict(self.about), **queues, **where)
        threading.Thread(target=self._look_for_lost_work, name="reconcile", daemon=True).start()

    def end(self) -> None:
        """Says that this worker is gone."""
        with suppress(EcgbatchError):  # without a database its silence says so
            self.database.write(workers.leave, self.about.name)
        say(log, "worker ended", worker=self.about.name)

    def _look_for_lost_work(self) -> None:
        """Whatever goes wrong, the next time may be better, and the thread must live on for it."""
        has_arrived = False
        while True:
            try:
                with suppress(NotAllowed):  # to a role that may not read the schema's revision
                    refuse_newer_schema(self.database)
                has_arrived = self._show_presence(has_arrived)
                if lost := reconcile(self.database, self.app, self.settings):
                    log.warning("%d lost chunks are published again", lost)
            except NewerSchema as error:  # somebody has upgraded it under this worker
                log.critical("%s", error)
                self._leave()
                return
            except (EcgbatchError, *REDIS_ERRORS) as error:
                log.warning("could not look for lost work: %s", error)
            except Exception:
                log.exception("could not look for lost work")
            if self.leaving.wait(self.settings.reconcile_seconds):
                return

    def _show_presence(self, has_arrived: bool) -> bool:
        seconds = MISSED_ROUNDS * self.settings.reconcile_seconds
        if has_arrived:
            self.database.write(workers.stay, self.about.name, seconds)
        else:
            self.database.write(workers.arrive, self.about, seconds)
        return True

    def finish_chunks_and_leave(self, **_: object) -> None:
        """The first SIGTERM or Ctrl-C lets the processes finish their chunks; the next one does not."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_at_once)
        self.leaving.set()  # afterwards: this handler in the midst of itself would wait for its own lock for ever


def _leave_at_once(*_: object) -> None:
    """Ends all processes of this worker; their chunks are found by their leases."""
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(1)
