"""Carries chunks from SQL into Redis, a few at a time, and finds those that were lost on the way."""

from typing import Any

from celery import Celery

from ecgbatch.db import chunks
from ecgbatch.db.chunks import Record, WaitingChunk
from ecgbatch.db.engine import Database
from ecgbatch.db.schema import Priority
from ecgbatch.worker.app import QUEUES, TASK


def to_message(chunk: WaitingChunk) -> dict[str, Any]:
    """The chunk as JSON holds it: records are [id, path, age, sex]."""
    return vars(chunk)


def from_message(message: dict[str, Any]) -> WaitingChunk:
    """The chunk that `to_message` gave."""
    return WaitingChunk(**message | {"records": [Record._make(record) for record in message["records"]]})


def fill_queues(database: Database, app: Celery, queue_chunks: int) -> int:
    """Publishes pending chunks in every queue; returns how many."""
    return sum(fill_queue(database, app, priority, queue_chunks) for priority in QUEUES)


def fill_queue(database: Database, app: Celery, priority: Priority, queue_chunks: int) -> int:
    """Publishes pending chunks where the queue is less than half full; returns how many.

    Redis thus holds no more than `queue_chunks` messages a queue, whatever the archive's size.
    """
    queue = QUEUES[priority]
    waiting = queue_length(app, queue)
    if waiting > queue_chunks // 2:
        return 0
    taken = database.write(chunks.take_pending, priority, queue_chunks - waiting)
    for chunk in taken:
        publish(app, queue, chunk)
    return len(taken)


def publish(app: Celery, queue: str, chunk: WaitingChunk) -> None:
    """Sends one chunk, under a name that reads well in Flower."""
    title = f"job {chunk.job_id}, chunk {chunk.number} of {chunk.chunks}, {len(chunk.records)} records"
    app.send_task(TASK, kwargs={"message": to_message(chunk)}, queue=queue, argsrepr=title, kwargsrepr="{}")


def queue_length(app: Celery, queue: str) -> int:
    """How many messages wait in Redis."""
    with app.connection_or_acquire() as connection:
        return int(connection.default_channel.client.llen(queue))


def reconcile(database: Database, app: Celery, queue_chunks: int) -> int:
    """Gives lost chunks back and publishes what is pending; returns how many chunks were lost.

    Lost are those whose worker fell silent and those whose message is gone. It can run at any time and in
    several places at once: a chunk published twice is scored once.
    """
    waiting = {priority: queue_length(app, queue) for priority, queue in QUEUES.items()}
    lost = database.write(chunks.give_back_lost, waiting)
    fill_queues(database, app, queue_chunks)
    return lost
