"""What worker processes do: load the model when they start, score a chunk for each message."""

import logging
import os
import resource
import signal
import sys

from billiard import current_process
from celery import Celery, Task, current_app, shared_task
from celery.signals import setup_logging, task_failure, worker_process_init

from ecgbatch.db import chunks, dispatch
from ecgbatch.db.engine import OUTAGE_SECONDS, Database
from ecgbatch.db.terms import Priority
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.app import REDIS_ERRORS
from ecgbatch.worker.logs import set_up_logs
from ecgbatch.worker.machine import gpus
from ecgbatch.worker.message import TASK, ChunkMessage
from ecgbatch.worker.pipeline import Scorer
from ecgbatch.worker.process import CannotWorkHere, ScoringProcess
from ecgbatch.worker.queue import fill_queue, send

log = logging.getLogger(__name__)

process: ScoringProcess
"""The one of this worker process."""

resident: dict[str, Scorer] = {}
"""Models by fingerprint that were there before this process was forked."""

CANNOT_START = signal.SIGUSR2
"""What a process tells the worker that started it when it cannot score."""


@setup_logging.connect
def leave_logs_alone(**_: object) -> None:
    """Where somebody listens to this signal, Celery does not set up logs of its own."""


@worker_process_init.connect
def prepare_process(**_: object) -> None:
    """Makes the model resident before the first chunk comes."""
    global process
    conf = current_app.conf
    settings: Settings = conf.ecgbatch_settings
    set_up_logs(settings.log_format)
    if settings.device == "cuda":
        _take_a_gpu()
    try:
        database = Database(settings.database_url, OUTAGE_SECONDS)
        process = ScoringProcess(settings, database, conf.ecgbatch_stages, conf.ecgbatch_worker, resident)
        process.scorer(Registry(settings.model_dir).find(settings.model).fingerprint)
    except Exception as error:  # celery swallows what a signal's handler raises, and would go on without a model
        log.critical("%s", error)
        os.kill(os.getppid(), CANNOT_START)
        os._exit(1)
    if settings.device == "cpu" and sys.platform == "linux":
        _limit_memory(settings.memory_mb)


def _take_a_gpu() -> None:
    """Lets this process see one GPU alone, the next for each process; before torch looks for them."""
    if visible := gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[current_process().index % len(visible)]


def _limit_memory(megabytes: int) -> None:
    """Lets allocations fail beyond the present size plus `megabytes`, so that one record cannot take the machine."""
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[5])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


@shared_task(name=TASK, bind=True)
def score(self: Task, database: str, job_id: int, number: int) -> str:
    """Scores a chunk; what it returns is read by people, in Flower."""
    priority = Priority(self.request.delivery_info["routing_key"])
    message = ChunkMessage(database, job_id, number)
    if database != self.app.conf.ecgbatch_identity:
        log.warning("dropped a message of another database, %r", database)
        return "dropped: it is of another database"
    try:
        outcome = process.score_chunk(job_id, number, self.request.id)
    except CannotWorkHere as error:
        process.wait_to_put_back()
        process.database.write(dispatch.requeue, job_id, number)
        send(self.app, priority, message, self.request.argsrepr)
        return f"put back: {error}"
    _fill(process.database, self.app, priority)
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
