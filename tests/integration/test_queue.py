"""Chunks on their way into a real Redis, and back out of SQL when Redis loses them."""

import json
import time
from datetime import timedelta

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from commands import wait_until
from scoring import THRESHOLDS

from ecgbatch.db import chunks, jobs
from ecgbatch.db.chunks import Claim
from ecgbatch.db.engine import Database
from ecgbatch.db.terms import JobOptions, Priority
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.app import connected_app, key_prefix, make_app, ping
from ecgbatch.worker.lease import LeaseKeeper
from ecgbatch.worker.queue import fill_queues, queue_length, reconcile

ROOM = 8
SETTINGS, DOUBLE = Settings(queue_chunks=ROOM), Settings(queue_chunks=2 * ROOM)


@pytest.fixture
def app(redis_url: str, sqlite: Database) -> Celery:
    return connected_app(Settings(redis_url=redis_url), sqlite)


def make_job(database: Database, name: str, records: int, priority: Priority = Priority.NORMAL) -> int:
    def make(connection: sa.Connection) -> int:
        archive_id = jobs.register_archive(connection, name, f"/{name}")
        model_id = jobs.register_model(connection, "m", "1", "fingerprint", {"thresholds": THRESHOLDS})
        job_id, _ = jobs.open_job(connection, archive_id, model_id, JobOptions(priority))
        jobs.add_records(connection, job_id, [Record(f"r{n}") for n in range(records)], 2)
        jobs.all_enqueued(connection, job_id)
        return job_id

    return database.write(make)


def waiting(redis_url: str, priority: Priority = Priority.NORMAL) -> list[tuple[int, int]]:
    """The chunks (job, number) in Redis, first in first."""
    client = redis.Redis.from_url(redis_url)
    messages = [
        message for key in client.keys(f"ecgbatch.{'?' * 16}.{priority}") for message in client.lrange(key, 0, -1)[::-1]
    ]
    titles = [json.loads(message)["headers"]["argsrepr"].split() for message in messages]
    return [(int(words[1].strip(",")), int(words[words.index("chunk") + 1])) for words in titles]


def test_leases_are_kept_chunk_after_chunk_and_no_longer(sqlite: Database) -> None:
    """One thread renews the lease of whichever chunk is being scored; three seconds without a renewal free a chunk."""
    job_id, length = make_job(sqlite, "archive", 4), timedelta(seconds=3)
    lease = LeaseKeeper(sqlite, length)
    plan = sqlite.write(chunks.plan_of, job_id)
    assert plan is not None

    def claim(number: int, worker: str) -> Claim | None:
        return sqlite.write(chunks.claim, plan, number, worker, "task", length)

    def until(number: int) -> object:
        with sqlite.read() as connection:
            return connection.exec_driver_sql(f"SELECT lease_until FROM chunks WHERE number = {number}").scalar()

    for number in (1, 2):
        mine, began = claim(number, "mine"), time.monotonic()
        assert mine is not None
        with lease.keeping(mine):
            while time.monotonic() < began + 4:
                before = until(number)
                wait_until(lambda number=number, before=before: until(number) != before)  # type: ignore[misc]
            assert claim(number, "another") is None
    wait_until(lambda: claim(2, "another") is not None)


def test_redis_holds_no_more_than_the_queue_has_room_for(sqlite: Database, app: Celery, redis_url: str) -> None:
    make_job(sqlite, "big", 1000)
    for _ in range(5):
        fill_queues(sqlite, app, ROOM)
    assert queue_length(app, Priority.NORMAL) == ROOM
    assert waiting(redis_url) == [(1, n) for n in range(1, ROOM + 1)]


def test_a_half_empty_queue_is_filled_up(sqlite: Database, app: Celery, redis_url: str) -> None:
    make_job(sqlite, "big", 1000)
    fill_queues(sqlite, app, ROOM)
    redis.Redis.from_url(redis_url).rpop(key_prefix(app.conf.ecgbatch_identity) + Priority.NORMAL, ROOM // 2)
    assert fill_queues(sqlite, app, ROOM) == ROOM // 2
    assert len(waiting(redis_url)) == ROOM


def test_high_priority_has_a_queue_of_its_own(sqlite: Database, app: Celery, redis_url: str) -> None:
    make_job(sqlite, "normal", 4)
    make_job(sqlite, "urgent", 4, Priority.HIGH)
    fill_queues(sqlite, app, ROOM)
    assert waiting(redis_url, Priority.HIGH) == [(2, 1), (2, 2)]
    assert waiting(redis_url, Priority.NORMAL) == [(1, 1), (1, 2)]


def test_reconcile_restores_a_redis_that_came_back_empty(sqlite: Database, app: Celery, redis_url: str) -> None:
    make_job(sqlite, "archive", 12)
    fill_queues(sqlite, app, ROOM)
    redis.Redis.from_url(redis_url).flushall()
    assert reconcile(sqlite, app, SETTINGS) == 0, "messages that were published just now may be in transit"
    age_queued_chunks(sqlite)
    assert reconcile(sqlite, app, SETTINGS) == 6
    assert waiting(redis_url) == [(1, n) for n in range(1, 7)]


def test_reconcile_restores_only_the_message_that_is_gone(sqlite: Database, app: Celery, redis_url: str) -> None:
    make_job(sqlite, "archive", 12)
    fill_queues(sqlite, app, 2 * ROOM)
    age_queued_chunks(sqlite)
    redis.Redis.from_url(redis_url).rpop(key_prefix(app.conf.ecgbatch_identity) + Priority.NORMAL)
    assert reconcile(sqlite, app, DOUBLE) == 1
    assert waiting(redis_url) == [(1, n) for n in (2, 3, 4, 5, 6, 1)]
    assert reconcile(sqlite, app, DOUBLE) == 0


def age_queued_chunks(database: Database) -> None:
    """Makes the queued chunks look as if they had been published long ago, in their order."""
    update = "UPDATE chunks SET queued_at = '2000-01-01 00:00:' || substr('0' || number, -2) || '.000000'"
    database.write(lambda c: c.execute(sa.text(f"{update} WHERE state = 'queued'")))


def test_a_cancelled_jobs_chunks_are_not_published(sqlite: Database, app: Celery, redis_url: str) -> None:
    job_id = make_job(sqlite, "archive", 1000)
    fill_queues(sqlite, app, ROOM)
    sqlite.write(jobs.cancel, job_id)
    redis.Redis.from_url(redis_url).flushall()
    assert reconcile(sqlite, app, SETTINGS) == 0
    assert waiting(redis_url) == []
    plan = sqlite.write(chunks.plan_of, job_id)
    assert plan is not None
    assert sqlite.write(chunks.claim, plan, 1, "w", "task", timedelta(seconds=30)) is None


def test_a_message_of_a_connection_that_was_given_up_cannot_be_acknowledged(app: Celery) -> None:
    """Celery tries it when a chunk ends after Redis was lost; what is no lost connection would end the worker."""
    connection = app.connection_for_read()
    lost, channel = connection.connection_errors, connection.default_channel
    connection.collect()
    with pytest.raises(lost, match="given up"):
        channel.basic_ack("its tag")


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(EcgbatchError, match="no Redis server answers") as error:
        ping(make_app(Settings(redis_url="redis://:secret@127.0.0.1:1/0"), "identity"))
    assert "secret" not in str(error.value)
