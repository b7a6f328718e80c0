"""The Celery task, and what worker processes do when they start, lose one of theirs, or end."""

import logging
import os
import resource
import signal
import sys
import threading
from typing import Any

from billiard import active_children
from celery import Celery, Task, current_app, shared_task
from celery.signals import task_failure, worker_init, worker_process_init, worker_ready, worker_shutting_down

from ecgbatch.db import chunks
from ecgbatch.db.engine import OUTAGE_SECONDS, Database
from ecgbatch.db.schema import Priority
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError, Settings, load
from ecgbatch.worker.app import QUEUE_PREFIX, REDIS_ERRORS, TASK
from ecgbatch.worker.pipeline import ScoringProcess
from ecgbatch.worker.queue import fill_queue, from_message, reconcile

log = logging.getLogger(__name__)

process: ScoringProcess
closing = threading.Event()
unable = threading.Event()


@worker_init.connect
def heed_processes(**_: Any) -> None:
    """The worker leaves when one of its processes says that it cannot score, and `unable` tells why it left."""
    signal.signal(signal.SIGUSR2, leave_unable)


def leave_unable(*_: Any) -> None:
    if not unable.is_set():
        unable.set()
        os.kill(os.getpid(), signal.SIGTERM)


@worker_process_init.connect
def load_model(**_: Any) -> None:
    """Makes the model resident before the first chunk comes."""
    global process
    settings = load()
    try:
        process = ScoringProcess(settings, Database(settings.database_url, OUTAGE_SECONDS))
        process.scorer(Registry(settings.model_dir).find(settings.model).fingerprint)
    except Exception as error:  # celery swallows what a signal's handler raises, and would go on without a model
        log.critical("%s", error)
        os.kill(os.getppid(), signal.SIGUSR2)
        os._exit(1)
    if settings.device == "cpu" and sys.platform == "linux":
        _limit_memory(settings.memory_mb)


def _limit_memory(megabytes: int) -> None:
    """Lets allocations fail beyond the present size plus `megabytes`, so that one record cannot take the machine."""
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[5])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


@shared_task(name=TASK, bind=True)
def score(self: Task, message: dict[str, Any]) -> str:
    """Scores a chunk; what it returns is read by people, in Flower."""
    outcome = process.score_chunk(from_message(message), self.request.id)
    came_from = Priority(self.request.delivery_info["routing_key"].removeprefix(QUEUE_PREFIX))
    _fill(process.database, self.app, process.settings, came_from)
    return outcome


def _fill(database: Database, app: Celery, settings: Settings, *priorities: Priority) -> None:
    """Publishes what is pending; without Redis that waits for the next reconcile."""
    try:
        for priority in priorities:
            fill_queue(database, app, priority, settings.queue_chunks)
    except (EcgbatchError, *REDIS_ERRORS) as error:
        log.warning("nothing published: %s", error)


@task_failure.connect
def give_back(task_id: str, kwargs: dict[str, Any], exception: Exception, **_: Any) -> None:
    """Frees the chunk of a task that failed or whose process died, so that it need not wait for its lease."""
    message = kwargs["message"]
    settings = load()
    log.error("job %d, chunk %d: %s; giving it back", message["job_id"], message["number"], exception)
    database = Database(settings.database_url)
    try:
        database.write(chunks.release, message["job_id"], message["number"], task_id)
        _fill(database, current_app._get_current_object(), settings, *Priority)
    except EcgbatchError as error:
        log.error("%s; its lease will run out", error)


@worker_ready.connect
def start_reconciling(sender: Any, **_: Any) -> None:
    """Looks for lost work at once and then now and then, in a thread of the worker's parent process."""
    threading.Thread(target=_reconcile_for_ever, args=[sender.app], name="reconcile", daemon=True).start()


def _reconcile_for_ever(app: Celery) -> None:
    settings = load()
    database = Database(settings.database_url)
    while True:
        try:
            if lost := reconcile(database, app, settings.queue_chunks):
                log.warning("%d lost chunks were given back", lost)
        except (EcgbatchError, *REDIS_ERRORS) as error:
            log.warning("could not look for lost work: %s", error)
        if closing.wait(settings.reconcile_seconds):
            return


@worker_shutting_down.connect
def finish_chunks_and_leave(**_: Any) -> None:
    """The first SIGTERM or Ctrl-C lets the processes finish their chunks; the next one does not."""
    closing.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave_at_once)


def leave_at_once(*_: Any) -> None:
    """Ends all processes of this worker; their chunks are found by their leases."""
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(1)
