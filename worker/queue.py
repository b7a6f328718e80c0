"""Carries chunks from SQL into Redis, a few at a time, and finds those that were lost on the way.

A message says which chunk of which database is to be scored, and nothing else: what the chunk holds is read from SQL
when it is claimed, so nobody who can write to Redis can say otherwise, and no patient's data pass through it.
"""

from datetime import timedelta

from celery import Celery

from ecgbatch.db import dispatch
from ecgbatch.db.dispatch import QueuedChunk
from ecgbatch.db.engine import Database
from ecgbatch.db.terms import ChunkState, Priority
from ecgbatch.printing import first_line
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.app import REDIS_ERRORS
from ecgbatch.worker.message import TASK, ChunkMessage


def fill_queues(database: Database, app: Celery, queue_chunks: int) -> int:
    """Publishes pending chunks in every queue; returns how many."""
    return sum(fill_queue(database, app, priority, queue_chunks) for priority in Priority)


def fill_queue(database: Database, app: Celery, priority: Priority, queue_chunks: int) -> int:
    """Publishes pending chunks where the queue is less than half full; returns how many.

    Redis thus holds no more than `queue_chunks` messages a queue, whatever the archive's size. Raises EcgbatchError
    when Redis takes none; what should have been published is then found like all that is lost.
    """
    with database.read() as connection:  # each worker asks after each chunk, and who only looks keeps nobody waiting
        if not dispatch.any_chunk(connection, ChunkState.PENDING):
            return 0
    try:
        waiting = queue_length(app, priority)
        if waiting > queue_chunks // 2:
            return 0
        queued = database.write(dispatch.queue_pending, priority, queue_chunks - waiting)
        for chunk in queued:
            publish(app, priority, chunk)
        return len(queued)
    except REDIS_ERRORS as error:
        raise _refused(error) from error


def _refused(error: Exception) -> EcgbatchError:
    cause = first_line(error)
    return EcgbatchError(f"Redis takes no messages ({cause}); nothing is lost: mend it, and the same command goes on")


def publish(app: Celery, priority: Priority, chunk: QueuedChunk) -> None:
    """Sends one chunk, under a name that reads well in Flower."""
    what = f"job {chunk.job_id}, {chunk.archive} by {chunk.model}"
    title = f"{what}, chunk {chunk.number} of {chunk.of}, {chunk.records} records"
    send(app, priority, ChunkMessage(app.conf.ecgbatch_identity, chunk.job_id, chunk.number), title)


def send(app: Celery, priority: Priority, message: ChunkMessage, title: str) -> None:
    """Puts a message at the end of a queue."""
    app.send_task(TASK, kwargs=vars(message), queue=priority, argsrepr=title, kwargsrepr="{}")


def queue_length(app: Celery, priority: Priority) -> int:
    """How many messages wait in Redis."""
    with app.connection_or_acquire() as connection:
        return int(connection.default_channel.queue_declare(priority).message_count)


def reconcile(database: Database, app: Celery, settings: Settings) -> int:
    """Makes lost chunks pending and publishes what is pending; returns how many chunks were lost.

    Lost are those whose worker fell silent and those whose message is gone, both for as long as a lease. It can run at
    any time and in several places at once: a chunk published twice is scored once. Raises EcgbatchError when Redis or
    the database refuse.
    """
    try:
        waiting = {priority: queue_length(app, priority) for priority in Priority}
    except REDIS_ERRORS as error:
        raise _refused(error) from error
    lost = database.write(dispatch.find_lost, waiting, timedelta(seconds=settings.lease_seconds))
    fill_queues(database, app, settings.queue_chunks)
    return lost
