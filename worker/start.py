"""Starts a worker: its processes, the search for lost work beside them, and its end."""

import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass, field

from billiard import active_children
from celery import Celery
from celery.signals import worker_init, worker_ready, worker_shutting_down

from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import open_database
from ecgbatch.models import suggestion
from ecgbatch.models.scorer import choose_kernel
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker import tasks
from ecgbatch.worker.app import REDIS_ERRORS, connected_app
from ecgbatch.worker.pipeline import Stages
from ecgbatch.worker.queue import reconcile

log = logging.getLogger(__name__)


def run_worker(settings: Settings, stages: Stages | None = None) -> int:
    """Starts worker processes and returns their exit status when they have been told to stop.

    `stages` are what a record goes through. The processes are spawned: what `stages` refers to must be found by import,
    or in the script that was started, which each process then imports.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # its processes import nothing from the folder that the user stands in
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # in its processes: each is one line of work
    database = open_database(settings.database_url)
    model = Registry(settings.model_dir).find(settings.model)
    app = connected_app(settings, database, ecgbatch_stages=stages or Stages())
    worker = app.Worker(
        concurrency=settings.processes or _suggested_processes(settings, model),
        hostname=f"ecgbatch-{os.getpid()}@{socket.gethostname()}",
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        task_events=True,
    )
    life = _Life(app, settings, database)
    for event, handler in (
        (worker_init, life.heed_processes_that_cannot_start),
        (worker_ready, life.look_for_lost_work),
        (worker_shutting_down, life.finish_chunks_and_leave),
    ):
        event.connect(handler, weak=False)
    worker.start()
    return int(life.process_could_not_start or worker.exitcode or 0)


def _suggested_processes(settings: Settings, model: Model) -> int:
    """What `ecgbatch model bench` found best on this machine; else one per core, or one for a GPU."""
    kernel = choose_kernel(model.config, settings.device, settings.kernel)
    if suggested := suggestion.find(settings.model_dir, model.fingerprint, settings.device, kernel):
        return suggested.processes
    return suggestion.cores() if settings.device == "cpu" else 1


@dataclass
class _Life:
    """What the worker does beside its processes, from its start to its end."""

    app: Celery
    settings: Settings
    database: Database
    process_could_not_start: bool = False
    leaving: threading.Event = field(default_factory=threading.Event)

    def heed_processes_that_cannot_start(self, **_: object) -> None:
        """The worker leaves when one of its processes says that it cannot score."""

        def leave(*_: object) -> None:
            if not self.process_could_not_start:
                self.process_could_not_start = True
                os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(tasks.CANNOT_START, leave)

    def look_for_lost_work(self, **_: object) -> None:
        """At once and then now and then, in a thread of its own."""
        threading.Thread(target=self._look_for_lost_work, name="reconcile", daemon=True).start()

    def _look_for_lost_work(self) -> None:
        while True:
            try:
                if lost := reconcile(self.database, self.app, self.settings.queue_chunks):
                    log.warning("%d lost chunks are published again", lost)
            except (EcgbatchError, *REDIS_ERRORS) as error:
                log.warning("could not look for lost work: %s", error)
            except Exception:  # whatever it is, the next time may be better, and nobody else looks
                log.exception("could not look for lost work")
            if self.leaving.wait(self.settings.reconcile_seconds):
                return

    def finish_chunks_and_leave(self, **_: object) -> None:
        """The first SIGTERM or Ctrl-C lets the processes finish their chunks; the next one does not."""
        self.leaving.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_at_once)


def _leave_at_once(*_: object) -> None:
    """Ends all processes of this worker; their chunks are found by their leases."""
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(1)
