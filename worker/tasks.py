"""What worker processes do: load the model when they start, score a chunk for each message."""

import logging
import os
import resource
import signal
import sys

from celery import Celery, Task, current_app, shared_task
from celery.signals import task_failure, worker_process_init

from ecgbatch.db import chunks
from ecgbatch.db.engine import OUTAGE_SECONDS, Database
from ecgbatch.db.schema import Priority
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.app import REDIS_ERRORS, TASK
from ecgbatch.worker.process import ScoringProcess
from ecgbatch.worker.queue import fill_queue

log = logging.getLogger(__name__)

process: ScoringProcess
"""The one of this worker process."""

CANNOT_START = signal.SIGUSR2
"""What a process tells the worker that started it when it cannot score."""


@worker_process_init.connect
def load_model(**_: object) -> None:
    """Makes the model resident before the first chunk comes."""
    global process
    conf = current_app.conf
    settings: Settings = conf.ecgbatch_settings
    try:
        process = ScoringProcess(settings, Database(settings.database_url, OUTAGE_SECONDS), conf.ecgbatch_stages)
        process.scorer(Registry(settings.model_dir).find(settings.model).fingerprint)
    except Exception as error:  # celery swallows what a signal's handler raises, and would go on without a model
        log.critical("%s", error)
        os.kill(os.getppid(), CANNOT_START)
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
def score(self: Task, database: str, job_id: int, number: int) -> str:
    """Scores a chunk; what it returns is read by people, in Flower."""
    outcome = process.score_chunk(job_id, number, self.request.id)
    _fill(process.database, self.app, Priority(self.request.delivery_info["routing_key"]))
    return outcome


def _fill(database: Database, app: Celery, *priorities: Priority) -> None:
    """Publishes what is pending; without Redis that waits for the next reconcile."""
    try:
        for priority in priorities:
            fill_queue(database, app, priority, app.conf.ecgbatch_settings.queue_chunks)
    except (EcgbatchError, *REDIS_ERRORS) as error:
        log.warning("nothing published: %s", error)


@task_failure.connect
def free_chunk(task_id: str, kwargs: dict[str, int], exception: Exception, **_: object) -> None:
    """Frees the chunk of a task that failed or whose process died, so that it need not wait for its lease."""
    job_id, number = kwargs["job_id"], kwargs["number"]
    app = current_app._get_current_object()
    log.error("job %d, chunk %d: %s; it will be tried again", job_id, number, exception)
    database = Database(app.conf.ecgbatch_settings.database_url)
    try:
        database.write(chunks.give_up, job_id, number, task_id)
        _fill(database, app, *Priority)
    except EcgbatchError as error:
        log.error("%s; its lease will run out", error)
