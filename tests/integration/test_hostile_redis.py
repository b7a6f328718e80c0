"""Whoever can write to Redis can neither stop a worker nor make it score what is not its own."""

import gzip
import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from commands import PATIENCE, Command, children, ends, scored, wait_until, workers
from places import FAULTY_WORKER

from ecgbatch.db.engine import Database
from ecgbatch.db.identity import identity_of
from ecgbatch.settings import Settings
from ecgbatch.worker.app import key_prefix, make_app
from ecgbatch.worker.transport import trusted

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PROPERTIES = {"delivery_tag": "1", "delivery_info": {"exchange": "normal", "routing_key": "normal"}}


def message(body: Any = None, raw_body: str | None = None, **changes: Any) -> str:
    """A message as Celery sends it, but for what is changed."""
    encoded = raw_body if raw_body is not None else b64encode(json.dumps(body).encode()).decode()
    envelope = {
        "body": encoded,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "ecgbatch.score", "id": "1", "lang": "py"},
        "properties": {**PROPERTIES, "body_encoding": "base64"},
    }
    return json.dumps(envelope | changes)


def asking(**kwargs: Any) -> list[Any]:
    return [[], kwargs, {}]


HOSTILE = [
    "hello",
    "",
    "5",
    "null",
    '"text"',
    "[]",
    "{}",
    "[" * 100_000,
    '{"a":' * 100_000,
    "\ud83d",
    "1" * 10_000,
    "[" + "1," * 1_000_000 + "1]",
    message(5),
    message(None),
    message([]),
    message([[], {}, {}]),
    message([1, 2, 3]),
    message(raw_body="not base64"),
    message(raw_body=""),
    message(raw_body=b64encode(b"[" * 100_000).decode()),
    message(asking(database="another", job_id=1, number=1)),
    message(asking(database=5, job_id=1, number=1)),
    message(asking(database="x", job_id="1", number=1)),
    message(asking(database="x", job_id=2**70, number=1)),
    message(asking(database="x", job_id=1, number=-1)),
    message(asking(database="x", job_id=True, number=1)),
    message(asking(database="x", job_id=1, number=1, root="/etc")),
    message([["positional"], {}, {}]),
    message(asking(), headers=None),
    message(asking(), headers={"task": "celery.backend_cleanup", "id": "1"}),
    message(asking(), headers={"task": ["ecgbatch.score"], "id": {}}),
    message(asking(), headers={"task": "ecgbatch.score", "id": "1", "compression": "application/x-gzip"}),
    message(asking(), **{"content-type": "application/x-python-serialize"}),
    message(asking(), properties=None),
    message(asking(), properties={}),
    message(asking(), properties={"delivery_tag": None, "delivery_info": 5}),
    json.dumps({"__type__": "datetime", "__value__": 5}),
    message(
        raw_body=b64encode(gzip.compress(b" " * 50_000_000)).decode(),
        headers={"task": "ecgbatch.score", "id": "1", "compression": "application/x-gzip"},
    ),
]


@pytest.fixture
def key(services: Command, archive: Path) -> str:
    """What the keys of the database begin with; there is a job of 64 records."""
    services.environment |= {"ECGBATCH_RECONCILE_SECONDS": "1", "ECGBATCH_CHUNK_SIZE": "16"}
    services("enqueue", archive)
    return key_prefix(identity_of(Database(services.environment["ECGBATCH_DATABASE_URL"])))


@pytest.fixture
def client(services: Command) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(services.environment["ECGBATCH_REDIS_URL"]) as client:
        yield client


@one_database
def test_malformed_messages_are_dropped_and_work_goes_on(
    services: Command, finished: Command, key: str, client: redis.Redis
) -> None:
    raw = [text.encode("utf-8", "surrogatepass") for text in HOSTILE] + [b"\xff\xfe\x00", bytes(2_000_000)]
    for text in raw:
        client.rpush(f"{key}normal", text)  # the end that workers take from
        client.publish(f"{key}/0.celery.pidbox", text)
    client.hset(f"{key}unacked", mapping={"1": b"nonsense", "2": b"[1, 2]", "3": b'[5, "normal", "normal"]'})
    client.zadd(f"{key}unacked_index", {"1": 1, "2": 2, "3": 3})
    with workers(services, processes=1) as parent:
        wait_until(lambda: scored(services) > 0)
        processes = children(parent.pid)
        for text in raw:
            client.publish(f"{key}/0.celery.pidbox", text)
            client.rpush(f"{key}normal", text)
        services("status", "--watch")
        wait_until(lambda: client.llen(f"{key}normal") == 0)
        assert children(parent.pid) == processes, "no process has ended"
    log = (services.folder / "worker.log").read_text()
    assert "dropped a message from normal" in log
    assert "Traceback" not in log
    assert ends(services) == ends(finished)


@one_database
def test_other_things_in_the_place_of_our_keys(services: Command, key: str, client: redis.Redis) -> None:
    for name in ("normal", "high", "unacked", "unacked_index"):
        client.set(f"{key}{name}", "a text")
    client.set(f"{key}_kombu.binding.normal", "a text")
    client.delete(f"{key}_kombu.binding.high")
    client.sadd(f"{key}_kombu.binding.high", "nonsense", "a\x06\x16b\x06\x16elsewhere")
    services("retry", "1")  # which publishes
    services.environment |= {"FAULTS_SLOW": "0.05", "ECGBATCH_LEASE_SECONDS": "3"}
    services.worker_script = FAULTY_WORKER
    with workers(services, processes=1):
        wait_until(lambda: scored(services) > 0)
        for name in ("normal", "unacked", "unacked_index"):
            client.set(f"{key}{name}", "a text")
        services("status", "--watch")
    assert scored(services) == 64
    assert "Traceback" not in (services.folder / "worker.log").read_text()


@one_database
def test_keys_and_connections_that_go_in_mid_job(
    services: Command, finished: Command, key: str, client: redis.Redis
) -> None:
    """Emptied, its keys renamed, connections ended, read-only for a while: each several times."""
    services.environment |= {"FAULTS_SLOW": "0.05", "ECGBATCH_LEASE_SECONDS": "2", "ECGBATCH_QUEUE_CHUNKS": "2"}
    services.worker_script = FAULTY_WORKER

    def rename() -> None:
        for name in client.keys(f"{key}*"):
            assert isinstance(name, bytes)
            client.rename(name, b"x" + name)

    def be_a_replica() -> None:
        client.replicaof("127.0.0.1", "1")
        time.sleep(1)
        client.replicaof("NO", "ONE")

    disturbances: list[Callable[[], object]] = [
        client.flushall,
        rename,
        lambda: client.client_kill_filter(skipme=True),
        be_a_replica,
    ]
    with workers(services, processes=1) as parent:
        wait_until(lambda: scored(services) > 0)
        processes = children(parent.pid)
        for disturb in disturbances * 2:
            disturb()
            time.sleep(0.2)
        services("status", "--watch")
        assert children(parent.pid) == processes, "no process has ended"
    assert "Traceback" not in (services.folder / "worker.log").read_text()
    assert ends(services) == ends(finished)


@one_database
def test_remote_control_only_looks_on(services: Command, key: str) -> None:
    database = Database(services.environment["ECGBATCH_DATABASE_URL"])
    settings = Settings(redis_url=services.environment["ECGBATCH_REDIS_URL"])
    control = make_app(settings, identity_of(database)).control
    with workers(services, processes=1) as parent:
        wait_until(lambda: scored(services) == 64)
        [name] = control.inspect(timeout=PATIENCE, limit=1).ping()
        assert name.startswith("ecgbatch-1@")
        before = children(parent.pid)
        control.broadcast("shutdown")
        control.broadcast("pool_restart", arguments={"reload": False})
        control.broadcast("pool_shrink", arguments={"n": 1})
        control.rate_limit("ecgbatch.score", "1/h")
        control.time_limit("ecgbatch.score", soft=1, hard=1)
        control.cancel_consumer("normal")
        control.disable_events()
        control.revoke("1", terminate=True)
        control.broadcast("nonsense", arguments={"state": 1})
        refused = {name: {"error": "ecgbatch's workers have no 'conf'"}}
        assert control.inspect(timeout=PATIENCE, limit=1).conf() == refused, "it holds passwords"
        assert control.inspect(timeout=PATIENCE, limit=1).active() == {name: []}
        assert children(parent.pid) == before
        stats = control.inspect(timeout=PATIENCE, limit=1).stats()
        assert "password" not in json.dumps(stats)
    assert "Traceback" not in (services.folder / "worker.log").read_text()


@one_database
def test_celerys_own_command_and_variables(services: Command, key: str) -> None:
    """`celery -A ecgbatch.worker` asks our workers, and CELERY_BROKER_URL leads nobody elsewhere."""
    services.environment |= {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "CELERY_RESULT_BACKEND": "nonsense://"}
    for_workers = {"CELERY_CONFIG_MODULE": "nonsense", "CELERY_LOADER": "nonsense"}
    services.environment |= for_workers
    with workers(services, processes=1):
        wait_until(lambda: scored(services) == 64)
        for name in for_workers:
            del services.environment[name]
        asked = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "ecgbatch.worker", "inspect", "active"],
            cwd=services.folder,
            env=services.environment,
            capture_output=True,
            text=True,
        )
    assert "1 node online" in asked.stdout, asked.stderr
    assert "ecgbatch-1@" in asked.stdout


def test_what_is_trusted_is_made_anew() -> None:
    asked = json.loads(message(asking(database="d", job_id=1, number=2), errbacks=1))
    asked["headers"] |= {"eta": "2100-01-01", "timelimit": [0.01, 0.01], "errbacks": [1], "argsrepr": "\x1b[31m"}
    made = trusted(asked, "normal")
    assert made is not None
    assert made["headers"]["eta"] is None
    assert made["headers"]["timelimit"] == [None, None]
    assert made["headers"]["argsrepr"] == "job 1, chunk 2"
    assert made["properties"]["delivery_tag"] != "1"
